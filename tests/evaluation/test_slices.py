import numpy as np
import pandas as pd
import pytest

from catsdogs_lib.evaluation.metrics import EvaluationError, point, wilson
from catsdogs_lib.evaluation.slices import holm, slice_table


def manifest(size, seed=0):
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "path": [f"{i}.jpg" for i in range(size)],
            "width": random.integers(200, 600, size),
            "height": random.integers(200, 600, size),
            "brightness": random.random(size),
            "sharpness": random.gamma(2, 0.01, size),
            "grayscale": random.random(size) < 0.1,
            "orientation": 1,
        },
        index=np.arange(size) * 7 + 3,  # as after filtering
    )


def answers(wrong):
    """Answers of 0.9 to photos of class 0, wrong where said."""
    top = np.where(wrong, 0.1, 0.9)
    return np.stack([top, 1 - top], axis=1), np.zeros(len(wrong), dtype=int)


def test_each_slice_holds_every_photo_once_and_its_own_numbers():
    rows = manifest(300)
    probabilities, labels = answers(np.random.default_rng(1).random(300) < 0.1)
    table = slice_table(rows, probabilities, labels)
    assert list(table["slice"].unique()) == ["resolution", "brightness", "aspect ratio", "grayscale", "sharpness"]
    assert (table.groupby("slice")["photos"].sum() == 300).all()
    grey = table[table["value"] == "grey"].iloc[0]
    inside = rows["grayscale"].to_numpy()
    expected = point(probabilities[inside], labels[inside])
    assert grey["photos"] == inside.sum()
    assert grey["accuracy"] == pytest.approx(expected["accuracy"])
    assert grey["log_loss"] == pytest.approx(expected["log_loss"])
    bounds = wilson(round(expected["accuracy"] * inside.sum()), inside.sum())
    assert (grey["accuracy_low"], grey["accuracy_high"]) == pytest.approx((bounds.low, bounds.high))
    assert (table["log_loss_low"] <= table["log_loss"]).all()
    assert (table["log_loss"] <= table["log_loss_high"]).all()


def test_a_slice_that_is_worse_is_flagged_and_no_other():
    rows = manifest(600)
    wrong = (rows["brightness"] < 0.3).to_numpy() & (np.random.default_rng(0).random(600) < 0.4)
    table = slice_table(rows, *answers(wrong))
    flagged = table[table["worse"]]
    assert list(flagged["slice"]) == ["brightness"]
    assert flagged["value"].iloc[0].startswith("dark (up to 0.")


def test_an_even_model_is_rarely_flagged():
    random = np.random.default_rng(0)
    flags = [slice_table(manifest(200, i), *answers(random.random(200) < 0.1))["worse"].any() for i in range(40)]
    assert sum(flags) <= 6


def test_a_photo_on_its_side_is_taken_upright():
    rows = manifest(4).assign(width=[400, 400, 300, 320], height=[300, 300, 400, 300], orientation=[1, 6, 1, 1])
    table = slice_table(rows, *answers(np.zeros(4, dtype=bool)))
    shapes = table[table["slice"] == "aspect ratio"].set_index("value")["photos"]
    assert shapes.to_dict() == {"portrait": 2, "square": 1, "landscape": 1}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_handful_of_photos_is_fine_and_proves_nothing(size):
    table = slice_table(manifest(size), *answers(np.arange(size) == 0))
    assert not table["worse"].any()
    assert (table["photos"] > 0).all()


def test_photos_all_alike_are_one_part_without_a_test():
    rows = manifest(30).assign(width=300, height=300)
    table = slice_table(rows, *answers(np.arange(30) < 3))
    resolution = table[table["slice"] == "resolution"]
    assert list(resolution["value"]) == ["small (up to 300 px)"]
    assert resolution["p_value"].isna().all()
    assert not resolution["worse"].any()


def test_unknown_values_are_a_part_of_their_own():
    rows = manifest(30)
    rows.iloc[:4, rows.columns.get_loc("brightness")] = np.nan
    table = slice_table(rows, *answers(np.arange(30) < 3))
    unknown = table[(table["slice"] == "brightness") & (table["value"] == "unknown")]
    assert list(unknown["photos"]) == [4]


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert holm([0.04, 0.01, np.nan, 0.03]) == pytest.approx([0.06, 0.03, np.nan, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])


def test_rows_that_do_not_fit_are_refused():
    probabilities, labels = answers(np.zeros(5, dtype=bool))
    with pytest.raises(EvaluationError, match="4 manifest rows, but 5"):
        slice_table(manifest(4), probabilities, labels)
    with pytest.raises(EvaluationError, match="no column sharpness"):
        slice_table(manifest(5).drop(columns="sharpness"), probabilities, labels)
