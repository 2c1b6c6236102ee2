"""Drift since validation: each signal with a test and an effect size, and one false-alarm rate for all signals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, fisher_exact, ks_2samp

from catsdogs_lib.evaluation.slices import holm
from catsdogs_lib.monitoring.records import RecordsError

MAX_FALSE_ALARM_RATE = 0.01
"""Probability, at most, that an unchanged window raises any alarm."""
MIN_SHIFT = 0.1
"""Smallest distance between two distributions (Kolmogorov-Smirnov D) that raises an alarm."""
MIN_SHARE_CHANGE = 0.03
"""Smallest change of a share that raises an alarm."""
INTERIM_COUNTS = (50, 100, 150, 200, 300, 400, 500)
"""Records after which a stream is tested; each test gets an equal part of the false-alarm rate."""
MIN_RECORDS = 10
"""Windows with fewer records are refused."""


@dataclass(frozen=True)
class SignalDrift:
    """One signal in a window of records, compared with the reference.

    Attributes
    ----------
    signal
        Name of the signal.
    reference, window
        Its median or share, before and now.
    effect
        For a number, Kolmogorov-Smirnov D (0..1); for a category, the largest change of a share (0..1).
    p_value
        Corrected for the number of signals (Holm).
    alarm
        The change is significant and large enough to matter.
    """

    signal: str
    reference: float
    window: float
    effect: float
    p_value: float
    alarm: bool


Values: TypeAlias = "pd.Series[Any]"


class _Comparison(NamedTuple):
    reference: float
    window: float
    effect: float
    p_value: float
    min_effect: float


def _compare_numbers(reference: Values, window: Values) -> _Comparison:
    before, now = (values.dropna().to_numpy(dtype=np.float64) for values in (reference, window))
    if not len(before) or not len(now):
        return _Comparison(float("nan"), float("nan"), 0.0, 1.0, MIN_SHIFT)
    test = ks_2samp(before, now)
    medians = float(np.median(before)), float(np.median(now))
    return _Comparison(*medians, float(test.statistic), float(test.pvalue), MIN_SHIFT)


def _compare_shares(reference: Values, window: Values) -> _Comparison:
    before, now = int(reference.sum()), int(window.sum())
    p_value = float(fisher_exact([[before, len(reference) - before], [now, len(window) - now]]).pvalue)
    share_before, share_now = before / len(reference), now / len(window)
    return _Comparison(share_before, share_now, abs(share_now - share_before), p_value, MIN_SHARE_CHANGE)


def _compare_categories(reference: Values, window: Values) -> _Comparison:
    names = sorted({*reference, *window})
    counts = np.array([[int((values == name).sum()) for name in names] for values in (reference, window)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    change = np.abs(shares[1] - shares[0])
    largest = int(change.argmax())
    p_value = float(chi2_contingency(counts).pvalue) if len(names) > 1 else 1.0
    before, now = shares[:, largest].tolist()
    return _Comparison(before, now, float(change[largest]), p_value, 3 * MIN_SHARE_CHANGE)


def _signals(table: pd.DataFrame, limit: float) -> dict[str, tuple[Callable[[Values, Values], _Comparison], Values]]:
    """Name every signal, how it is compared, and its values; `limit` is the bundle's threshold of unfamiliarity."""
    return {
        "brightness": (_compare_numbers, table["photo_brightness"]),
        "sharpness": (_compare_numbers, table["photo_sharpness"]),
        "size": (_compare_numbers, (table["photo_width"] * table["photo_height"]) ** 0.5),
        "shape": (_compare_numbers, table["photo_width"] / table["photo_height"]),
        "format": (_compare_categories, table["photo_format"]),
        "confidence": (_compare_numbers, table["confidence"]),
        "unfamiliarity": (_compare_numbers, table["unfamiliarity"]),
        "share of unfamiliar photos": (_compare_shares, table["unfamiliarity"] > limit),
        "share of unsure answers": (_compare_shares, ~table["confident"]),
        "classes": (_compare_categories, table["prediction"]),
    }


def compare(
    reference: pd.DataFrame, window: pd.DataFrame, limit: float, false_alarm_rate: float = MAX_FALSE_ALARM_RATE
) -> list[SignalDrift]:
    """Compare a window with the reference, signal by signal.

    Kolmogorov-Smirnov for numbers, Fisher's exact test for shares, chi-square for categories; Holm's correction over
    the signals. Significance alone raises no alarm: with enough records, the smallest change is significant.

    Parameters
    ----------
    reference, window
        From `records.read`.
    limit
        The bundle's threshold of unfamiliarity.
    false_alarm_rate
        Probability, at most, that an unchanged window raises any alarm.

    Raises
    ------
    RecordsError
        The window or the reference holds fewer than `MIN_RECORDS` records.
    """
    if min(len(reference), len(window)) < MIN_RECORDS:
        raise RecordsError(
            f"{len(window)} records against {len(reference)} of the reference; "
            f"at least {MIN_RECORDS} each say something"
        )
    before, now = _signals(reference, limit), _signals(window, limit)
    comparisons = {name: compare_values(values, now[name][1]) for name, (compare_values, values) in before.items()}
    corrected: NDArray[np.float64] = holm([comparison.p_value for comparison in comparisons.values()])
    return [
        SignalDrift(
            signal=name,
            reference=comparison.reference,
            window=comparison.window,
            effect=comparison.effect,
            p_value=p_value,
            alarm=p_value < false_alarm_rate and comparison.effect >= comparison.min_effect,
        )
        for (name, comparison), p_value in zip(comparisons.items(), corrected.tolist(), strict=True)
    ]


def watch(
    reference: pd.DataFrame, stream: pd.DataFrame, limit: float, counts: Sequence[int] = INTERIM_COUNTS
) -> tuple[int | None, list[SignalDrift]]:
    """Test a growing stream of records repeatedly, and stop at the first alarm.

    Returns
    -------
    count, drifts
        Number of records at the first alarm, None if there was none; and the last comparison. The probability of a
        false alarm is at most `MAX_FALSE_ALARM_RATE` over all tests together (Bonferroni).
    """
    drifts: list[SignalDrift] = []
    for count in [count for count in counts if count <= len(stream)] or [len(stream)]:
        drifts = compare(reference, stream.iloc[:count], limit, MAX_FALSE_ALARM_RATE / len(counts))
        if any(drift.alarm for drift in drifts):
            return count, drifts
    return None, drifts
