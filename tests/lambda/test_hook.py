"""The hook that decides on a release: it asks a real handler under the emulator, and tells whoever plays CodeDeploy."""

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from catsdogs_lib.inference.bundle import Bundle

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "models" / "reference"
EVENT = {"DeploymentId": "d-1", "LifecycleEventHookExecutionId": "hook-1"}
CONTEXT = SimpleNamespace(
    function_name="hook",
    memory_limit_in_mb=512,
    invoked_function_arn="arn:aws:lambda:::function:hook",
    aws_request_id="11111111-2222-3333-4444-555555555555",
)

pytestmark = pytest.mark.slow


@pytest.fixture
def told(monkeypatch):
    """What CodeDeploy is told."""
    heard = []

    class CodeDeploy(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            heard.append((self.headers["x-amz-target"].partition(".")[2], body))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), CodeDeploy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_CODEDEPLOY", f"http://127.0.0.1:{server.server_port}")
        yield heard
        server.shutdown()


@pytest.fixture
def hook(monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "CATSDOGS_RELEASED": "function",
        "CATSDOGS_BUNDLE": str(REFERENCE),
    }.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("hook", ROOT / "lambda" / "hook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WAIT_SECONDS", 1.0)
    return module


def decide(hook, monkeypatch, running):
    """Let the hook decide on what runs under an emulator."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", running.url)
    hook.handler(EVENT, CONTEXT)


def verdict(status):
    names = ("deploymentId", "lifecycleEventHookExecutionId", "status")
    return [("PutLifecycleEventHookExecutionStatus", dict(zip(names, ("d-1", "hook-1", status), strict=True)))]


def test_a_version_that_gives_its_golden_answers_goes_on(hook, monkeypatch, told, emulator):
    decide(hook, monkeypatch, emulator)
    assert told == verdict("Succeeded")


def test_a_version_that_gives_other_answers_is_taken_back(hook, monkeypatch, told, emulator, tmp_path):
    """The hook holds the bundle that was meant; what was deployed holds another."""
    meant = Bundle.load(REFERENCE)
    golden = tuple(
        one.model_copy(update={"probabilities": dict.fromkeys(one.probabilities, 0.5)})
        for one in meant.description.golden
    )
    description = meant.description.model_copy(update={"golden": golden}).sealed()
    Bundle.write(tmp_path / "bundle", description, (REFERENCE / "model.onnx").read_bytes())
    monkeypatch.setenv("CATSDOGS_BUNDLE", str(tmp_path / "bundle"))
    decide(hook, monkeypatch, emulator)
    assert told == verdict("Failed")
    wrong = {check.name.split()[0] for check in hook.checks("function") if not check.passed}
    assert wrong == {"version", "golden", "shape"}


def test_a_version_without_a_model_is_taken_back(hook, monkeypatch, told, runtime, tmp_path):
    with runtime(tmp_path) as broken:
        decide(hook, monkeypatch, broken)
    assert told == verdict("Failed")


def test_a_version_that_cannot_be_called_is_taken_back(hook, monkeypatch, told):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    decide(hook, monkeypatch, SimpleNamespace(url="http://127.0.0.1:9"))
    assert told == verdict("Failed")


def test_under_a_key_only_what_needs_none_decides(hook, monkeypatch, emulator):
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", emulator.url)
    asked = {check.name for check in hook.checks("function")}
    monkeypatch.setenv("CATSDOGS_KEY_SHA256", "0" * 64)
    assert {check.name for check in hook.checks("function")} == {"health", "ready", "version"} < asked
    monkeypatch.setenv("CATSDOGS_KEY_COVERS", "writes")
    assert {check.name for check in hook.checks("function")} == asked
