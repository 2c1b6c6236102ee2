import numpy as np
import pandas as pd
import pytest

from catsdogs_lib.monitoring import drift, report
from catsdogs_lib.monitoring.records import RecordsError

LIMIT = 0.5


def summarize(reference, week):
    return report.summarize(reference, week, drift.compare(reference, week, LIMIT))


def window(count, seed=0, classes=("cat", "dog")):
    """Records of one world, drawn by chance."""
    rng = np.random.default_rng(seed)
    prediction = rng.choice(classes, count)
    confidence = 1 - rng.beta(0.3, 12, count)
    right = rng.random(count) < confidence
    others = {name: classes[(index + 1) % len(classes)] for index, name in enumerate(classes)}
    return pd.DataFrame(
        {
            "timestamp": pd.date_range("2026-01-01", periods=count, freq="h", tz="UTC"),
            "prediction_id": [f"{seed}-{index}" for index in range(count)],
            "prediction": prediction,
            "truth": [name if good else others[name] for name, good in zip(prediction, right, strict=True)],
            "photo_format": rng.choice(["JPEG", "PNG"], count, p=[0.9, 0.1]),
            "model_version": "abc",
            "confidence": confidence,
            "unfamiliarity": rng.beta(8, 20, count) * 0.8,
            "latency_seconds": rng.gamma(4, 0.003, count),
            "photo_width": rng.integers(300, 500, count).astype(float),
            "photo_height": rng.integers(300, 500, count).astype(float),
            "photo_brightness": rng.beta(6, 6, count),
            "photo_sharpness": rng.gamma(2, 0.005, count),
            "confident": confidence > 0.9,
        }
    )


def darker(table):
    return table.assign(photo_brightness=table["photo_brightness"] * 0.7)


def blurred(table):
    return table.assign(photo_sharpness=table["photo_sharpness"] * 0.4)


def of_one_class(table):
    return table.assign(prediction=table["prediction"].iloc[0])


def strange(table):
    far = np.arange(len(table)) % 10 == 0
    return table.assign(unfamiliarity=table["unfamiliarity"].where(~far, 0.8))


@pytest.mark.parametrize("classes", [("cat", "dog"), ("cats", "dogs", "rabbits")])
def test_unchanged_windows_raise_no_alarm(classes):
    alarms = [
        drift.watch(window(420, 1000, classes), window(500, seed, classes), LIMIT)[0] is not None for seed in range(40)
    ]
    assert sum(alarms) <= 1


@pytest.mark.parametrize(
    ("change", "signal"),
    [
        (darker, "brightness"),
        (blurred, "sharpness"),
        (of_one_class, "classes"),
        (strange, "share of unfamiliar photos"),
    ],
)
@pytest.mark.parametrize("classes", [("cat", "dog"), ("cats", "dogs", "rabbits")])
def test_each_change_is_found_by_its_own_signal(change, signal, classes):
    for seed in range(5):
        count, drifts = drift.watch(window(420, 1000, classes), change(window(500, seed, classes)), LIMIT)
        assert count is not None
        assert signal in {each.signal for each in drifts if each.alarm}


def test_a_change_too_small_to_matter_is_no_alarm_however_many_records_show_it():
    before, now = window(200_000, 1), window(200_000, 2)
    drifts = drift.compare(before, now.assign(photo_brightness=now["photo_brightness"] + 0.01), LIMIT)
    (light,) = [each for each in drifts if each.signal == "brightness"]
    assert light.p_value < 1e-6
    assert not light.alarm


def test_too_few_records_say_nothing():
    with pytest.raises(RecordsError, match="3 records against 420"):
        drift.compare(window(420), window(3), LIMIT)


def test_a_quiet_week_has_nothing_to_do():
    summary = summarize(window(420, 1000), window(400, 1))
    assert summary.alarms == ()
    assert summary.sentence == "Nothing to do: 400 answers look like validation."
    assert summary.estimated.low < summary.measured.value < 1
    assert len(summary.latency) == 3
    assert summary.volume.sum() == 400


def test_feedback_shows_what_confidence_hides():
    week = window(400, 1)
    summary = summarize(window(420, 1000), week.assign(truth=np.where(np.arange(400) % 4 == 0, "cat", "dog")))
    assert any(sentence.startswith("accuracy:") for sentence in summary.alarms)
    assert summary.sentence.startswith("Look at")


def test_two_models_in_one_window_are_named():
    week = window(400, 1).assign(model_version=["abc", "def"] * 200)
    assert "2 model versions answered: abc, def" in summarize(window(420, 1000), week).sentence


def test_without_feedback_accuracy_is_only_estimated():
    summary = summarize(window(420, 1000), window(400, 1).assign(truth=""))
    assert summary.measured is None
    assert "accuracy_measured" not in summary.metrics()
