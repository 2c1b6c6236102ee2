"""Errors go from process to process whole."""

import pickle

import pytest

from catsdogs_lib.batch.sources import SourceUnusableError
from catsdogs_lib.common.errors import CatsdogsError, SettingsError
from catsdogs_lib.data.manifest import EmptyClassError


@pytest.mark.parametrize(
    "error",
    [
        CatsdogsError("a sentence"),
        SettingsError("train.epochs", "too few"),
        SourceUnusableError("photos.zip", "damaged"),
        EmptyClassError("cats", "test", 3, 0, "blurred"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling_with_its_data(error):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(error, protocol))
        assert type(back) is type(error)
        assert str(back) == str(error)
        assert vars(back) == vars(error)
