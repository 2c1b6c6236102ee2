import numpy as np
import pytest

from catsdogs_lib.evaluation.gate import judge
from catsdogs_lib.evaluation.metrics import EvaluationError

LABELS = [0, 1, 1]
GOOD = np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8]])
BAD = np.array([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1]])


def test_without_a_champion_the_candidate_is_promoted():
    verdict = judge(GOOD, LABELS, None)
    assert verdict.promoted
    assert verdict.champion_log_loss is None
    assert verdict.sentence == "Promoted: log loss 0.1446 on 3 photos, and there is no champion yet."


def test_the_better_model_wins_either_way():
    up, down = judge(GOOD, LABELS, BAD), judge(BAD, LABELS, GOOD)
    assert up.promoted
    assert not down.promoted
    assert up.candidate_log_loss == down.champion_log_loss == pytest.approx(0.14462, abs=1e-4)
    assert "better than the champion's 1.1081 on the same 3 photos" in up.sentence
    assert down.sentence.startswith("Not promoted: log loss 1.1081 is worse than the champion's 0.1446")


def test_an_equal_candidate_is_promoted():
    assert judge(GOOD, LABELS, GOOD).promoted


def test_the_dtype_of_the_probabilities_does_not_decide():
    certain = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])  # wrong with certainty: clipping sets the price
    verdict = judge(certain, LABELS, certain.astype(np.float32))
    assert verdict.candidate_log_loss == verdict.champion_log_loss


@pytest.mark.parametrize("champion", [GOOD[:2], np.full((3, 3), 1 / 3)])
def test_both_must_answer_the_same_question(champion):
    with pytest.raises(EvaluationError, match="same photos"):
        judge(GOOD, LABELS, champion)


def test_a_champion_whose_numbers_are_broken_is_refused():
    with pytest.raises(EvaluationError):
        judge(GOOD, LABELS, np.full((3, 2), np.nan))
