"""The evaluation of a model: calibrated on validation photos, measured on test photos."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catsdogs_lib.evaluation import calibration, metrics, selective, slices
from catsdogs_lib.evaluation.metrics import Interval
from catsdogs_lib.inference.description import Metric, RiskBound, SelectiveMetrics, Slice, Thresholds
from catsdogs_lib.training.checkpoint import TrainedModel
from catsdogs_lib.training.trainer import label_indices

EVALUATED_SPLITS = ("val", "test")
"""The splits that a model is evaluated on."""


@dataclass(frozen=True)
class Evaluation:
    """One model with its calibrated answers and their metrics.

    Attributes
    ----------
    name
        Name of the model.
    trained
        The model.
    rows, labels
        For ``val`` and ``test``: the manifest's rows, and int64 (N,).
    temperature, thresholds, risk_bound
        Chosen on validation photos; see `calibration.fit_temperature` and `selective.choose_thresholds`.
    probabilities, unfamiliarity, features
        For ``val`` and ``test``: calibrated float64 (N, C), float32 (N,) and float32 (N, F).
    metrics
        For ``val`` and ``test``: every metric with its interval.
    """

    name: str
    trained: TrainedModel
    rows: dict[str, pd.DataFrame]
    labels: dict[str, NDArray[np.int64]]
    temperature: float
    thresholds: Thresholds
    risk_bound: RiskBound
    probabilities: dict[str, NDArray[np.float64]]
    unfamiliarity: dict[str, NDArray[np.float32]]
    features: dict[str, NDArray[np.float32]]
    metrics: dict[str, dict[str, Interval]]

    @cached_property
    def calibrated_ece(self) -> float:
        """Compute the 95 % quantile of the ECE that a perfectly calibrated model with these confidences shows."""
        return metrics.calibrated_ece_quantile(self.probabilities["test"])

    def selective_metrics(self) -> SelectiveMetrics:
        """Measure on test photos how many answers count as confident, and how many of these are wrong."""
        table, truth = self.probabilities["test"], self.labels["test"]
        unfamiliar = self.unfamiliarity["test"] > self.thresholds.unfamiliar
        confident = ~unfamiliar & (table.max(axis=1) >= self.thresholds.confident)
        wrong = int((table.argmax(axis=1) != truth)[confident].sum())
        return SelectiveMetrics(
            unsure=1 - float(confident.mean()),
            unfamiliar=float(unfamiliar.mean()),
            confident_accuracy=1 - wrong / max(1, int(confident.sum())),
            confident=int(confident.sum()),
            confident_wrong=wrong,
        )

    def weakest_slices(self, count: int = 5) -> list[Slice]:
        """List the slices of test photos with the lowest accuracy."""
        table = slices.slice_table(self.rows["test"], self.probabilities["test"], self.labels["test"])
        return [
            Slice(
                name=f"{row['slice']} {row['value']}",
                photos=row["photos"],
                accuracy=Metric(value=row["accuracy"], low=row["accuracy_low"], high=row["accuracy_high"]),
                worse=row["worse"],
            )
            for row in table.sort_values("accuracy", kind="stable").head(count).to_dict("records")
        ]

    @property
    def epochs(self) -> int:
        """Count the passes over the training photos; a frozen head has none."""
        history = self.trained.record.history
        return len(history) - (history[0].epoch == 0)

    def summary(self) -> dict[str, Any]:
        """Give plain values for a JSON file; metrics that are not defined are null."""
        return {
            "temperature": self.temperature,
            "thresholds": self.thresholds.model_dump(),
            "certificate": self.risk_bound.model_dump(),
            "doubt": self.selective_metrics().model_dump(),
            "slices": [part.model_dump() for part in self.weakest_slices()],
            "calibrated_ece": self.calibrated_ece,
            "epochs": self.epochs,
            "best_epoch": self.trained.record.best_epoch,
            **{
                split: {
                    name: {bound: _nan_to_none(number) for bound, number in asdict(interval).items()}
                    for name, interval in intervals.items()
                }
                for split, intervals in self.metrics.items()
            },
        }

    def predictions(self) -> pd.DataFrame:
        """Tabulate every photo: path, split, label, the probability of each class, unfamiliarity."""
        columns = [f"p_{label}" for label in self.trained.record.classes]
        tables = [
            self.rows[split][["path", "split", "label"]]
            .reset_index(drop=True)
            .join(pd.DataFrame(self.probabilities[split].round(6), columns=columns))
            .assign(unfamiliarity=self.unfamiliarity[split].round(6))
            for split in EVALUATED_SPLITS
        ]
        return pd.concat(tables, ignore_index=True)

    def metric_values(self, split: str) -> dict[str, float]:
        """Give the metrics of a split without intervals, leaving out those that are not defined."""
        values = {name: interval.value for name, interval in self.metrics[split].items()}
        return {name: value for name, value in values.items() if not math.isnan(value)}


def assess(
    name: str,
    trained: TrainedModel,
    rows: dict[str, pd.DataFrame],
    logits: Mapping[str, NDArray[np.float32]],
    unfamiliarity: dict[str, NDArray[np.float32]],
    features: dict[str, NDArray[np.float32]],
) -> Evaluation:
    """Calibrate answers and choose thresholds on validation photos, and measure both splits.

    Parameters
    ----------
    name, trained
        The model.
    rows, logits, unfamiliarity, features
        For each split of `EVALUATED_SPLITS`: the manifest's rows, float32 (N, C), (N,) and (N, F). Features may be
        left out.
    """
    labels = {split: label_indices(rows[split], trained.record.classes) for split in EVALUATED_SPLITS}
    temperature = calibration.fit_temperature(logits["val"], labels["val"])
    probabilities = {split: calibration.softmax(logits[split], temperature) for split in EVALUATED_SPLITS}
    thresholds, risk_bound = selective.choose_thresholds(probabilities["val"], labels["val"], unfamiliarity["val"])
    intervals = {split: metrics.with_intervals(probabilities[split], labels[split]) for split in EVALUATED_SPLITS}
    return Evaluation(
        name,
        trained,
        rows,
        labels,
        temperature,
        thresholds,
        risk_bound,
        probabilities,
        unfamiliarity,
        features,
        intervals,
    )


def _nan_to_none(number: float) -> float | None:
    return None if math.isnan(number) else number
