"""SAM and checkov on the template: valid, nothing to complain of, and the function answers as it would on AWS."""

import base64
import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from catsdogs_lib.inference.bundle import Bundle

ROOT = Path(__file__).parents[2]
EXPECTED = {
    "function_url_multipart": 200,
    "function_url_bare": 200,
    "http_api_multipart": 200,
    "http_api_bare": 200,
    "rest_multipart": 200,
    "rest_bare": 200,
    "function_url_text_file": 415,
    "function_url_cut_off": 422,
    "function_url_no_photo": 400,
    "get_page": 200,
    "get_information": 200,
    "get_health": 200,
    "get_ready": 200,
    "get_nothing": 404,
    "warm_up": None,
    "warm_up_schedule": None,
    "map-batch": 400,
    "sqs-s3-batch": 400,
}
"""The status that each sample event is answered with; None: a warm-up ping, which has none."""

pytestmark = pytest.mark.slow


def sam(environment, *arguments):
    command = ["scripts/sam", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_the_template_is_valid(tool):
    tool("sam")
    assert "is a valid SAM Template" in sam(None, "validate", "--lint")


@pytest.mark.parametrize("name", ["data", "watch"])
def test_a_nested_stack_is_valid(tool, name):
    command = [tool("sam") / "cfn-lint", ROOT / "deploy" / "aws" / f"{name}.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_checkov_has_nothing_to_say_that_is_not_answered_in_the_file(tool):
    stacks = ("template.yaml", "deploy/aws/data.yaml", "deploy/aws/watch.yaml")
    files = [part for name in ("Dockerfile.lambda", *stacks) for part in ("--file", name)]
    command = [tool("checkov") / "checkov", "--skip-download", "--output", "json", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert {report["check_type"] for report in found} == {"dockerfile", "cloudformation"}
    looked_at = {Path(check["file_path"]).name for report in found for check in report["results"]["passed_checks"]}
    assert {Path(name).name for name in stacks} - looked_at <= {"watch.yaml"}  # no check is about alarms
    failed = [check["check_id"] for report in found for check in report["results"]["failed_checks"]]
    assert (failed, done.returncode) == ([], 0)
    unexplained = [
        check["check_id"]
        for report in found
        for check in report["results"]["skipped_checks"]
        if len(check["check_result"]["suppress_comment"].strip()) < 20
    ]
    assert unexplained == []


def test_every_sample_event_has_an_expected_answer():
    assert {path.stem for path in (ROOT / "lambda" / "events").glob("*.json")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_sam_local_invoke_answers_a_sample_event(engine, sam_built, name):
    event = ROOT / "lambda" / "events" / f"{name}.json"
    answer = json.loads(sam(engine, "local", "invoke", "Function", "-t", sam_built, "-e", event, "--skip-pull-image"))
    if EXPECTED[name] is None:
        assert answer["warm"] is True
        return
    assert answer["statusCode"] == EXPECTED[name]
    body = base64.b64decode(answer["body"]).decode() if answer.get("isBase64Encoded") else answer["body"]
    if answer["statusCode"] >= 400:
        headers = {name.lower(): value for name, value in answer["headers"].items()}
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["status"] == answer["statusCode"]
    elif name.endswith(("multipart", "bare")):
        assert json.loads(body)["prediction"] == "cat"


@pytest.fixture(scope="module")
def api(engine, sam_built, tmp_path_factory):
    """Address of ``sam local start-api``: the one function that is asked gets a container and keeps it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("api") / "log.txt"
    command = [
        "scripts/sam",
        "local",
        "start-api",
        "-t",
        sam_built,
        "--port",
        str(port),
        "--warm-containers",
        "LAZY",
        "--skip-pull-image",
    ]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, env=engine, stdout=output, stderr=output) as process,
    ):
        try:
            _wait_until_open(port, process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()  # it takes its container along; on SIGINT it might not
            process.wait(60)


def _wait_until_open(port, process, log):
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    pytest.fail(f"sam local start-api does not start:\n{log.read_text()[-2000:]}")


def test_sam_local_start_api_answers_an_upload_and_the_bare_photo(api):
    golden = Bundle.load(ROOT / "models" / "reference").description.golden[0]
    uploaded = httpx.post(f"{api}/predict", files={"file": ("photo.png", golden.data, "image/png")}, timeout=60)
    bare = httpx.post(f"{api}/predict", content=golden.data, headers={"content-type": "image/png"}, timeout=60)
    for answer in (uploaded, bare):
        assert answer.status_code == 200, answer.text
        assert answer.json()["probabilities"] == pytest.approx(golden.probabilities, abs=1e-3)


def test_sam_local_start_api_passes_smoke(api):
    command = [sys.executable, "-m", "catsdogs_lib", "smoke", api, "--bundle", "models/reference", "--wait", "30"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
