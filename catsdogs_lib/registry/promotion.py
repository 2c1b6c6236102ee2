"""The champion of the registry and who would take its place: what the gate says of both."""

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from catsdogs_lib.common.class_names import canonical_classes
from catsdogs_lib.data import manifest
from catsdogs_lib.evaluation import gate
from catsdogs_lib.evaluation.robustness import examine_behaviour
from catsdogs_lib.inference.bundle import Bundle, BundleVersionError
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.registry import tracking
from catsdogs_lib.training.trainer import label_indices, photo_paths

TIMED_PHOTOS = 15
"""Photos that both are timed on, in turn."""


def judge(raw: Path, table: pd.DataFrame, candidate: Bundle, champion: ModelVersion | None) -> gate.Verdict:
    """Hold a candidate against the champion, both as bundles, on validation photos that neither has learned from.

    Parameters
    ----------
    raw
        Folder that the manifest's paths start from.
    table
        The manifest.
    candidate
        Made from this manifest's train photos.
    champion
        Of the registry; None where there is none.

    Raises
    ------
    EvaluationError
        Too few such photos are left.
    """
    val = manifest.used(table, "val")
    if champion is None:
        return _alone(raw, val, candidate)
    with tempfile.TemporaryDirectory() as folder:
        try:
            rival = tracking.champion_bundle(champion, Path(folder))
        except BundleVersionError as error:
            return _alone(raw, val, candidate, f"the champion cannot be compared ({error})")
        if canonical_classes(rival.description.classes) != canonical_classes(candidate.description.classes):
            return _alone(raw, val, candidate, "the champion has other classes")
        learned = tracking.learned_photos(champion, Path(folder))
        val = val[~val["sha256"].isin(learned)]
        paths = photo_paths(val, raw)
        labels = label_indices(val, candidate.description.classes)
        if len(paths) < gate.MIN_PHOTOS:
            return gate.Verdict(
                False,
                (),
                f"Not promoted: only {len(paths)} validation photos are left that the champion has not learned from, "
                f"{gate.MIN_PHOTOS} are needed; add photos, or keep the split that it was trained with.",
            )
        slower = latency_ratio(candidate, rival, paths[:TIMED_PHOTOS])
        ours, theirs = (
            examine_behaviour(candidate, paths, "the candidate"),
            examine_behaviour(rival, paths, "the champion"),
        )
        return gate.judge(ours, labels, val, theirs, slower)


def _alone(raw: Path, val: pd.DataFrame, candidate: Bundle, why: str = "there is no champion yet") -> gate.Verdict:
    labels = label_indices(val, candidate.description.classes)
    return gate.judge(examine_behaviour(candidate, photo_paths(val, raw), "the candidate"), labels, val, why_none=why)


def latency_ratio(candidate: Bundle, champion: Bundle, photos: list[Path]) -> float:
    """Median time of an answer by the candidate, by that of the champion; both in turn, on one thread."""
    both = [Classifier(candidate, threads=1), Classifier(champion, threads=1)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for photo in photos:
        for classifier, times in zip(both, seconds, strict=True):
            began = time.perf_counter()
            classifier.predict(photo)
            times.append(time.perf_counter() - began)
    return float(np.median(seconds[0]) / np.median(seconds[1]))


def settle(version: ModelVersion, verdict: gate.Verdict, force: str = "") -> bool:
    """Keep a verdict with the version that it is about, and make it champion if the gate or `force` says so.

    Parameters
    ----------
    version
        The candidate's.
    verdict
        The gate's.
    force
        Why it becomes champion against the verdict; kept with the version.

    Returns
    -------
    bool
        Whether it is champion now.
    """
    checks = {
        one.name: {"candidate": one.candidate, "champion": one.champion, "passed": one.passed} for one in verdict.checks
    }
    tracking.log_verdict(version, verdict.sentence, checks, force)
    if verdict.promoted or force:
        tracking.promote(version)
    return verdict.promoted or bool(force)
