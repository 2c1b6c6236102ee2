import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catsdogs_lib.evaluation import metrics
from catsdogs_lib.evaluation.selective import (
    TARGET_RISKS,
    choose_thresholds,
    confident_from,
    familiar_limit,
    risk_bound_sentence,
    upper_bound,
)


def calibrated(count, seed=0, sharpness=4.0):
    """Probabilities of two classes, and labels drawn from them: a perfectly calibrated model."""
    rng = np.random.default_rng(seed)
    first = 1 / (1 + np.exp(-sharpness * rng.normal(size=count)))
    return np.stack([first, 1 - first], axis=1), (rng.random(count) > first).astype(int), rng.random(count)


def test_few_photos_are_called_unfamiliar_though_the_limit_was_chosen_on_others():
    rng = np.random.default_rng(0)
    exceeded = [float((rng.normal(size=2000) > familiar_limit(rng.normal(size=400))[0]).mean()) for _ in range(200)]
    assert np.mean(exceeded) == pytest.approx(0.01, abs=0.0015)


def test_so_few_photos_promise_less():
    limit, chance = familiar_limit(np.arange(19.0))
    assert (limit, chance) == (18.0, 0.05)


@given(st.lists(st.floats(0.5, 1), min_size=1, max_size=60))
@settings(max_examples=80)
def test_confident_answers_are_expected_to_keep_the_level_and_no_more_would(confidences):
    confidence = np.array(confidences)
    level, threshold = confident_from(confidence)
    kept = confidence >= threshold
    within = [(1 - confidence[confidence >= top]).mean() <= level for top in sorted(set(confidences), reverse=True)]
    assert level in TARGET_RISKS
    if any(within):
        assert (1 - confidence[kept]).mean() <= level + 1e-12
        looser = confidence[confidence < threshold]
        if looser.size:
            assert (1 - confidence[confidence >= looser.max()]).mean() > level - 1e-12
    else:
        assert threshold == confidence.max()


def test_a_model_that_is_rarely_sure_aims_lower_so_that_half_of_its_answers_count():
    assert confident_from(np.full(100, 0.999))[0] == TARGET_RISKS[0]
    assert confident_from(np.full(100, 0.96))[0] == 0.05


def test_the_bound_is_the_exact_one():
    assert upper_bound(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))  # about 3 in n
    assert upper_bound(5, 5) == 1.0
    assert upper_bound(2, 200) == pytest.approx(0.0311, abs=2e-4)


def test_the_certificate_holds_as_often_as_it_says():
    kept = 0
    for seed in range(200):
        probabilities, labels, distance = calibrated(400, seed)
        thresholds, proof = choose_thresholds(probabilities, labels, distance)
        later, truth, far = calibrated(20_000, 10_000 + seed)
        sure = (later.max(axis=1) >= thresholds.confident) & (far <= thresholds.unfamiliar)
        kept += (later.argmax(axis=1) != truth)[sure].mean() <= proof.level
    assert kept >= 0.93 * 200


def test_a_photo_that_is_unfamiliar_is_not_counted_as_confident():
    probabilities, labels, distance = np.tile([0.001, 0.999], (300, 1)), np.ones(300, dtype=int), np.zeros(300)
    distance[:2] = 5.0
    thresholds, proof = choose_thresholds(probabilities, labels, distance)
    assert thresholds.unfamiliar == 0.0
    assert (proof.photos, proof.confident, proof.wrong) == (300, 298, 0)
    assert proof.floor < proof.level < 0.011


def test_the_sentence_says_what_is_proven_and_what_could_be():
    probabilities, labels, distance = calibrated(400)
    sentence = risk_bound_sentence(choose_thresholds(probabilities, labels, distance)[1])
    assert "with 95% trust" in sentence
    assert "of 400 validation photos" in sentence


@pytest.mark.parametrize("distance", [np.zeros(3), np.full(400, np.nan)])
def test_unfamiliarity_that_does_not_fit_is_refused(distance):
    probabilities, labels, _ = calibrated(400)
    with pytest.raises(metrics.EvaluationError, match="unfamiliarity"):
        choose_thresholds(probabilities, labels, distance)
