"""The walkthrough docs/own-classes.md, word for word, in a copy of the project; then the graph that it has run."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.pipeline import parameters

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
KINDS = ("cat", "dog", "rabbit")


def copy_project(folder):
    subprocess.run(["git", "-C", ROOT, "checkout-index", "-a", f"--prefix={folder}/"], check=True)
    subprocess.run([BIN / "dvc", "init", "--no-scm", "-q", "-f"], cwd=folder, check=True)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The `folder` in which the walkthrough ran, and its `output`; only the port is another, free one."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    environment = Path(sys.executable).parents[1]
    if not (environment / ".installed").exists():
        pytest.skip("needs the environment that make install makes")
    (folder / ".venv").symlink_to(environment)
    for name in ("requirements/dev.lock", "pyproject.toml"):  # older than the environment: nothing is installed anew
        os.utime(folder / name, (0, 0))
    blocks = re.findall(r"^```sh\n(.*?)^```$", (folder / "docs" / "own-classes.md").read_text(), re.M | re.S)
    assert len(blocks) == 6
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = "set -eo pipefail\n" + "".join(blocks).replace("8000", port)
    inherited = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=inherited, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return SimpleNamespace(folder=folder, output=done.stdout)


def run(folder, *command):
    environment = {**os.environ, "PYTHONPATH": str(folder), "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_walkthrough_ends_with_an_endpoint_that_names_other_classes(walked):
    answers = [json.loads(line) for line in (walked.folder / "answers.jsonl").read_text().splitlines()]
    named = [answer["prediction"] for answer in answers if "prediction" in answer]
    assert named.count("rabbits") > 0.8 * len(named) > 40
    assert '"classes":["cats","dogs","rabbits"]' in walked.output
    assert re.search(r'^predictions_by_class_total\{class_name="rabbits"\}', walked.output, re.M)
    lines = (walked.folder / "service.log").read_text().splitlines()
    assert all(json.loads(line)["level"] != "ERROR" for line in lines)


@pytest.mark.slow
def test_three_classes_go_to_a_bundle_and_right_answers(walked, tmp_path):
    for kind in KINDS:
        for number in range(10):
            draw(kind, 300 + number).save(tmp_path / f"{kind}-{number}.jpg")
    command = [BIN / "catsdogs", "predict", tmp_path, "--bundle", walked.folder / "models" / "bundle", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert set(answers[0]["probabilities"]) == {"cats", "dogs", "rabbits"}
    right = sum(Path(a["path"]).name.startswith(a["prediction"].removesuffix("s")) for a in answers)
    assert right >= 25, f"{right} of 30"


@pytest.mark.slow
def test_the_graph_leaves_reports_with_an_index(walked):
    reports = walked.folder / "reports"
    names = {path.name for path in reports.iterdir()}
    for stem in ("01_explore", "02_prepare", "03_train", "04_evaluate", "05_package"):
        assert {f"{stem}.html", f"{stem}.ipynb"} <= names
    assert (reports / "05_package.html").stat().st_size > 10_000
    assert "How good is it, and where does it fail?" in (reports / "index.html").read_text()
    assert "accuracy" in walked.output


@pytest.mark.slow
def test_a_second_call_skips_every_stage(walked):
    before = {p: p.stat().st_mtime_ns for p in (walked.folder / "reports").iterdir()}
    command = [BIN / "catsdogs", "pipeline", "--data", "my-photos", "--set", "train.baseline_epochs=0"]
    assert run(walked.folder, *command).count("didn't change, skipping") == 5
    assert {p: p.stat().st_mtime_ns for p in (walked.folder / "reports").iterdir()} == before


@pytest.mark.slow
def test_data_can_be_pushed_to_a_remote_and_pulled_elsewhere(walked, tmp_path):
    def dvc(*arguments, cwd=walked.folder):
        subprocess.run([BIN / "dvc", *arguments], cwd=cwd, check=True, capture_output=True)

    dvc("remote", "add", "-f", "-d", "store", str(tmp_path / "store"))
    dvc("push", "-q")
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("dvc.yaml", "dvc.lock", "params.yaml"):
        (clone / name).write_bytes((walked.folder / name).read_bytes())
    dvc("init", "--no-scm", "-q", cwd=clone)
    dvc("remote", "add", "-d", "store", str(tmp_path / "store"), cwd=clone)
    dvc("pull", "-q", "data/manifest.csv", "models/bundle", cwd=clone)
    for name in ("data/manifest.csv", "models/bundle/model.json"):
        assert (clone / name).read_bytes() == (walked.folder / name).read_bytes()


@pytest.mark.slow
def test_another_head_runs_training_again_but_not_the_preparation(walked):
    parameters = walked.folder / "params.yaml"
    before = parameters.read_text()
    parameters.write_text(before.replace("logistic_regression_c: 0.03", "logistic_regression_c: 0.05"))
    assert parameters.read_text() != before
    output = run(walked.folder, BIN / "dvc", "repro", "train")
    assert output.count("didn't change, skipping") == 2
    assert "Running stage 'train'" in output
    assert "computing features" not in output


@pytest.mark.slow
def test_a_stage_takes_photos_from_a_folder_whatever_its_name(tmp_path):
    project, photos = tmp_path / "it's a project", tmp_path / 'it\'s "my" $PHOTOS'
    copy_project(project)
    for kind in ("cat", "dog"):
        (photos / kind).mkdir(parents=True)
        draw(kind, 1).save(photos / kind / "1.png")
    parameters.set_parameters(project, {"data.source": str(photos)})
    run(project, BIN / "dvc", "repro", "explore")
    assert sorted(path.name for path in (project / "data" / "raw").rglob("*.png")) == ["1.png", "1.png"]
    assert json.loads((project / "data" / "source.json").read_text())["source"] == str(photos)
