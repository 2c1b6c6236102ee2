import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from catsdogs_lib.evaluation import metrics
from catsdogs_lib.evaluation.calibration import TEMPERATURES, fit_temperature, softmax


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
    probabilities = softmax([row], temperature)
    assert probabilities.sum() == pytest.approx(1)
    np.testing.assert_allclose(probabilities, scipy.special.softmax(np.array([row]) / temperature, axis=1), atol=1e-9)


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
    fitted = fit_temperature(np.eye(2)[labels] * margin, labels)
    assert 0.15 < fitted <= 1.05


def test_answers_that_are_all_wrong_stay_within_the_bounds():
    labels = np.zeros(500, dtype=int)
    fitted = fit_temperature(np.tile([0.0, 9.0], (500, 1)), labels)
    assert 5 < fitted <= TEMPERATURES[1]


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
