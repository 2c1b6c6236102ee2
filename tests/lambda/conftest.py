"""The handler as Lambda runs it: the locked requirements and nothing else, the real runtime client, the emulator."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def emulation() -> ModuleType:
    """The module `emulator.py`."""
    return _module(Path(__file__).with_name("emulator.py"))


@pytest.fixture(scope="session")
def hostile() -> ModuleType:
    """The module `mutations.py`."""
    return _module(Path(__file__).parents[1] / "mutations.py")


@pytest.fixture(scope="session")
def served(tmp_path_factory, wheel) -> Path:
    """A folder as /var/task is on Lambda, made anew: what the lock names, the project's wheel, the handler."""
    folder = tmp_path_factory.mktemp("served")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    subprocess.run([*pip, "--require-hashes", "-r", ROOT / "lambda" / "requirements.txt"], check=True)
    subprocess.run([*pip, wheel], check=True)
    shutil.copy(wheel.parents[1] / "source" / "lambda" / "handler.py", folder)
    return folder


@pytest.fixture(scope="session")
def runtime(tmp_path_factory, emulation, served) -> Callable[..., AbstractContextManager[Any]]:
    """Start the handler under an emulator of its own: ``runtime(bundle)`` is a context manager."""
    folder = tmp_path_factory.mktemp("runtime")
    # An interpreter without any package: what the handler needs must be in its own folder.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "python"], check=True)
    emulation.copy_runtime(folder / "var")
    binary = emulation.find_binary()

    def start(bundle: Path, name: str = "emulator") -> AbstractContextManager[Any]:
        environment = {"PYTHONPATH": str(folder / "var"), "CATSDOGS_BUNDLE": str(bundle)}
        log = tmp_path_factory.mktemp(name) / "log.txt"
        return emulation.RuntimeEmulator(binary, folder / "python" / "bin" / "python", served, log, environment)

    return start


@pytest.fixture(scope="session")
def emulator(runtime) -> Any:
    """The handler with the reference bundle under the emulator, one process for the whole session."""
    with runtime(ROOT / "models" / "reference") as running:
        yield running
