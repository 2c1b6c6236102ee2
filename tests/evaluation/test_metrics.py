import time

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from catsdogs_lib.evaluation import metrics
from catsdogs_lib.evaluation.calibration import softmax


def answers(size, classes=2, skill=2.0, seed=0):
    """Probabilities and labels of a made-up model; calibrated in no way."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=size)
    logits = random.normal(size=(size, classes))
    logits[np.arange(size), labels] += skill
    return softmax(logits), labels


def calibrated(size, seed):
    """Labels drawn from the probabilities, so that these are the truth."""
    random = np.random.default_rng(seed)
    first = random.beta(0.3, 0.3, size)
    return np.stack([1 - first, first], axis=1), (random.random(size) < first).astype(int)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_points_are_those_of_scikit_learn(classes, dtype):
    probabilities, labels = answers(400, classes)
    probabilities = probabilities.astype(dtype)
    point = metrics.point(probabilities, labels)
    answer = probabilities.argmax(axis=1)
    wide = scores_of(probabilities)
    scores = wide[:, 1] if classes == 2 else wide
    assert point["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, answer))
    assert point["log_loss"] == pytest.approx(sklearn.metrics.log_loss(labels, wide), rel=1e-5)
    assert point["f1"] == pytest.approx(sklearn.metrics.f1_score(labels, answer, average="macro"))
    assert point["roc_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores, multi_class="ovr"), rel=1e-5)
    expected = sklearn.metrics.confusion_matrix(labels, answer, labels=range(classes))
    assert (metrics.confusion_matrix(probabilities, labels) == expected).all()


def scores_of(probabilities):
    wide = probabilities.astype(np.float64)
    return wide / wide.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_certain_and_wrong_answer_costs_what_it_costs_in_scikit_learn(dtype):
    probabilities = np.array([[1, 0], [1, 0], [0, 1]], dtype=dtype)
    labels = [0, 1, 1]
    expected = sklearn.metrics.log_loss(labels, probabilities)
    assert metrics.point(probabilities, labels)["log_loss"] == pytest.approx(expected, rel=1e-5)


def test_ties_in_the_scores_count_half_in_the_auc():
    scores = np.array([0.5, 0.5, 0.5, 0.9, 0.1, 0.9])
    labels = np.array([0, 1, 1, 1, 0, 0])
    probabilities = np.stack([1 - scores, scores], axis=1)
    expected = sklearn.metrics.roc_auc_score(labels, scores)
    assert metrics.point(probabilities, labels)["roc_auc"] == pytest.approx(expected)


def test_a_missing_class_leaves_the_auc_undefined_and_nothing_else():
    probabilities, _ = answers(20)
    intervals = metrics.with_intervals(probabilities, np.zeros(20, dtype=int), resamples=50)
    assert np.isnan([intervals["roc_auc"].value, intervals["roc_auc"].low, intervals["roc_auc"].high]).all()
    defined = [interval for name, interval in intervals.items() if name != "roc_auc"]
    assert all(np.isfinite([interval.low, interval.value, interval.high]).all() for interval in defined)


def test_with_three_classes_a_missing_one_is_left_out_of_the_auc():
    probabilities, labels = answers(200, 3)
    kept = labels != 2
    area = metrics.point(probabilities[kept], labels[kept])["roc_auc"]
    truth = labels[kept]
    parts = [sklearn.metrics.roc_auc_score(truth == label, probabilities[kept][:, label]) for label in (0, 1)]
    assert area == pytest.approx(np.mean(parts))


def test_a_rare_class_skips_resamples_without_a_warning():
    probabilities, labels = answers(30)
    labels[:] = 0
    labels[0] = 1
    interval = metrics.with_intervals(probabilities, labels, resamples=200)["roc_auc"]
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_calibration_error_is_the_textbook_one_with_bins_of_equal_mass():
    probabilities, labels = answers(150)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    groups = np.array_split(np.argsort(confidence), 15)
    expected = sum(len(g) / 150 * abs(confidence[g].mean() - right[g].mean()) for g in groups)
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(expected)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_calibration_error_of_certain_and_right_answers_is_nought(labels):
    assert metrics.expected_calibration_error(np.eye(4)[labels], labels) == 0


@given(st.integers(1, 80), st.integers(0, 2**16))
@settings(max_examples=40)
def test_the_order_of_photos_never_matters(size, seed):
    random = np.random.default_rng(seed)
    top = random.choice([0.6, 0.8, 0.9, 1.0], size)  # many ties
    labels = random.integers(2, size=size)
    probabilities = np.stack([top, 1 - top], axis=1)
    order = random.permutation(size)
    first, other = metrics.point(probabilities, labels), metrics.point(probabilities[order], labels[order])
    assert first == pytest.approx(other, nan_ok=True)
    assert 0 <= first["expected_calibration_error"] <= 1


def test_photos_of_one_confidence_are_one_group_to_the_calibration_error():
    labels = np.array([0] * 7 + [1] * 3)
    probabilities = np.tile([0.9, 0.1], (10, 1))
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(0.2)


@pytest.mark.parametrize("equal_width", [False, True])
def test_reliability_bins_hold_every_photo_once(equal_width):
    probabilities, labels = answers(203, 3)
    bins = metrics.reliability_bins(probabilities, labels, 10, equal_width=equal_width)
    right = probabilities.argmax(axis=1) == labels
    assert bins["count"].sum() == 203
    assert (bins["accuracy"] * bins["count"]).sum() == pytest.approx(right.sum())
    assert (bins["confidence"] * bins["count"]).sum() == pytest.approx(probabilities.max(axis=1).sum())
    assert bins["confidence"].is_monotonic_increasing
    if not equal_width:
        assert set(bins["count"]) == {20, 21}


def test_reliability_bins_add_up_to_the_calibration_error():
    probabilities, labels = answers(300)
    bins = metrics.reliability_bins(probabilities, labels)
    error = ((bins["confidence"] - bins["accuracy"]).abs() * bins["count"]).sum() / 300
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(error)


@pytest.mark.parametrize("size", [1, 2, 14, 16, 100])
def test_few_photos_leave_no_empty_bin(size):
    probabilities, labels = answers(size)
    assert (metrics.reliability_bins(probabilities, labels)["count"] > 0).all()


@given(st.integers(5, 200), st.integers(2, 4), st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_an_interval_holds_its_point(size, classes, seed):
    probabilities, labels = answers(size, classes, seed=seed)
    for name, interval in metrics.with_intervals(probabilities, labels, resamples=300, seed=seed).items():
        assert interval.low - 1e-9 <= interval.value <= interval.high + 1e-9 or np.isnan(interval.value), name


def test_intervals_are_the_same_for_the_same_seed_and_report_the_points():
    probabilities, labels = answers(200)
    first = metrics.with_intervals(probabilities, labels, resamples=200, seed=3)
    assert first == metrics.with_intervals(probabilities, labels, resamples=200, seed=3)
    assert first != metrics.with_intervals(probabilities, labels, resamples=200, seed=4)
    assert tuple(first) == metrics.METRICS
    assert {name: each.value for name, each in first.items()} == pytest.approx(metrics.point(probabilities, labels))


def test_resamples_weigh_photos_as_repeating_them_would():
    probabilities, labels = answers(60, 3)
    counts = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=5).astype(float)
    weighted = metrics.weighted_metrics(probabilities, labels, counts)
    for row, times in enumerate(counts.astype(int)):
        repeated = metrics.point(probabilities.repeat(times, axis=0), labels.repeat(times))
        assert {name: values[row] for name, values in weighted.items()} == pytest.approx(repeated)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    truth = metrics.point(*answers(200_000, seed=99))
    hits = dict.fromkeys(metrics.METRICS, 0)
    runs = 150
    for seed in range(runs):
        for name, interval in metrics.with_intervals(*answers(250, seed=seed), resamples=200, seed=seed).items():
            hits[name] += interval.low <= truth[name] <= interval.high
    for name in ("accuracy", "log_loss", "roc_auc", "f1"):
        assert 0.88 <= hits[name] / runs <= 0.99, (name, hits)
    # A finite sample shows more error than there is, so this one promises a little less.
    assert hits["expected_calibration_error"] / runs >= 0.8, hits


def test_intervals_narrow_with_the_root_of_the_photos():
    few, many = (metrics.with_intervals(*answers(size))["log_loss"] for size in (300, 4800))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4, rel=0.35)


def test_a_flawless_model_is_still_uncertain():
    interval = metrics.with_intervals(np.eye(2)[[0, 1] * 50], [0, 1] * 50)["accuracy"]
    assert interval.value == interval.high == 1
    assert interval.low == pytest.approx(0.963, abs=0.001)


def test_twelve_hundred_photos_take_less_than_three_seconds():
    probabilities, labels = answers(1200)
    start = time.process_time()
    metrics.with_intervals(probabilities, labels)
    assert time.process_time() - start < 3


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_solves_the_score_equation(numbers):
    successes, trials = numbers
    interval = metrics.wilson(successes, trials)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    for bound in (interval.low, interval.high):
        if 0 < bound < 1:
            distance = abs(interval.value - bound) / np.sqrt(bound * (1 - bound) / trials)
            assert distance == pytest.approx(1.96, abs=0.01) or bound == pytest.approx(interval.value)


def test_one_calibrated_model_in_twenty_exceeds_the_calibrated_quantile():
    runs = 400
    exceeded = 0
    for seed in range(runs):
        probabilities, labels = calibrated(150, seed)
        quantile = metrics.calibrated_ece_quantile(probabilities, draws=200, seed=seed)
        exceeded += metrics.expected_calibration_error(probabilities, labels) > quantile
    assert 0.025 <= exceeded / runs <= 0.08


def test_an_overconfident_model_exceeds_the_calibrated_quantile():
    probabilities, labels = answers(500, skill=1)
    sharpened = softmax(np.log(probabilities) * 4)
    assert metrics.expected_calibration_error(sharpened, labels) > metrics.calibrated_ece_quantile(sharpened)


@pytest.mark.parametrize(
    ("probabilities", "labels", "says"),
    [
        (np.zeros((0, 2)), [], "shape"),
        ([0.5, 0.5], [0], "shape"),
        ([[1.0], [1.0]], [0, 0], "shape"),
        ([[2.0, -1.0]], [0], "logits"),
        ([[np.nan, 0.5]], [0], "sum to 1"),
        ([[0.5, 0.1]], [0], "sum to 1"),
        ([[0.5, 0.5]], [0, 1], "one a photo"),
        ([[0.5, 0.5]], [2], "from 0 to 1"),
        ([[0.5, 0.5]], [-1], "from 0 to 1"),
        ([[0.5, 0.5]], [0.0], "integers"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_words(probabilities, labels, says):
    with pytest.raises(metrics.EvaluationError, match=says):
        metrics.point(probabilities, labels)
