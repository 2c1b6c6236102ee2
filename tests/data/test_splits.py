import hashlib
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catsdogs_lib.data.duplicates import components
from catsdogs_lib.data.splits import Assignment, Member, assign

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
Sizes = dict[str, list[int]]
SIZES = st.fixed_dictionaries(
    {"cats": st.lists(st.integers(1, 5), min_size=3, max_size=40), "dogs": st.lists(st.integers(1, 5), min_size=3)}
)


def member(number: int, label: str, split: str = "") -> Member:
    return Member(hashlib.sha256(f"{label} {number}".encode()).hexdigest(), label, f"{label}/{number}.jpg", split)


def collection(sizes: Sizes) -> tuple[list[Member], list[tuple[int, int]]]:
    """Groups of the given sizes, each a chain of near-duplicates."""
    members: list[Member] = []
    pairs = []
    for label, groups in sizes.items():
        number = 0
        for size in groups:
            pairs += [(len(members) + i, len(members) + i + 1) for i in range(size - 1)]
            members += [member(number + i, label) for i in range(size)]
            number += size
    return members, pairs


def settled(members: Sequence[Member], places: Sequence[Assignment]) -> list[Member]:
    return [Member(one.sha256, one.label, one.path, place.split) for one, place in zip(members, places, strict=True)]


@given(SIZES, st.integers(0, 3))
def test_groups_stay_whole_and_shares_are_kept_to_within_one_group(sizes: Sizes, seed: int) -> None:
    members, pairs = collection(sizes)
    places = assign(members, pairs, SHARES, seed)
    assert all(place.split and not place.excluded for place in places)
    of_group = defaultdict(set)
    for root, place in zip(components(len(members), pairs), places, strict=True):
        of_group[root].add(place.split)
    assert all(len(found) == 1 for found in of_group.values())
    for label, groups in sizes.items():
        have = Counter(place.split for one, place in zip(members, places, strict=True) if one.label == label)
        for split, share in SHARES.items():
            assert have[split] > 0
            assert abs(have[split] - share * sum(groups)) <= max(groups) * (1 if sum(groups) > 40 else 2)


@given(SIZES, st.integers(0, 3), st.randoms(use_true_random=False))
def test_neither_order_nor_names_matter(sizes: Sizes, seed: int, rng: random.Random) -> None:
    members, pairs = collection(sizes)
    before = {one.sha256: place for one, place in zip(members, assign(members, pairs, SHARES, seed), strict=True)}
    order = list(range(len(members)))
    rng.shuffle(order)
    at = {old: new for new, old in enumerate(order)}
    shuffled = [Member(members[old].sha256, members[old].label, f"renamed/{new}", "") for new, old in enumerate(order)]
    turned = [(at[second], at[first]) for first, second in reversed(pairs)]
    after = assign(shuffled, turned, SHARES, seed)
    assert {one.sha256: place for one, place in zip(shuffled, after, strict=True)} == before


@settings(max_examples=50)
@given(SIZES, SIZES, st.data())
def test_adding_photos_moves_none(first: Sizes, more: Sizes, data: st.DataObject) -> None:
    old, old_pairs = collection(first)
    old = settled(old, assign(old, old_pairs, SHARES, 0))
    both, pairs = collection({label: first[label] + more[label] for label in first})
    ledger = {one.sha256: one.split for one in old}
    # Any new photo may also look like any two of its class, old or new.
    labels = [one.label for one in both]
    fresh = [index for index, one in enumerate(both) if one.sha256 not in ledger]
    for index in data.draw(st.lists(st.sampled_from(fresh), max_size=6)) if fresh else []:
        same = [i for i, label in enumerate(labels) if label == labels[index] and i != index]
        pairs += [(index, other) for other in data.draw(st.lists(st.sampled_from(same), max_size=2))]
    members = [Member(one.sha256, one.label, one.path, ledger.get(one.sha256, "")) for one in both]
    assert sum(bool(one.split) for one in members) == len(old)
    places = assign(members, pairs, SHARES, 0)
    for one, place in zip(members, places, strict=True):
        assert place.split == (ledger.get(one.sha256) or place.split)
        assert bool(place.split) != bool(place.excluded)
    assert all(places[a].split == places[b].split for a, b in pairs if places[a].split and places[b].split)


def test_a_hundred_singles_are_split_exactly() -> None:
    members, pairs = collection({"cats": [1] * 100, "dogs": [1] * 200})
    have = Counter(
        (one.label, place.split) for one, place in zip(members, assign(members, pairs, SHARES, 0), strict=True)
    )
    assert have == {
        ("cats", "train"): 70,
        ("cats", "val"): 15,
        ("cats", "test"): 15,
        ("dogs", "train"): 140,
        ("dogs", "val"): 30,
        ("dogs", "test"): 30,
    }


def test_the_seed_changes_the_split() -> None:
    members, pairs = collection({"cats": [1] * 50})
    assert assign(members, pairs, SHARES, 0) != assign(members, pairs, SHARES, 1)


@pytest.mark.parametrize("groups", [3, 4, 5])
def test_a_tiny_class_is_in_every_split(groups: int) -> None:
    members, pairs = collection({"cats": [1] * groups, "dogs": [1] * 100})
    places = assign(members, pairs, SHARES, 0)
    assert {place.split for one, place in zip(members, places, strict=True) if one.label == "cats"} == set(SHARES)


def test_a_new_photo_follows_those_it_resembles() -> None:
    members = [member(0, "cats", "test"), member(1, "cats"), member(2, "cats")]
    assert assign(members, [(1, 2), (0, 2)], SHARES, 0) == [Assignment("test")] * 3


def test_a_new_photo_between_two_splits_is_left_out() -> None:
    members = [member(0, "cats", "train"), member(1, "cats"), member(2, "cats", "test")]
    places = assign(members, [(0, 1), (1, 2)], SHARES, 0)
    assert [place.split for place in places] == ["train", "", "test"]
    assert places[1].excluded == "near-duplicate of photos in two splits: cats/0.jpg and cats/2.jpg"


def test_who_of_a_chain_between_two_splits_is_left_out_does_not_depend_on_the_order() -> None:
    chain = [member(0, "cats", "train"), *(member(number, "cats") for number in range(1, 4)), member(4, "cats", "test")]
    outcomes = set()
    for order in itertools.permutations(range(5)):
        pairs = [(order.index(number), order.index(number + 1)) for number in range(4)]
        places = assign([chain[number] for number in order], pairs, SHARES, 0)
        outcomes.add(tuple(places[order.index(number)] for number in range(5)))
    assert len(outcomes) == 1
    assert sum(bool(place.excluded) for place in outcomes.pop()) == 1


@pytest.mark.parametrize(("split", "better"), [("train", "val"), ("train", "test"), ("val", "test")])
def test_of_two_that_resemble_the_test_photo_stays(split: str, better: str) -> None:
    places = assign([member(0, "cats", split), member(1, "cats", better)], [(0, 1)], SHARES, 0)
    assert places == [Assignment("", f"near-duplicate of {better} photo cats/1.jpg"), Assignment(better)]


def test_photos_of_a_given_train_folder_never_enter_its_test_set() -> None:
    shares = {"train": 0.8, "val": 0.2}
    members = [member(0, "cats", "test"), *(member(number, "cats") for number in range(1, 11))]
    places = assign(members, [(0, 1)], shares, 0)
    assert places[1].excluded == "near-duplicate of test photo cats/0.jpg"
    assert Counter(place.split for place in places[2:]) == {"train": 7, "val": 2}
