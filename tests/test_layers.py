"""Imports point down, and serving works without the learning half."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEARNING_ONLY = ("torch", "torchvision", "timm", "mlflow", "pandas", "matplotlib", "scipy", "sklearn", "papermill")


def test_the_layers_hold():
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


HANDLERS = {
    "handler.py": {
        "catsdogs_lib.inference.bundle",
        "catsdogs_lib.serving",
        "aws_lambda_powertools",
        "mangum",
    },
    "batch.py": {
        "catsdogs_lib.inference.classifier",
        "catsdogs_lib.batch.s3_events",
        "catsdogs_lib.serving",
        "catsdogs_lib.common.s3",
        "aws_lambda_powertools",
    },
    "hook.py": {
        "catsdogs_lib.inference.bundle",
        "catsdogs_lib.client",
        "catsdogs_lib.serving.settings",
        "aws_lambda_powertools",
        "botocore",
    },
}
"""Packages and modules that each Lambda handler may import, beside the standard library."""


def test_every_handler_is_named():
    assert {path.name for path in (ROOT / "lambda").glob("*.py")} == set(HANDLERS)


@pytest.mark.parametrize(("name", "allowed"), HANDLERS.items())
def test_handlers_import_nothing_else(name, allowed):
    """`lambda` is a keyword: import-linter cannot name what lies in it."""
    tree = ast.parse((ROOT / "lambda" / name).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    others = {module for module in imported if module.partition(".")[0] not in sys.stdlib_module_names}
    used = {entry for entry in allowed for module in others if f"{module}.".startswith(f"{entry}.")}
    assert [module for module in others if not any(f"{module}.".startswith(f"{entry}.") for entry in allowed)] == []
    assert used == allowed
