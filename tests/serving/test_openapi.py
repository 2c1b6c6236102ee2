"""The application does what its OpenAPI document says, whatever is sent: schemathesis tries."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_every_answer_is_documented_and_none_is_a_failure(served_address, tmp_path):
    command = [
        Path(sys.executable).parent / "schemathesis",
        "run",
        f"{served_address}/openapi.json",
        "--checks",
        "all",
        # The schema can say "binary", not "a photo": a documented 415 for other bytes is no fault.
        "--exclude-checks",
        "positive_data_acceptance",
        "--max-examples",
        "200",
        "--seed",
        "1",
        "--no-color",
        "--suppress-health-check",
        "all",
        "--warnings",
        "off",
    ]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "photo_strategies"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=240)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    asked = re.search(r"(\d+) generated", done.stdout)
    assert asked, done.stdout[-3000:]
    assert int(asked[1]) > 200
