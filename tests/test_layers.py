"""Imports point down, and serving stands without the learning tower."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEARNING_ONLY = ("torch", "torchvision", "timm", "mlflow", "pandas", "matplotlib", "scipy", "sklearn", "papermill")


def test_the_floors_hold():
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


SERVING = (
    "catsdogs_lib.inference.classifier",
    "catsdogs_lib.cli",
    "catsdogs_lib.serving.app",
    "catsdogs_lib.client.smoke",
)


@pytest.mark.parametrize("module", SERVING)
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


@pytest.mark.parametrize(
    ("name", "floors"),
    [
        ("handler.py", ("catsdogs_lib.inference.bundle", "catsdogs_lib.serving")),
        (
            "batch.py",
            (
                "catsdogs_lib.inference.classifier",
                "catsdogs_lib.batch.s3_events",
                "catsdogs_lib.serving",
                "catsdogs_lib.common.s3",
            ),
        ),
    ],
)
def test_the_handlers_stand_on_serving_alone(name, floors):
    """`lambda` is a keyword: import-linter cannot name what lies in it."""
    tree = ast.parse((ROOT / "lambda" / name).read_text())
    named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    named |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {name for name in named if name.startswith("catsdogs_lib")}
    assert ours
    assert all(name.startswith(floors) for name in ours)
    assert {name.partition(".")[0] for name in named - ours} <= sys.stdlib_module_names | {
        "aws_lambda_powertools",
        "mangum",
    }
