import dataclasses

import numpy as np
import pandas as pd
import pytest

from catsdogs_lib.evaluation.gate import judge
from catsdogs_lib.evaluation.metrics import EvaluationError
from catsdogs_lib.evaluation.robustness import INVARIANCES, BehaviourReport
from catsdogs_lib.evaluation.slices import COLUMNS

COUNT = 300
LABELS = np.arange(COUNT) % 2


def rows():
    rng = np.random.default_rng(0)
    values = {name: rng.random(COUNT) + 1 for name in COLUMNS}
    return pd.DataFrame({**values, "orientation": 1, "grayscale": False})


def answers(margin, seed, sharpness=1.0):
    """Probabilities of two classes; a larger margin tells them apart better."""
    rng = np.random.default_rng(seed)
    scores = sharpness * (margin * (2 * LABELS - 1) + rng.normal(size=COUNT))
    second = 1 / (1 + np.exp(-2 * scores))
    return np.stack([1 - second, second], axis=1).astype(np.float32)


def examined(margin=3.0, seed=0, sharpness=3.0, **changes):
    plain = answers(margin, seed, sharpness)
    return dataclasses.replace(
        BehaviourReport(
            probabilities=plain,
            unfamiliarity=np.zeros(COUNT, np.float32),
            chosen=np.arange(COUNT),
            changed=dict.fromkeys(INVARIANCES, plain),
            blurred=np.full((COUNT, 2), 0.5, np.float32),
            flagged=np.ones(50, bool),
            megabytes=8.0,
        ),
        **changes,
    )


def test_an_equal_candidate_is_promoted_with_every_check_passed():
    verdict = judge(examined(), LABELS, rows(), examined(), 1.0)
    assert verdict.promoted
    assert all(check.passed for check in verdict.checks)
    assert "not worse than the champion" in verdict.sentence


def test_twins_are_hardly_ever_refused():
    refused = [not judge(examined(seed=n), LABELS, rows(), examined(seed=100 + n), 1.0).promoted for n in range(20)]
    assert sum(refused) <= 3


def test_a_worse_candidate_is_refused_and_the_better_one_takes_its_place():
    verdict = judge(examined(margin=0.8), LABELS, rows(), examined(), 1.0)
    assert not verdict.promoted
    assert "accuracy" in verdict.sentence
    assert judge(examined(), LABELS, rows(), examined(margin=0.8), 1.0).promoted


def test_an_equally_accurate_but_badly_calibrated_candidate_is_refused_for_that_alone():
    verdict = judge(examined(margin=1.5, sharpness=12.0), LABELS, rows(), examined(margin=1.5, sharpness=1.5), 1.0)
    assert [check.name for check in verdict.checks if not check.passed] == ["cost of bad calibration"]
    assert "cost of bad calibration" in verdict.sentence


def test_a_candidate_that_fails_on_dark_photos_is_refused_for_that_alone():
    dark = {**examined().changed, "dark, x 0.3": answers(0.2, 1)}
    verdict = judge(examined(changed=dark), LABELS, rows(), examined(), 1.0)
    assert [check.name for check in verdict.checks if not check.passed] == ["photos: dark, x 0.3"]


def test_what_looks_worse_and_may_be_much_worse_is_refused_though_chance_could_do_it():
    weaker, champion = (examined(margin=m, sharpness=m, seed=n) for m, n in ((1.85, 50), (2.0, 0)))
    verdict = judge(weaker, LABELS, rows(), champion, 1.0)
    assert "log loss at its best temperature" in verdict.sentence
    assert "may be worse by" in verdict.sentence
    assert "accuracy 0" not in verdict.sentence
    # Who looks better needs no such proof.
    back = judge(champion, LABELS, rows(), weaker, 1.0)
    assert "log loss" not in back.sentence


@pytest.mark.parametrize(
    ("changes", "slower", "reason"),
    [
        ({"flagged": np.arange(50) < 25}, 1.0, "strangers are called unfamiliar"),
        ({"megabytes": 30.0}, 1.0, "times as large"),
        ({}, 3.0, "times the champion's time"),
        ({"blurred": answers(9.0, 0, 9.0)}, 1.0, "does not fall"),
    ],
)
def test_each_price_and_each_function_has_its_own_reason(changes, slower, reason):
    verdict = judge(examined(**changes), LABELS, rows(), examined(), slower)
    assert not verdict.promoted
    assert reason in verdict.sentence


def test_a_first_model_has_only_to_beat_guessing():
    assert judge(examined(), LABELS, rows()).promoted
    guess = judge(examined(margin=0.0), LABELS, rows())
    assert not guess.promoted
    assert "better than guessing" in guess.sentence


def test_answers_that_do_not_fit_are_refused():
    with pytest.raises(EvaluationError, match="shape"):
        judge(examined(), LABELS, rows(), examined(probabilities=np.full((3, 2), 0.5, np.float32)))


NAN = float("nan")


def with_nan(table):
    table = np.array(table)
    table[5, 1] = NAN
    return table


@pytest.mark.parametrize(
    "changes",
    [
        {"probabilities": with_nan(answers(3.0, 0, 3.0))},
        {"blurred": with_nan(np.full((COUNT, 2), 0.5, np.float32))},
        {"changed": {**examined().changed, "mirrored": with_nan(answers(3.0, 0, 3.0))}},
    ],
)
def test_answers_that_are_not_finite_are_refused(changes):
    for candidate, champion in ((examined(**changes), examined()), (examined(), examined(**changes))):
        with pytest.raises(EvaluationError, match="probabilities must lie in 0..1"):
            judge(candidate, LABELS, rows(), champion, 1.0)
    with pytest.raises(EvaluationError, match="probabilities must lie in 0..1"):
        judge(examined(**changes), LABELS, rows())


def test_a_price_that_is_no_number_is_not_paid():
    assert not judge(examined(), LABELS, rows(), examined(), NAN).promoted
    assert not judge(examined(megabytes=NAN), LABELS, rows(), examined(), 1.0).promoted
    assert not judge(examined(), LABELS, rows(), examined(megabytes=NAN), 1.0).promoted
