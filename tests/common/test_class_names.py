import pytest

from catsdogs_lib.common.class_names import canonical_class, canonical_classes


@pytest.mark.parametrize("names", [("Cat", "Dog"), ("cats", "dogs"), ("CATS", "dog"), ("cat", "DOGS")])
def test_cats_and_dogs_get_the_same_two_names_whatever_they_were_called(names):
    assert canonical_classes(names) == ("cat", "dog")
    assert canonical_class("dogs", names) == "dog"
    assert canonical_class("wolf", names) == "wolf"


@pytest.mark.parametrize(
    "names", [("cats", "dogs", "rabbits"), ("cats", "rabbits"), ("Cat", "cats"), ("Cat", "cats", "dogs"), (), ("cats",)]
)
def test_any_other_set_of_classes_keeps_its_names(names):
    assert canonical_classes(names) == names
    assert canonical_class("cats", names) == "cats"


def test_the_order_of_the_classes_stays():
    assert canonical_classes(("Dogs", "cats")) == ("dog", "cat")
