"""Trials of training, judged on the validation photos of a project and kept in its MLflow.

    python benchmarks/studies/trials.py PROJECT --known
    python benchmarks/studies/trials.py PROJECT NAME train.layer_decay=0.85 --seeds 0 1 2

The first writes the tables of docs/trials.md to the experiment `trials`; the second measures another trial and adds it.
Test photos are not touched.
"""

import argparse
import re
from pathlib import Path

import mlflow
from rich.console import Console
from rich.table import Table

from catsdogs_lib.data import manifest
from catsdogs_lib.pipeline.workspace import Workspace
from catsdogs_lib.registry import tracking
from catsdogs_lib.training.settings import TrainingSettings
from catsdogs_lib.training.trainer import TrainingPaths, prepare_data, train

TABLES = Path(__file__).parents[2] / "docs" / "trials.md"
EXPERIMENT = "trials"


def known() -> list[dict[str, str]]:
    """The rows of docs/trials.md that have an accuracy and a log loss, with the heading above them."""
    rows, heading, columns = [], "", []
    for line in TABLES.read_text().splitlines():
        if line.startswith("#"):
            heading, columns = line.lstrip("# "), []
        elif line.startswith("|") and not set(line) <= set("|- "):
            cells = [cell.strip().strip("*") for cell in line.strip("|").split("|")]
            if not columns:
                columns = cells
            elif columns[:2] == ["trial", "settings"]:
                rows.append({**dict(zip(columns, cells, strict=True)), "judged on": heading})
    return rows


def log_known() -> None:
    """One run a row; a row that is there already is left as it is."""
    there = mlflow.search_runs(experiment_names=[EXPERIMENT], output_format="list")
    names = {(run.info.run_name, run.data.params.get("judged on")) for run in there}
    for row in known():
        if (row["trial"], row["judged on"]) in names:
            continue
        with mlflow.start_run(run_name=row["trial"]):
            settings = dict(part.split("=", 1) for part in row["settings"].split())
            mlflow.log_params({**settings, "judged on": row["judged on"], "verdict": row["verdict"]})
            mlflow.log_metrics({"val_accuracy": float(row["accuracy"]), "val_log_loss": float(row["log loss"])})
    print(f"{len(known())} trials are in the experiment '{EXPERIMENT}'")


def measure(ws: Workspace, name: str, changes: dict[str, str], seeds: list[int]) -> None:
    """Train once for each seed and log what validation says of the epoch that is kept."""
    table = manifest.read_manifest(ws.manifest)
    paths = TrainingPaths(ws.raw, ws.features, ws.checkpoints)
    shown = Table("trial", "seed", "accuracy", "log loss", "seconds", box=None, header_style="bold")
    for seed in seeds:
        settings = TrainingSettings.checked(**{**changes, "seed": seed})
        model = train(table, paths, settings)
        best = min(model.record.history, key=lambda epoch: epoch.val_loss)
        with mlflow.start_run(run_name=name):
            photos = len(manifest.used(table, "val"))
            mlflow.log_params({f"train.{key}": value for key, value in settings.model_dump().items()})
            mlflow.log_params({"judged on": f"one fixed fold of {photos} photos", "precision": model.record.precision})
            mlflow.log_metrics(
                {"val_accuracy": best.val_accuracy, "val_log_loss": best.val_loss, "seconds": model.record.seconds}
            )
        prepare_data(table, paths).forget_checkpoint(settings)
        shown.add_row(
            name, str(seed), f"{best.val_accuracy:.4f}", f"{best.val_loss:.4f}", f"{model.record.seconds:.0f}"
        )
    Console().print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("name", nargs="?")
    parser.add_argument("settings", nargs="*", metavar="train.NAME=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--known", action="store_true")
    given = parser.parse_args()
    wrong = [setting for setting in given.settings if not re.fullmatch(r"train\.\w+=.+", setting)]
    if wrong or given.known == bool(given.name):
        parser.error(f"write a setting as train.NAME=VALUE, not '{wrong[0]}'" if wrong else "say a name, or --known")
    ws = Workspace(given.project.resolve())
    tracking.connect(ws.tracking_uri, ws.artifacts)
    mlflow.set_experiment(EXPERIMENT)
    if given.known:
        log_known()
    else:
        changes = dict(setting.removeprefix("train.").split("=", 1) for setting in given.settings)
        measure(ws, given.name, changes, given.seeds)


if __name__ == "__main__":
    main()
