"""The whole graph through the command line, on other classes than cats and dogs, in a copy of the project."""

import json
import os
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

from catsdogs_lib.data.drawing import draw
from catsdogs_lib.data.sample import write_sample

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
KINDS = ("cat", "dog", "rabbit")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project without anything that was made in it, and a zip of three classes."""
    folder = tmp_path_factory.mktemp("project")
    subprocess.run(["git", "-C", ROOT, "checkout-index", "-a", f"--prefix={folder}/"], check=True)
    subprocess.run([BIN / "dvc", "init", "--no-scm", "-q", "-f"], cwd=folder, check=True)
    photos = folder / "pictures"
    write_sample(photos, per_class=60, seed=3, kinds=KINDS)
    with zipfile.ZipFile(folder / "pictures.zip", "w") as packed:
        for path in sorted(photos.rglob("*")):
            packed.write(path, path.relative_to(folder))
    return folder


def pipeline(project, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(project), "PATH": f"{BIN}:{os.environ['PATH']}"}
    command = [BIN / "catsdogs", "pipeline", "--data", "pictures.zip", "--set", "train.baseline_epochs=0", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def made(project):
    return pipeline(project)


@pytest.mark.slow
def test_three_classes_go_to_a_bundle_and_right_answers(project, made, tmp_path):
    for kind in KINDS:
        for number in range(10):
            draw(kind, 300 + number).save(tmp_path / f"{kind}-{number}.jpg")
    command = [BIN / "catsdogs", "predict", tmp_path, "--bundle", project / "models" / "bundle", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert set(answers[0]["probabilities"]) == {"cats", "dogs", "rabbits"}
    right = sum(Path(a["path"]).name.startswith(a["prediction"].removesuffix("s")) for a in answers)
    assert right >= 25, f"{right} of 30"


@pytest.mark.slow
def test_a_bundle_of_three_classes_serves_and_passes_smoke(project, made):
    bundle = project / "models" / "bundle"
    command = [BIN / "catsdogs", "serve", "--port", "0", "--bundle", bundle]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
        try:
            address = server.stderr.readline().split()[0]
            smoke = [BIN / "catsdogs", "smoke", address, "--bundle", bundle, "--wait", "30"]
            done = subprocess.run(smoke, capture_output=True, text=True)
            with urllib.request.urlopen(address) as response:
                information = json.load(response)
        finally:
            server.terminate()
    assert done.returncode == 0, done.stdout + done.stderr
    assert information["classes"] == ["cats", "dogs", "rabbits"]


@pytest.mark.slow
def test_the_graph_leaves_reports_with_an_index(project, made):
    names = {path.name for path in (project / "reports").iterdir()}
    for stem in ("01_explore", "02_prepare", "03_train", "04_evaluate", "05_package"):
        assert {f"{stem}.html", f"{stem}.ipynb"} <= names
    index = (project / "reports" / "index.html").read_text()
    assert "How good is it, and where does it fail?" in index
    assert "accuracy" in made.stdout


@pytest.mark.slow
def test_a_second_call_skips_every_stage(project, made):
    before = {p: p.stat().st_mtime_ns for p in (project / "reports").iterdir()}
    again = pipeline(project)
    assert again.stdout.count("didn't change, skipping") == 5
    assert {p: p.stat().st_mtime_ns for p in (project / "reports").iterdir()} == before


@pytest.mark.slow
def test_another_head_runs_training_again_but_not_the_preparation(project, made):
    again = pipeline(project, "--set", "train.head_c=0.05")
    assert again.stdout.count("didn't change, skipping") == 2
    assert "computing features" not in again.stderr + again.stdout


@pytest.mark.slow
def test_data_can_be_pushed_to_a_remote_and_pulled_elsewhere(project, made, tmp_path):
    def dvc(*arguments, cwd=project):
        subprocess.run([BIN / "dvc", *arguments], cwd=cwd, check=True, capture_output=True)

    dvc("remote", "add", "-f", "-d", "store", str(tmp_path / "store"))
    dvc("push", "-q")
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("dvc.yaml", "dvc.lock", "params.yaml"):
        (clone / name).write_bytes((project / name).read_bytes())
    dvc("init", "--no-scm", "-q", cwd=clone)
    dvc("remote", "add", "-d", "store", str(tmp_path / "store"), cwd=clone)
    dvc("pull", "-q", "data/manifest.csv", "models/bundle", cwd=clone)
    for name in ("data/manifest.csv", "models/bundle/model.json"):
        assert (clone / name).read_bytes() == (project / name).read_bytes()
