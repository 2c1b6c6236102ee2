"""Data and models between trainings: what the workflow `train` pushes to a bucket, its next run fetches."""

import os
import re
import subprocess
from pathlib import Path

import boto3
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
STEPS = YAML(typ="safe").load(ROOT / ".github" / "workflows" / "train.yml")["jobs"]["train"]["steps"]
STAGE = """\
stages:
  count:
    cmd: date +%N > made.txt
    deps: [photos.txt]
    outs: [made.txt]
"""


@pytest.fixture
def project(tool, moto, tmp_path):
    """Clone a project; gives its folder and a way to run a step of the workflow, or a command, in it."""
    tool("dvc")
    cleared = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "COVERAGE", "DVC_"))}
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    nothing = tmp_path / "nothing"
    nothing.touch()
    files = {name: str(nothing) for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    environment = cleared | moto | files | {"PATH": path, "DVC_REMOTE": "s3://trainings/dvc", "DVC_NO_ANALYTICS": "1"}

    def clone(name, **files):
        folder = tmp_path / name
        folder.mkdir()
        for tool_folder in (".venv", ".venv-dvc"):
            (folder / tool_folder).symlink_to(ROOT / tool_folder)
        for file, content in files.items():
            (folder / file).write_text(content)

        def run(step):
            scripts = [one["run"] for one in STEPS if one.get("name") == step]
            # The environment of DVC is there already.
            script = re.sub(r"^make .*$", "", scripts[0], flags=re.M) if scripts else step
            done = subprocess.run(
                ["bash", "-eo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        run("git init --quiet && dvc init --quiet")
        return folder, run

    return clone


@pytest.mark.slow
def test_a_second_runner_goes_on_from_what_the_first_one_pushed(project, moto):
    s3 = boto3.client(
        "s3",
        endpoint_url=moto["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    s3.create_bucket(Bucket="trainings")
    files = {"dvc.yaml": STAGE, "photos.txt": "a photo"}
    first, run = project("first", **files)
    run("Fetch what dvc.lock names")  # nothing yet, which is no mistake
    assert "Running stage" in run("dvc repro")
    run("Keep data and models")

    second, run = project("second", **files, **{"dvc.lock": (first / "dvc.lock").read_text()})
    run("Fetch what dvc.lock names")
    assert (second / "made.txt").read_text() == (first / "made.txt").read_text()
    assert "didn't change, skipping" in run("dvc repro")
    assert "store" not in (second / ".dvc" / "config").read_text()  # the place is the runner's own setting
