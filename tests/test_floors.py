"""Imports point down, and serving stands without the learning tower."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEARNING_ONLY = ("torch", "torchvision", "timm", "mlflow", "pandas", "matplotlib", "scipy", "sklearn", "papermill")


def test_the_floors_hold():
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["catsdogs_lib.classifier", "catsdogs_lib.cli"])
def test_serving_imports_nothing_that_only_learning_needs(module):
    code = f"import sys, {module}; print([name for name in {LEARNING_ONLY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_modules_stay_short():
    long = {
        path.name: lines
        for path in (ROOT / "catsdogs_lib").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 360
    }
    assert not long
