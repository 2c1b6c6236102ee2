"""The walkthrough docs/own-classes.md, word for word, in a copy of the project; the port alone is a free one."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_walkthrough_ends_with_an_endpoint_that_names_other_classes(tmp_path):
    subprocess.run(["git", "-C", ROOT, "checkout-index", "-a", f"--prefix={tmp_path}/"], check=True)
    environment = Path(sys.executable).parents[1]
    (tmp_path / ".venv").symlink_to(environment)
    for name in ("requirements/dev.lock", "pyproject.toml"):  # older than the environment: nothing is installed anew
        os.utime(tmp_path / name, (0, 0))
    if not (environment / ".installed").exists():
        pytest.skip("needs the environment that make install makes")
    subprocess.run([environment / "bin" / "dvc", "init", "--no-scm", "-q", "-f"], cwd=tmp_path, check=True)
    blocks = re.findall(r"^```sh\n(.*?)^```$", (tmp_path / "docs" / "own-classes.md").read_text(), re.M | re.S)
    assert len(blocks) == 6
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = "set -eo pipefail\n" + "".join(blocks).replace("8000", port)
    inherited = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=inherited, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    named = [answer["prediction"] for answer in answers if "prediction" in answer]
    assert named.count("rabbits") > 0.8 * len(named) > 40
    assert '"classes":["cats","dogs","rabbits"]' in done.stdout
    assert re.search(r'^predictions_by_class_total\{class_name="rabbits"\}', done.stdout, re.M)
    assert not (tmp_path / "reports").joinpath("05_package.html").stat().st_size < 10_000
    lines = (tmp_path / "service.log").read_text().splitlines()
    assert all(json.loads(line)["level"] != "ERROR" for line in lines)
