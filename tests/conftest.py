"""What tests share: one drawn sample, trained, evaluated and packaged once a session."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("CATSDOGS_SHARED", ROOT / "../shared")).resolve()


def pytest_collection_modifyitems(items):
    """Fast tests first, then slow ones, then notebooks."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: (item.path.suffix == ".ipynb", item.get_closest_marker("slow") is not None))


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch):
    """No test sees the settings of whoever runs it."""
    for name in ("CATSDOGS_BUNDLE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def plain_environment() -> dict[str, str]:
    """The environment without coverage, for processes that may not write: it would leave broken files."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def shared(name: str) -> Path:
    """A folder of real photos and files that does not come with the project; skips where it is missing."""
    folder = SHARED / "data" / name
    if not folder.is_dir():
        pytest.skip(f"needs real photos in {folder.parent.name}/{name}, which do not come with the project")
    return folder


@pytest.fixture(scope="session")
def edge() -> Path:
    return shared("edge")


@pytest.fixture(scope="session")
def pets() -> Path:
    return shared("pets")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The project as a wheel, made of what git tracks; the tracked files lie in ``source`` beside its folder."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: building in the tree would leave files there.
    subprocess.run(["git", "-C", ROOT, "checkout-index", "-a", f"--prefix={folder / 'source'}/"], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", folder / "wheel", folder / "source"], check=True)
    return next((folder / "wheel").glob("*.whl"))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A migrated MLflow store: every migration takes seconds, so it is made once and copied."""
    from catsdogs_lib import tracking

    folder = tmp_path_factory.mktemp("store")
    tracking.connect(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlartifacts")
    return folder / "mlflow.db"


def copy_store(empty_store: Path, folder: Path) -> None:
    """Copy the empty store into a workspace, with artifacts in a place of its own."""
    shutil.copy(empty_store, folder / "mlflow.db")
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store, store:
        store.execute(
            "UPDATE experiments SET artifact_location = ? WHERE name = 'catsdogs'", [(folder / "mlartifacts").as_uri()]
        )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, empty_store):
    """A workspace with the drawn sample, fetched and prepared."""
    from catsdogs_lib import steps
    from catsdogs_lib.workspace import Workspace

    ws = Workspace(tmp_path_factory.mktemp("prepared"))
    copy_store(empty_store, ws.root)
    steps.fetch(ws, "sample", per_class=60)
    steps.prepare(ws)
    return ws


@pytest.fixture(scope="session")
def trained(prepared):
    """The same workspace with a candidate and a baseline, trained and measured."""
    from catsdogs_lib import steps
    from catsdogs_lib.training.settings import TrainingSettings, baseline_settings

    steps.train(prepared, TrainingSettings(), baseline_settings(1))
    steps.evaluate(prepared)
    return prepared


@pytest.fixture(scope="session")
def packaged(trained):
    """The same workspace with its bundle, registered as the first champion."""
    from catsdogs_lib import steps

    return trained, steps.package(trained)


@pytest.fixture(scope="session")
def bundle_folder(packaged) -> Path:
    return packaged[0].bundle
