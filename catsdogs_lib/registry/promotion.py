"""Promotion: comparing a candidate with the champion, and making it the new one."""

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
from catsdogs_lib.inference.classifier import Classifier, InferenceError
from catsdogs_lib.registry import models
from catsdogs_lib.training.trainer import label_indices, photo_paths

TIMED_PHOTOS = 15
"""Photos for comparing latency."""


def judge(raw: Path, table: pd.DataFrame, candidate: Bundle, champion: ModelVersion | None) -> gate.Verdict:
    """Judge a candidate against the champion, both as bundles, on validation photos that neither was trained on.

    Parameters
    ----------
    raw
        Folder that the manifest's paths start from.
    table
        The manifest.
    candidate
        Made from this manifest's train photos.
    champion
        Its version in the registry; None if there is none.

    Raises
    ------
    EvaluationError
        Too few such photos are left.
    InferenceError
        The candidate gives no usable answer to a photo.
    """
    val = manifest.used(table, "val")
    if champion is None:
        return _alone(raw, val, candidate)
    with tempfile.TemporaryDirectory() as folder:
        try:
            rival = models.champion_bundle(champion, Path(folder))
        except BundleVersionError as error:
            return _alone(raw, val, candidate, f"the champion cannot be compared ({error})")
        if canonical_classes(rival.description.classes) != canonical_classes(candidate.description.classes):
            return _alone(raw, val, candidate, "the champion has other classes")
        val = val[~val["sha256"].isin(models.training_photos(champion, Path(folder)))]
        paths = photo_paths(val, raw)
        labels = label_indices(val, candidate.description.classes)
        if len(paths) < gate.MIN_PHOTOS:
            return gate.Verdict(
                False,
                (),
                f"Not promoted: only {len(paths)} validation photos are left that the champion has not learned from, "
                f"{gate.MIN_PHOTOS} are needed; add photos, or keep the split that it was trained with.",
            )
        report = examine_behaviour(candidate, paths, "the candidate")
        try:
            champion_report = examine_behaviour(rival, paths, "the champion")
        except InferenceError as error:
            return gate.judge(report, labels, val, why_none=f"the champion cannot be compared ({error})")
        ratio = latency_ratio(candidate, rival, paths[:TIMED_PHOTOS])
        return gate.judge(report, labels, val, champion_report, ratio)


def _alone(raw: Path, val: pd.DataFrame, candidate: Bundle, why: str = "there is no champion yet") -> gate.Verdict:
    labels = label_indices(val, candidate.description.classes)
    return gate.judge(examine_behaviour(candidate, photo_paths(val, raw), "the candidate"), labels, val, why_none=why)


def latency_ratio(candidate: Bundle, champion: Bundle, photos: list[Path]) -> float:
    """Divide the median latency of the candidate by that of the champion; photo by photo, on one thread."""
    classifiers = [Classifier(candidate, threads=1), Classifier(champion, threads=1)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for photo in photos:
        for classifier, times in zip(classifiers, seconds, strict=True):
            begin = time.perf_counter()
            classifier.predict(photo)
            times.append(time.perf_counter() - begin)
    return float(np.median(seconds[0]) / np.median(seconds[1]))


def promote_if_passed(version: ModelVersion, verdict: gate.Verdict, force: str = "") -> bool:
    """Store the gate's verdict with a version, and make it champion if it passed or is forced.

    Parameters
    ----------
    version
        Of the candidate.
    verdict
        The gate's.
    force
        Reason to promote it against the verdict; stored with the version.

    Returns
    -------
    bool
        Whether it is champion now.
    """
    checks = {
        check.name: {"candidate": check.candidate, "champion": check.champion, "passed": check.passed}
        for check in verdict.checks
    }
    models.log_verdict(version, verdict.sentence, checks, force)
    if verdict.promoted or force:
        models.promote(version)
    return verdict.promoted or bool(force)
