"""Prediction needs the base dependencies alone: no torch, no pandas, nothing of the learning tower."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from catsdogs_lib.data.synthetic.render import draw

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def base(tmp_path_factory, wheel):
    """A fresh virtual environment with the locked base dependencies and the project."""
    folder = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, "--require-hashes", "-r", ROOT / "requirements" / "base.lock"], check=True)
    subprocess.run([*pip, "--no-deps", wheel], check=True)
    return folder


@pytest.mark.slow
def test_predict_works_without_the_training_tools(base, bundle_folder, tmp_path):
    draw("cat", 91).save(tmp_path / "cat.jpg")
    command = [base / "bin" / "catsdogs", "predict", tmp_path, "--bundle", bundle_folder, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prediction"] == "cat"


@pytest.mark.slow
def test_the_environment_holds_no_training_tool(base):
    names = {path.name.lower() for path in next((base / "lib").iterdir()).joinpath("site-packages").iterdir()}
    assert names.isdisjoint({"torch", "torchvision", "timm", "mlflow", "pandas", "matplotlib", "scipy", "sklearn"})


@pytest.mark.slow
def test_a_training_command_says_what_to_install(base, tmp_path):
    done = subprocess.run([base / "bin" / "catsdogs", "pipeline"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'catsdogs[train]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
