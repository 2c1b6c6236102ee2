import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from catsdogs_lib.evaluation import metrics
from catsdogs_lib.evaluation.calibration import TEMPERATURES, choose_threshold, fit_temperature, softmax


def drawn(size, classes=2, seed=0, spread=3.0):
    """Logits and labels of a calibrated model: labels are drawn from the softmax."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(size, classes)) * spread
    cumulative = softmax(logits).cumsum(axis=1)
    return logits, np.minimum((cumulative < random.random((size, 1))).sum(axis=1), classes - 1)


@given(st.integers(0, 2**16), st.floats(*TEMPERATURES), st.integers(2, 5))
def test_a_temperature_never_changes_an_answer(seed, temperature, classes):
    logits = np.random.default_rng(seed).normal(size=(20, classes)) * 5
    assert (softmax(logits, temperature).argmax(axis=1) == logits.argmax(axis=1)).all()


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=6), st.floats(0.05, 20))
def test_softmax_is_that_of_scipy(row, temperature):
    found = softmax([row], temperature)
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, scipy.special.softmax(np.array([row]) / temperature, axis=1), atol=1e-9)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_the_temperature_that_spoiled_the_logits_is_found(factor, classes):
    logits, labels = drawn(4000, classes)
    assert fit_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.15)


def test_a_fitted_temperature_mends_an_overconfident_model():
    logits, labels = drawn(3000)
    before, after = softmax(logits * 3), softmax(logits * 3, fit_temperature(logits * 3, labels))
    assert metrics.point(after, labels)["log_loss"] < metrics.point(before, labels)["log_loss"]
    error = metrics.expected_calibration_error(after, labels)
    assert error < metrics.expected_calibration_error(before, labels) / 2
    assert error < metrics.calibrated_ece_quantile(after, 0.999)


@pytest.mark.parametrize(("size", "margin"), [(1, 0.1), (10, 1.0), (50, 3.0), (50, 20.0)])
def test_a_flawless_validation_set_does_not_drive_the_temperature_to_its_bound(size, margin):
    labels = np.arange(size) % 2
    found = fit_temperature(np.eye(2)[labels] * margin, labels)
    assert 0.15 < found <= 1.05


def test_answers_that_are_all_wrong_stay_within_the_bounds():
    labels = np.zeros(500, dtype=int)
    found = fit_temperature(np.tile([0.0, 9.0], (500, 1)), labels)
    assert 5 < found <= TEMPERATURES[1]


def test_the_prior_weighs_next_to_nothing_against_many_photos():
    logits, labels = drawn(5000)

    def nll(temperature):
        return metrics.point(softmax(logits * 2, temperature), labels)["log_loss"]

    fitted = fit_temperature(logits * 2, labels)
    assert nll(fitted) <= min(nll(t) for t in np.linspace(1.5, 2.5, 41)) + 1e-4


@pytest.mark.parametrize("logits", [[[np.nan, 0.0]], [[np.inf, 0.0]], np.zeros((0, 2)), [0.0, 1.0]])
def test_logits_that_cannot_be_used_are_refused(logits):
    with pytest.raises(metrics.EvaluationError):
        fit_temperature(logits, [0])


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_a_temperature_must_be_above_nought(temperature):
    with pytest.raises(metrics.EvaluationError, match="above 0"):
        softmax([[0.0, 1.0]], temperature)


def of_confidence(*tops):
    return np.array([[1 - top, top] for top in tops])


def test_the_threshold_is_the_smallest_that_keeps_the_promise():
    probabilities = of_confidence(0.95, 0.9, 0.8, 0.7, 0.6)
    assert choose_threshold(probabilities, [1, 1, 1, 0, 0], 0.995) == pytest.approx(0.8)
    assert choose_threshold(probabilities, [1, 1, 1, 0, 0], 0.75) == pytest.approx(0.7)
    assert choose_threshold(probabilities, [1, 1, 1, 1, 1], 0.995) == pytest.approx(0.6)
    # One wrong answer near the top, made up for further down.
    assert choose_threshold(probabilities, [1, 0, 1, 1, 1], 0.8) == pytest.approx(0.6)


def test_answers_of_one_confidence_stand_or_fall_together():
    assert choose_threshold(of_confidence(0.9, 0.8, 0.8), [1, 1, 0], 0.9) == pytest.approx(0.9)


def test_an_unreachable_target_gives_the_best_there_is():
    assert choose_threshold(of_confidence(0.95, 0.9, 0.8, 0.7), [0, 1, 1, 0], 0.995) == pytest.approx(0.8)
    assert choose_threshold(of_confidence(0.9, 0.8), [0, 0], 0.995) == pytest.approx(0.8)


@given(st.integers(1, 100), st.integers(2, 4), st.integers(0, 2**16), st.floats(0.5, 1))
@settings(max_examples=60)
def test_a_threshold_keeps_its_promise_or_nothing_can(size, classes, seed, target):
    logits, labels = drawn(size, classes, seed)
    probabilities = softmax(logits)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    threshold = choose_threshold(probabilities, labels, target)
    reached = {top: right[confidence >= top].mean() for top in confidence}
    assert 1 / classes <= threshold <= 1
    if max(reached.values()) >= target:
        assert threshold == min(top for top, accuracy in reached.items() if accuracy >= target)
    else:
        assert reached[threshold] == max(reached.values())


def test_a_target_beyond_one_is_refused():
    with pytest.raises(metrics.EvaluationError, match="target"):
        choose_threshold(of_confidence(0.9), [1], 99.5)
