import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from catsdogs_lib.client import smoke
from catsdogs_lib.client.http import Upstream
from catsdogs_lib.client.messages import HttpResponse
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.serving import auth
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
CATSDOGS = Path(sys.executable).parent / "catsdogs"
NAMES = ["health", "ready", "version", "golden", "golden", "golden", "golden", "shape", "text file", "empty file"]


class Mistaken(Classifier):
    """Gives each class the probability of another."""

    def interpret(self, outputs):
        return super().interpret(outputs._replace(probabilities=outputs.probabilities[:, ::-1]))


def app_of(classifier):
    return create_app(Model(classifier), ServerTelemetry())


def look(url, bundle):
    return list(smoke.run_smoke_tests(Upstream(url), bundle))


def failed(checks):
    return [check.name.partition(" ")[0] for check in checks if not check.passed]


@pytest.fixture(scope="module")
def bundle():
    return Bundle.load(ROOT / "models" / "reference")


@pytest.fixture
def right(bundle, serve):
    return serve(app_of(Classifier(bundle, 1)))


@pytest.fixture
def other(bundle, tmp_path):
    """The same graph under another description: another version of the model."""
    description = bundle.description.model_copy(update={"git_commit": "another"})
    return Bundle.write(tmp_path / "other", description, bundle.graph)


def run(*arguments, **options):
    command = [CATSDOGS, "smoke", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **options)


def test_an_endpoint_with_the_bundle_passes(right, bundle):
    checks = look(right, bundle)
    assert failed(checks) == []
    assert [next(n for n in NAMES if check.name.startswith(n)) for check in checks] == NAMES
    ways = [check.name.rpartition(" ")[2] for check in checks if check.name.startswith("golden")]
    assert ways == ["(multipart)", "(bare)", "(multipart)", "(bare)"]


def test_wrong_answers_fail(bundle, serve):
    checks = look(serve(app_of(Mistaken(bundle, 1))), bundle)
    assert failed(checks) == ["golden"] * 4


def test_another_version_of_the_model_is_its_own_line(right, other):
    checks = look(right, other)
    assert failed(checks) == ["version", "shape"]
    said = next(check.detail for check in checks if check.name == "version")
    assert other.version in said


def test_an_endpoint_without_a_model_fails_with_its_own_sentence(bundle, serve):
    checks = look(serve(create_app(Model(reason="the bundle is torn"), ServerTelemetry())), bundle)
    assert "the bundle is torn" in next(check.detail for check in checks if check.name == "ready")
    assert failed(checks)[:2] == ["ready", "version"]


class Altered:
    """An endpoint that answers as the right one but for a change."""

    def __init__(self, url, change):
        self.upstream, self.change = Upstream(url), change

    def ask(self, request):
        answer = self.upstream.ask(request)
        content = json.loads(answer.body)
        self.change(content)
        return HttpResponse(answer.status, answer.headers, json.dumps(content).encode())


def without(name):
    return lambda content: content.pop(name, None)


def put(**values):
    return lambda content: content.update(values) if "prediction" in content else None


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (without("reason"), ["shape"]),
        (without("prediction_id"), ["shape"]),
        (without("probabilities"), ["golden"] * 4 + ["shape"]),
        (without("request_id"), ["text", "empty"]),
        (put(prediction="rabbits"), ["shape"]),
        (put(confidence=0.5), ["shape"]),
        (put(confident=None), ["shape"]),
        (put(probabilities={"cat": 0.9, "dog": 0.9}), ["golden"] * 4 + ["shape"]),
        (put(probabilities={"cat": None, "dog": True}), ["golden"] * 4 + ["shape"]),
        (put(probabilities={"cat": float("nan"), "dog": 1.0}), ["golden"] * 4 + ["shape"]),
        # The built-in max gives the first number here, however large the tolerance.
        (put(probabilities={"cat": 1.0, "dog": float("nan")}), ["golden"] * 4 + ["shape"]),
        (put(latency_seconds=float("inf")), ["golden"] * 4 + ["shape"]),
        (put(probabilities={"cat": 10**400, "dog": 0.5}), ["golden"] * 4 + ["shape"]),
        (put(model_version="old"), ["shape"]),
    ],
)
def test_an_answer_of_another_shape_fails(change, names, right, bundle):
    assert failed(smoke.run_smoke_tests(Altered(right, change), bundle)) == names


@pytest.mark.slow
def test_the_commands_serve_and_smoke(tmp_path, reference):
    """uvicorn, and the real handler behind a Function URL: both pass; ready is waited for."""
    for command in (["serve", "--bundle", reference], ["function-url"]):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = {**os.environ, "CATSDOGS_BUNDLE": str(reference)}
        child = subprocess.Popen(
            [CATSDOGS, *map(str, command), "--port", str(port)],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            done = run(f"http://127.0.0.1:{port}", "--wait", 60, "--bundle", reference)
        finally:
            child.terminate()
            said = child.communicate(timeout=60)[1]
        assert done.returncode == 0, done.stdout + done.stderr + said
        assert [line.partition(" ")[0] for line in done.stdout.splitlines()] == ["ok"] * len(NAMES)
        assert done.stderr == ""
        assert said.startswith(f"http://127.0.0.1:{port}  (")
        assert said.count("\n") == 1


def test_a_failed_check_ends_with_one(right, other):
    done = run(right, "--bundle", other.folder)
    assert done.returncode == 1
    assert "FAILED  version: " in done.stdout
    assert len(done.stdout.splitlines()) == len(NAMES)


def test_an_endpoint_with_a_key_passes_for_who_names_it(bundle, reference, serve):
    key, digest = auth.new_key()
    url = serve(create_app(Model(Classifier(bundle, 1)), ServerTelemetry(), ServiceSettings(key_sha256=digest)))
    for named in ({"args": ["--key", key]}, {"env": {**os.environ, "CATSDOGS_KEY": key}}):
        done = run(url, "--bundle", reference, *named.pop("args", []), **named)
        assert done.returncode == 0, done.stdout
    done = run(url, "--bundle", reference)
    assert done.returncode == 1
    assert "status 401" in done.stdout
    assert "x-api-key" in done.stdout


def test_what_cannot_begin_ends_with_two_and_a_sentence(right, tmp_path):
    for arguments in (["http://127.0.0.1:1"], ["nonsense"], [right, "--bundle", tmp_path / "none"]):
        done = run(*arguments)
        assert done.returncode == 2, done
        assert done.stderr.startswith("catsdogs: ")
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""


def test_it_waits_until_the_endpoint_is_ready(bundle, serve):
    model = Model()
    url = serve(create_app(model, ServerTelemetry()))
    loading = threading.Timer(0.7, lambda: setattr(model, "classifier", Classifier(bundle, 1)))
    loading.start()
    began = time.monotonic()
    assert failed(smoke.run_smoke_tests(Upstream(url), bundle, wait_seconds=30)) == []
    assert time.monotonic() - began < 10
    loading.join()


def test_on_a_terminal_each_line_has_a_mark(right, reference):
    import pty

    leader, follower = pty.openpty()
    child = subprocess.Popen([CATSDOGS, "smoke", right, "--bundle", reference], stdout=follower, cwd=ROOT)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert child.wait() == 0
    assert shown.decode().count("✓") == len(NAMES)


@pytest.mark.parametrize("command", ["serve", "function-url", "proxy", "smoke", "key"])
def test_help_needs_nothing_that_is_slow_to_import(command):
    code = (
        f"import sys; sys.argv[1:] = [{command!r}, '--help']\n"
        "from catsdogs_lib.cli import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "slow = {'fastapi', 'uvicorn', 'starlette', 'botocore', 'mangum', 'prometheus_client'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_serve_with_a_corrupt_bundle_or_a_taken_port_is_one_sentence(tmp_path, reference):
    shutil.copytree(reference, tmp_path / "torn")
    graph = tmp_path / "torn" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for bundle, said in (
            (tmp_path / "torn", "model.onnx"),
            (tmp_path / "none", "model.json"),
            (reference, "--port"),
        ):
            command = [CATSDOGS, "serve", "--bundle", bundle, "--port", str(taken.getsockname()[1])]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 2
            assert said in done.stderr
            assert done.stderr.count("\n") == 1
