"""A model measured: calibrated and given its thresholds on validation photos, judged on test photos."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catsdogs_lib.evaluation import calibration, metrics, selective, slices
from catsdogs_lib.evaluation.metrics import Interval
from catsdogs_lib.inference.bundle import Metric, RiskBound, SelectiveMetrics, Slice, Thresholds
from catsdogs_lib.training import trainer as training
from catsdogs_lib.training.checkpoint import TrainedModel

SPLITS = ("val", "test")
"""The splits that a model is measured on."""


@dataclass(frozen=True)
class Evaluation:
    """One model, measured.

    Attributes
    ----------
    name
        Of the model.
    trained
        The model.
    temperature, thresholds, certificate
        Chosen on validation photos; see `evaluation.risk`.
    rows
        For ``val`` and ``test``: the manifest's rows.
    labels, probabilities, features, unfamiliarity
        For each of them: int64 (N,), calibrated float64 (N, C), float32 (N, F) and float32 (N,).
    metrics
        For each of them: every metric with its interval.
    calibrated_ece
        What the ECE of a perfectly calibrated model with these test confidences stays below in 95 of 100 cases.
    """

    name: str
    trained: TrainedModel
    temperature: float
    thresholds: Thresholds
    certificate: RiskBound
    rows: dict[str, pd.DataFrame]
    labels: dict[str, NDArray[np.int64]]
    probabilities: dict[str, NDArray[np.float64]]
    features: dict[str, NDArray[np.float32]]
    unfamiliarity: dict[str, NDArray[np.float32]]
    metrics: dict[str, dict[str, Interval]]
    calibrated_ece: float

    def doubt(self) -> SelectiveMetrics:
        """How doubt works out on the test photos."""
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

    def weakest(self, count: int = 5) -> list[Slice]:
        """The slices of test photos with the lowest accuracy."""
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

    def summary(self) -> dict[str, Any]:
        """Plain values for a JSON file; figures that are not defined are null."""
        return {
            "temperature": self.temperature,
            "thresholds": self.thresholds.model_dump(),
            "certificate": self.certificate.model_dump(),
            "doubt": self.doubt().model_dump(),
            "slices": [part.model_dump() for part in self.weakest()],
            "calibrated_ece": self.calibrated_ece,
            "epochs": len(self.trained.record.history) - 1
            if self.trained.record.history[0].epoch == 0
            else len(self.trained.record.history),
            "best_epoch": self.trained.record.best_epoch,
            **{
                split: {
                    name: {part: _plain(number) for part, number in asdict(interval).items()}
                    for name, interval in values.items()
                }
                for split, values in self.metrics.items()
            },
        }

    def predictions(self) -> pd.DataFrame:
        """A row a photo: its path, split and label, the probability of each class, its unfamiliarity."""
        parts = []
        for split in SPLITS:
            part = self.rows[split][["path", "split", "label"]].reset_index(drop=True)
            for index, label in enumerate(self.trained.record.classes):
                part[f"p_{label}"] = self.probabilities[split][:, index].round(6)
            part["unfamiliarity"] = self.unfamiliarity[split].round(6)
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    def defined(self, split: str) -> dict[str, float]:
        """The figures of a split that are numbers."""
        return {name: one.value for name, one in self.metrics[split].items() if not math.isnan(one.value)}


def assess(
    name: str,
    trained: TrainedModel,
    rows: dict[str, pd.DataFrame],
    logits: Mapping[str, NDArray[np.float32]],
    unfamiliarity: dict[str, NDArray[np.float32]],
    features: dict[str, NDArray[np.float32]],
) -> Evaluation:
    """Calibrate on validation photos, choose thresholds there, measure on both splits.

    Parameters
    ----------
    name, trained
        The model.
    rows, logits, unfamiliarity, features
        For each split of `SPLITS`; float32 (N, C), (N,) and (N, F). Features may be left out.
    """
    labels = {split: training.label_indices(rows[split], trained.record.classes) for split in SPLITS}
    temperature = calibration.fit_temperature(logits["val"], labels["val"])
    probabilities = {split: calibration.softmax(logits[split], temperature) for split in SPLITS}
    thresholds, certificate = selective.choose_thresholds(probabilities["val"], labels["val"], unfamiliarity["val"])
    return Evaluation(
        name=name,
        trained=trained,
        temperature=temperature,
        thresholds=thresholds,
        certificate=certificate,
        rows=rows,
        labels=labels,
        probabilities=probabilities,
        features=features,
        unfamiliarity=unfamiliarity,
        metrics={split: metrics.with_intervals(probabilities[split], labels[split]) for split in SPLITS},
        calibrated_ece=metrics.calibrated_ece_quantile(probabilities["test"]),
    )


def _plain(number: float) -> float | None:
    return None if math.isnan(number) else number
