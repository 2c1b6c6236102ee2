"""What one would read on a Monday: is there anything to do, and what are the figures."""

from dataclasses import dataclass

import pandas as pd

from catsdogs_lib.evaluation.metrics import Interval, bootstrap_mean, wilson
from catsdogs_lib.monitoring.drift import Finding, compare

MAX_ACCURACY_DROP = 0.02
"""By so much accuracy, measured or estimated, may fall below that of validation."""


@dataclass(frozen=True)
class Report:
    """A window of records, read.

    Attributes
    ----------
    records
        How many answers.
    findings
        Every signal, compared with validation.
    estimated
        Accuracy without labels: the mean calibrated confidence (0..1), with its interval. It is as good as the
        calibration, and too high where photos have changed.
    measured
        Accuracy of the answers whose truth came in, None where none did. Who sends feedback chooses what about.
    told
        Answers whose truth came in.
    expected
        Accuracy on the reference.
    unsure
        Share of answers that were not confident.
    latency
        Seconds: 0.5, 0.95 and 0.99 quantile; empty where the records do not say.
    versions
        Answers by model version.
    compared
        Model versions that made the reference.
    volume
        Answers by day.
    """

    records: int
    findings: tuple[Finding, ...]
    estimated: Interval
    measured: Interval | None
    told: int
    expected: float
    unsure: float
    latency: tuple[float, ...]
    versions: dict[str, int]
    compared: tuple[str, ...]
    volume: "pd.Series[int]"

    @property
    def alarms(self) -> tuple[str, ...]:
        """What to look at, a sentence each; empty where there is nothing to do."""
        said = [
            f"{one.signal}: {one.reference:.3g} on validation, {one.window:.3g} now (effect {one.effect:.2f}, "
            f"p = {one.p_value:.1g})"
            for one in self.findings
            if one.alarm
        ]
        if self.measured is not None and self.measured.high < self.expected - MAX_ACCURACY_DROP:
            said.append(
                f"accuracy: {self.measured.value:.1%} of {self.told} answers with feedback are right, "
                f"{self.expected:.1%} on validation"
            )
        elif self.estimated.high < self.expected - MAX_ACCURACY_DROP:
            said.append(f"accuracy: {self.estimated.value:.1%} by confidence alone, {self.expected:.1%} on validation")
        if len(self.versions) > 1:
            said.append(f"{len(self.versions)} model versions answered: {', '.join(sorted(self.versions))}")
        if other := sorted(set(self.versions) - set(self.compared)):
            said.append(f"the reference is of {', '.join(self.compared)}, not of {', '.join(other)}, which answered")
        return tuple(said)

    @property
    def sentence(self) -> str:
        """The verdict for people."""
        if not self.alarms:
            return f"Nothing to do: {self.records} answers look like validation."
        many = "one thing" if len(self.alarms) == 1 else f"{len(self.alarms)} things"
        return f"Look at {many} in {self.records} answers: {'; '.join(self.alarms)}."

    def metrics(self) -> dict[str, float]:
        """Numbers for MLflow."""
        found = {
            "records": float(self.records),
            "alarms": float(len(self.alarms)),
            "unsure": self.unsure,
            "accuracy_estimated": self.estimated.value,
        }
        if self.measured is not None:
            found |= {"accuracy_measured": self.measured.value, "feedback": float(self.told)}
        found |= {f"effect_{one.signal.replace(' ', '_')}": one.effect for one in self.findings}
        return found


def report(reference: pd.DataFrame, window: pd.DataFrame, limit: float) -> Report:
    """Read a window of records against the reference.

    Parameters
    ----------
    reference, window
        From `records.read`; the reference with its truths.
    limit
        The bundle's threshold of unfamiliarity.

    Raises
    ------
    RecordsError
        Too few records.
    """
    findings = tuple(compare(reference, window, limit))
    told = window[window["truth"] != ""]
    known = reference[reference["truth"] != ""]
    right = int((told["prediction"] == told["truth"]).sum())
    latency = window["latency_seconds"].dropna()
    return Report(
        records=len(window),
        findings=findings,
        estimated=bootstrap_mean(window["confidence"].to_numpy()),
        measured=wilson(right, len(told)) if len(told) else None,
        told=len(told),
        expected=float((known["prediction"] == known["truth"]).mean()) if len(known) else float("nan"),
        unsure=float((~window["confident"]).mean()),
        latency=tuple(float(latency.quantile(q)) for q in (0.5, 0.95, 0.99)) if len(latency) else (),
        versions={str(name): int(count) for name, count in window["model_version"].value_counts().items()},
        compared=tuple(sorted(reference["model_version"].astype(str).unique())),
        volume=window["timestamp"].dt.strftime("%Y-%m-%d").value_counts().sort_index(),
    )
