"""What has changed since validation: each signal with a test, an effect size, and a false-alarm rate over all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, fisher_exact, ks_2samp

from catsdogs_lib.evaluation.slices import holm
from catsdogs_lib.monitoring.records import RecordsError

FALSE_ALARMS = 0.01
"""Chance, at most, that any signal of a window that has not changed raises an alarm."""
MIN_SHIFT = 0.1
"""Smallest distance of two distributions (Kolmogorov-Smirnov D) that is worth an alarm."""
MIN_SHARE_CHANGE = 0.03
"""Smallest change of a share that is worth an alarm."""
LOOKS = (50, 100, 150, 200, 300, 400, 500)
"""Records after which a stream is looked at; the false-alarm rate is spread evenly over the looks."""
MIN_RECORDS = 10
"""A window of fewer records says nothing."""


@dataclass(frozen=True)
class Finding:
    """One signal, compared.

    Attributes
    ----------
    signal
        Name.
    reference, window
        What it was and is: a median, or a share.
    effect
        Kolmogorov-Smirnov D (0..1) of a number, largest change of a share (0..1) of a kind.
    p_value
        Corrected for the number of signals (Holm).
    alarm
        The change is beyond chance and large enough to matter.
    """

    signal: str
    reference: float
    window: float
    effect: float
    p_value: float
    alarm: bool


class _Raw(NamedTuple):
    reference: float
    window: float
    effect: float
    p_value: float
    least: float


def _number(column: Callable[[pd.DataFrame], "pd.Series[float]"]) -> Callable[[pd.DataFrame, pd.DataFrame], _Raw]:
    def compare(reference: pd.DataFrame, window: pd.DataFrame) -> _Raw:
        before, now = (column(table).dropna().to_numpy(dtype=np.float64) for table in (reference, window))
        if not len(before) or not len(now):
            return _Raw(float("nan"), float("nan"), 0.0, 1.0, MIN_SHIFT)
        found = ks_2samp(before, now)
        return _Raw(
            float(np.median(before)), float(np.median(now)), float(found.statistic), float(found.pvalue), MIN_SHIFT
        )

    return compare


def _share(mask: Callable[[pd.DataFrame], "pd.Series[bool]"]) -> Callable[[pd.DataFrame, pd.DataFrame], _Raw]:
    def compare(reference: pd.DataFrame, window: pd.DataFrame) -> _Raw:
        (before, of_before), (now, of_now) = ((int(mask(table).sum()), len(table)) for table in (reference, window))
        p_value = float(fisher_exact([[before, of_before - before], [now, of_now - now]]).pvalue)
        first, second = before / of_before, now / of_now
        return _Raw(first, second, abs(second - first), p_value, MIN_SHARE_CHANGE)

    return compare


def _kinds(name: str) -> Callable[[pd.DataFrame, pd.DataFrame], _Raw]:
    def compare(reference: pd.DataFrame, window: pd.DataFrame) -> _Raw:
        names = sorted({*reference[name], *window[name]})
        counts = np.array([[int((table[name] == one).sum()) for one in names] for table in (reference, window)])
        shares = counts / counts.sum(axis=1, keepdims=True)
        change = np.abs(shares[1] - shares[0])
        largest = int(change.argmax())
        p_value = float(chi2_contingency(counts).pvalue) if len(names) > 1 else 1.0
        return _Raw(
            float(shares[0, largest]), float(shares[1, largest]), float(change.max()), p_value, 3 * MIN_SHARE_CHANGE
        )

    return compare


def signals(limit: float) -> dict[str, Callable[[pd.DataFrame, pd.DataFrame], _Raw]]:
    """All that is compared, by name; `limit` is the bundle's threshold of unfamiliarity."""
    return {
        "brightness": _number(lambda table: table["photo_brightness"]),
        "sharpness": _number(lambda table: table["photo_sharpness"]),
        "size": _number(lambda table: (table["photo_width"] * table["photo_height"]) ** 0.5),
        "shape": _number(lambda table: table["photo_width"] / table["photo_height"]),
        "format": _kinds("photo_format"),
        "confidence": _number(lambda table: table["confidence"]),
        "unfamiliarity": _number(lambda table: table["unfamiliarity"]),
        "share of unfamiliar photos": _share(lambda table: table["unfamiliarity"] > limit),
        "share of unsure answers": _share(lambda table: ~table["confident"]),
        "classes": _kinds("prediction"),
    }


def compare(
    reference: pd.DataFrame, window: pd.DataFrame, limit: float, false_alarms: float = FALSE_ALARMS
) -> list[Finding]:
    """Compare a window with the reference, signal by signal.

    Kolmogorov-Smirnov for numbers, Fisher's exact test for shares, chi-square for kinds; Holm's correction over the
    signals. Significance alone is no alarm: of many records the smallest change is significant.

    Parameters
    ----------
    reference, window
        From `records.read`.
    limit
        The bundle's threshold of unfamiliarity.
    false_alarms
        Chance, at most, that an unchanged window raises any alarm.

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
    found = {name: signal(reference, window) for name, signal in signals(limit).items()}
    corrected: NDArray[np.float64] = holm([raw.p_value for raw in found.values()])
    return [
        Finding(
            name, raw.reference, raw.window, raw.effect, float(p), bool(p < false_alarms and raw.effect >= raw.least)
        )
        for (name, raw), p in zip(found.items(), corrected, strict=True)
    ]


def watch(
    reference: pd.DataFrame, stream: pd.DataFrame, limit: float, looks: Sequence[int] = LOOKS
) -> tuple[int | None, list[Finding]]:
    """Look at a stream again and again, and stop at the first alarm.

    Returns
    -------
    records, findings
        After how many records the first alarm came, None where none did; and what the last look found. The chance of
        an alarm without a change is at most `FALSE_ALARMS` over all looks together (Bonferroni).
    """
    findings: list[Finding] = []
    for count in [look for look in looks if look <= len(stream)] or [len(stream)]:
        findings = compare(reference, stream.iloc[:count], limit, FALSE_ALARMS / len(looks))
        if any(one.alarm for one in findings):
            return count, findings
    return None, findings
