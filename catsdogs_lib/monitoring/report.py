"""The monitoring report: what needs attention in a window of records, and its metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from catsdogs_lib.evaluation.metrics import Interval, bootstrap_mean, wilson
from catsdogs_lib.monitoring.drift import SignalDrift

MAX_ACCURACY_DROP = 0.02
"""Accuracy, measured or estimated, may fall this much below that of validation."""


@dataclass(frozen=True)
class MonitoringReport:
    """Drift, accuracy, latency and volume of a window of records.

    Attributes
    ----------
    records
        Number of answers.
    signals
        Every signal, compared with validation.
    estimated
        Accuracy without labels: the mean calibrated confidence (0..1), with its interval. It depends on the
        calibration, and is too high for photos that have drifted.
    measured
        Accuracy of the answers with feedback, None if there are none. Users choose what they send feedback about.
    feedback
        Number of answers with feedback.
    expected
        Accuracy on the reference.
    unsure
        Share of answers that were not confident.
    latency
        Seconds: 0.5, 0.95 and 0.99 quantile; empty if the records have none.
    versions
        Number of answers by model version.
    reference_versions
        Model versions that made the reference.
    volume
        Number of answers by day.
    """

    records: int
    signals: tuple[SignalDrift, ...]
    estimated: Interval
    measured: Interval | None
    feedback: int
    expected: float
    unsure: float
    latency: tuple[float, ...]
    versions: dict[str, int]
    reference_versions: tuple[str, ...]
    volume: "pd.Series[int]"

    @property
    def alarms(self) -> tuple[str, ...]:
        """List what needs attention, a sentence each."""
        alarms = [
            f"{drift.signal}: {drift.reference:.3g} on validation, {drift.window:.3g} now (effect {drift.effect:.2f}, "
            f"p = {drift.p_value:.1g})"
            for drift in self.signals
            if drift.alarm
        ]
        if self.measured is not None and self.measured.high < self.expected - MAX_ACCURACY_DROP:
            alarms.append(
                f"accuracy: {self.measured.value:.1%} of {self.feedback} answers with feedback are right, "
                f"{self.expected:.1%} on validation"
            )
        elif self.estimated.high < self.expected - MAX_ACCURACY_DROP:
            alarms.append(
                f"accuracy: {self.estimated.value:.1%} by confidence alone, {self.expected:.1%} on validation"
            )
        if len(self.versions) > 1:
            alarms.append(f"{len(self.versions)} model versions answered: {', '.join(sorted(self.versions))}")
        if other := sorted(set(self.versions) - set(self.reference_versions)):
            alarms.append(
                f"the reference is of {', '.join(self.reference_versions)}, not of {', '.join(other)}, which answered"
            )
        return tuple(alarms)

    @property
    def sentence(self) -> str:
        """Sum up the report for people."""
        if not self.alarms:
            return f"Nothing to do: {self.records} answers look like validation."
        things = "one thing" if len(self.alarms) == 1 else f"{len(self.alarms)} things"
        return f"Look at {things} in {self.records} answers: {'; '.join(self.alarms)}."

    def metrics(self) -> dict[str, float]:
        """Give metrics for MLflow."""
        values = {
            "records": float(self.records),
            "alarms": float(len(self.alarms)),
            "unsure": self.unsure,
            "accuracy_estimated": self.estimated.value,
        }
        if self.measured is not None:
            values |= {"accuracy_measured": self.measured.value, "feedback": float(self.feedback)}
        return values | {f"effect_{drift.signal.replace(' ', '_')}": drift.effect for drift in self.signals}


def summarize(reference: pd.DataFrame, window: pd.DataFrame, signals: Sequence[SignalDrift]) -> MonitoringReport:
    """Sum up the drift of a window of records and how good its answers are.

    Parameters
    ----------
    reference, window
        From `records.read`; the reference with its truths.
    signals
        From `drift.compare` of the two.
    """
    labelled, labelled_reference = (table[table["truth"] != ""] for table in (window, reference))
    right = int((labelled["prediction"] == labelled["truth"]).sum())
    expected = (labelled_reference["prediction"] == labelled_reference["truth"]).mean()
    latency = window["latency_seconds"].dropna()
    return MonitoringReport(
        records=len(window),
        signals=tuple(signals),
        estimated=bootstrap_mean(window["confidence"].to_numpy()),
        measured=wilson(right, len(labelled)) if len(labelled) else None,
        feedback=len(labelled),
        expected=float(expected),
        unsure=float((~window["confident"]).mean()),
        latency=tuple(float(latency.quantile(q)) for q in (0.5, 0.95, 0.99)) if len(latency) else (),
        versions={str(name): int(count) for name, count in window["model_version"].value_counts().items()},
        reference_versions=tuple(sorted(reference["model_version"].astype(str).unique())),
        volume=window["timestamp"].dt.strftime("%Y-%m-%d").value_counts().sort_index(),
    )
