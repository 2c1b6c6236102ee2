"""The image: small, without a tool of training, not root, and answering at both doors where nothing may be written."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier

ROOT = Path(__file__).parents[2]
MAX_BYTES = 260_000_000
LEARNING = ("torch", "torchvision", "timm", "mlflow", "pandas", "matplotlib", "scipy", "sklearn", "pyarrow", "dvc")

pytestmark = pytest.mark.slow


def python(docker, image, code, *options):
    return docker("run", "--rm", "--read-only", *options, "--entrypoint", "python", image.name, "-c", code)


def port_of(docker, container, port):
    return docker("port", container, str(port)).split()[0].rpartition(":")[2]


@contextlib.contextmanager
def function_url(emulator, environment):
    """The local Function URL in front of an emulator; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "catsdogs_lib", "function-url", "--emulator", emulator, "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as door:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            door.terminate()


def smoke(url, environment):
    command = [sys.executable, "-m", "catsdogs_lib", "smoke", url, "--bundle", "models/reference", "--wait", "30"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_own_layers_stay_small(docker, image):
    def layers(name):
        return [int(size) for size in docker("history", "--human=false", "--format", "{{.Size}}", name).split()]

    own = sum(layers(image.name)) - sum(layers(image.base))
    print(f"own layers: {own / 1e6:.1f} MB")
    assert 50_000_000 < own <= MAX_BYTES


def test_the_image_keeps_the_entrypoint_of_its_base_and_is_not_root(docker, image):
    base = json.loads(docker("image", "inspect", image.base))[0]["Config"]
    assert image.config["Entrypoint"] == base["Entrypoint"]
    assert image.config["Cmd"] == ["handler.handler"]
    assert python(docker, image, "import os; print(os.getuid(), os.getgid())").split() == ["993", "990"]


def test_nothing_of_training_is_inside_and_all_of_serving(docker, image):
    look = "import importlib.util as u; print(*(n for n in {} if u.find_spec(n)))"
    assert python(docker, image, look.format(LEARNING)).split() == []
    serving = ("onnxruntime", "PIL", "fastapi", "mangum", "aws_lambda_powertools", "uvicorn", "prometheus_client")
    assert python(docker, image, look.format(serving)).split() == list(serving)


def test_nothing_is_compiled_at_the_start(docker, image):
    begun = "python -v -c 'import handler' 2>&1"
    said = docker("run", "--rm", "--read-only", "--entrypoint", "bash", image.name, "-c", begun)
    loaded = re.findall(r"code object from '?(/var/task/[^']*\.pyc?)", said)
    assert len(loaded) > 250
    assert [name for name in loaded if name.endswith(".py")] == []


def test_no_telemetry_of_onnx_runtime_is_kept_or_sent(docker, image):
    # Left alone it keeps an id and a database at home, where it finds one that can be written.
    begun = "import os, handler; print(handler.model.classifier is not None, os.listdir('/tmp'))"
    assert python(docker, image, begun, "--tmpfs", "/tmp", "--env", "HOME=/tmp").split() == ["True", "[]"]


def test_both_large_layers_come_out_the_same_again(docker, image):
    arguments = ("--build-arg", f"BASE_IMAGE={image.base}", "--file", "Dockerfile.lambda", "--quiet", "--no-cache")

    def layers(name):
        return json.loads(docker("image", "inspect", name))[0]["RootFS"]["Layers"]

    built = docker("build", *arguments, str(ROOT)).strip()
    below, again, first = len(layers(image.base)), layers(built), layers(image.name)
    docker("image", "rm", built)
    assert again[below : below + 2] == first[below : below + 2]


def test_the_emulator_in_the_container_answers_the_golden_pictures(docker, container, engine):
    one = container("--publish", "127.0.0.1::8080")
    with function_url(f"http://127.0.0.1:{port_of(docker, one, 8080)}", engine) as url:
        print(smoke(url, engine))
    print(docker("stats", "--no-stream", "--format", "memory {{.MemUsage}}", one))
    state = json.loads(docker("inspect", one))[0]["State"]
    assert state["Running"]
    assert not state["OOMKilled"]


def test_the_container_gives_the_same_probabilities_for_100_real_photos(docker, container, engine, pets):
    """The fifth door; `tests/lambda/test_five_doors.py` compares the others, torch among them, on these photos."""
    classifier = Classifier(Bundle.load(ROOT / "models" / "reference"))
    photos = [path for name in ("cats", "dogs") for path in sorted((pets / "test" / name).iterdir())[::12][:50]]
    assert len(photos) == 100
    one, worst = container("--publish", "127.0.0.1::8080"), 0.0
    with function_url(f"http://127.0.0.1:{port_of(docker, one, 8080)}", engine) as url:
        smoke(url, engine)
        for path in photos:
            request = urllib.request.Request(f"{url}/predict", path.read_bytes(), {"content-type": "image/jpeg"})
            with urllib.request.urlopen(request) as response:
                answer = json.load(response)["probabilities"]
            here = classifier.predict(path).probabilities
            worst = max(worst, *(abs(here[name] - answer[name]) for name in here))
    print(f"largest difference from the container: {worst:.2g}")
    assert worst <= 1e-3


def test_the_same_image_serves_under_uvicorn_and_stops_when_told(docker, container, engine):
    one = container(
        "--publish",
        "127.0.0.1::8000",
        "--entrypoint",
        "python",
        "--",
        "-m",
        "catsdogs_lib",
        "serve",
        "--host",
        "0.0.0.0",
    )
    print(smoke(f"http://127.0.0.1:{port_of(docker, one, 8000)}", engine))
    began = time.monotonic()
    docker("stop", "--time", "20", one)
    assert time.monotonic() - began < 10
    assert json.loads(docker("inspect", one))[0]["State"]["ExitCode"] == 0
