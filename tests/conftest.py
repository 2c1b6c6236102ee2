"""What tests share: one drawn sample, trained, evaluated and packaged once a session; a Docker engine and the image."""

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("CATSDOGS_SHARED", ROOT / "../shared")).resolve()
TOOLS = SHARED / "tools"
BUNDLE = "models/reference"
LOCAL_BASE = "localhost/lambda-python:3.13"
AWS_BASE = "public.ecr.aws/lambda/python:3.13"
HARD = (
    "--read-only",
    "--tmpfs",
    "/tmp",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--memory",
    "1769m",
    "--cpus",
    "1",
)
"""How a container runs here: Lambda's limits, and nothing to write on but /tmp."""


LEARNING = {"data", "evaluation", "export", "monitoring", "notebooks", "pipeline", "registry", "training", "upgrade"}
"""Folders of tests that need the tools of training."""


def pytest_addoption(parser):
    parser.addoption("--half", choices=("learning", "serving"), help="run one half of the tests; tests/run runs both")


def lies_in_learning(path: Path) -> bool:
    """Tell whether a file or folder lies in one of those folders, however deep; notebooks count, too."""
    return path.suffix == ".ipynb" or any(path.is_relative_to(ROOT / "tests" / name) for name in LEARNING)


def pytest_ignore_collect(collection_path, config):
    """The serving half does not wait for imports of training's tools."""
    return (config.getoption("half", None) == "serving" and lies_in_learning(collection_path)) or None


def half(item) -> str:
    """The half that a test belongs to; what takes the trained project is learning, wherever it lies."""
    return "learning" if lies_in_learning(item.path) or "prepared" in item.fixturenames else "serving"


def pytest_collection_modifyitems(config, items):
    """Fast tests first, then slow ones, then notebooks."""
    if chosen := config.getoption("half", None):
        config.hook.pytest_deselected(items=[item for item in items if half(item) != chosen])
        items[:] = [item for item in items if half(item) == chosen]
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: (item.path.suffix == ".ipynb", item.get_closest_marker("slow") is not None))


def pytest_runtest_setup(item):
    """Coverage leaves out the processes that slow tests start: it would cost a third of their time."""
    if item.get_closest_marker("slow"):
        for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]:
            del os.environ[name]


SETTINGS = (
    "CATSDOGS_BUNDLE",
    "CATSDOGS_CLIENT_MIB",
    "CATSDOGS_FORMATS",
    "CATSDOGS_IMAGE",
    "CATSDOGS_KEY",
    "CATSDOGS_KEY_COVERS",
    "CATSDOGS_KEY_SHA256",
    "CATSDOGS_QUEUE_SECONDS",
    "CATSDOGS_UPLOADS",
    "MLFLOW_TRACKING_URI",
)


def pytest_sessionstart():
    """No test sees the settings of whoever runs it."""
    for name in SETTINGS:
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def _nothing_leaks():
    """MLflow writes its address into the environment, where the next test's processes would take it for a wish."""
    yield
    leaked = {name: os.environ.pop(name) for name in SETTINGS if name in os.environ}
    assert not leaked, f"this test left {leaked} in the environment"


@pytest.fixture
def plain_environment() -> dict[str, str]:
    """The environment without coverage, for processes that may not write: it would leave broken files."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def shared(name: str) -> Path:
    """A folder of real photos and files that does not come with the project; skips where it is missing."""
    folder = SHARED / "data" / name
    if not folder.is_dir():
        pytest.skip(f"needs real photos in {folder.parent.name}/{name}, which do not come with the project")
    return folder


@pytest.fixture(scope="session")
def edge() -> Path:
    return shared("edge")


@pytest.fixture(scope="session")
def hostile() -> Path:
    return shared("hostile")


@pytest.fixture(scope="session")
def pets() -> Path:
    return shared("pets")


@pytest.fixture(scope="session")
def familiar_bundle(tmp_path_factory):
    """The reference bundle, but nothing is unfamiliar to it: photos here are drawn, and it knows real ones."""
    from catsdogs_lib.inference.bundle import Bundle

    reference = Bundle.load(ROOT / BUNDLE)
    thresholds = reference.description.thresholds.model_copy(update={"unfamiliar": 2.0})
    description = reference.description.model_copy(update={"thresholds": thresholds})
    return Bundle.write(tmp_path_factory.mktemp("familiar") / "bundle", description, reference.graph)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The project as a wheel, made of what git tracks; the tracked files lie in ``source`` beside its folder."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: building in the tree would leave files there.
    subprocess.run(["git", "-C", ROOT, "checkout-index", "-a", f"--prefix={folder / 'source'}/"], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", folder / "wheel", folder / "source"], check=True)
    return next((folder / "wheel").glob("*.whl"))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A migrated MLflow store: every migration takes seconds, so it is made once and copied."""
    from catsdogs_lib.registry import tracking

    folder = tmp_path_factory.mktemp("store")
    tracking.connect(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlartifacts")
    return folder / "mlflow.db"


def copy_store(empty_store: Path, folder: Path) -> None:
    """Copy the empty store into a workspace, with artifacts in a place of its own."""
    shutil.copy(empty_store, folder / "mlflow.db")
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store, store:
        store.execute(
            "UPDATE experiments SET artifact_location = ? WHERE name = 'catsdogs'", [(folder / "mlartifacts").as_uri()]
        )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, empty_store):
    """A workspace with the drawn sample, fetched and prepared."""
    from catsdogs_lib.pipeline.stages import explore, prepare
    from catsdogs_lib.pipeline.workspace import Workspace

    ws = Workspace(tmp_path_factory.mktemp("prepared"))
    copy_store(empty_store, ws.root)
    explore.fetch(ws, "sample", per_class=60)
    prepare.prepare(ws)
    return ws


@pytest.fixture(scope="session")
def trained(prepared):
    """The same workspace with a candidate and a baseline, trained and measured."""
    from catsdogs_lib.pipeline.stages import evaluate, train
    from catsdogs_lib.training.settings import TrainingSettings, baseline_settings

    train.train(prepared, TrainingSettings(), baseline_settings(1))
    evaluate.evaluate(prepared)
    return prepared


@pytest.fixture(scope="session")
def packaged(trained):
    """The same workspace with its bundle, registered as the first champion."""
    from catsdogs_lib.pipeline.stages import package

    return trained, package.package(trained)


@pytest.fixture
def copy(packaged, tmp_path):
    """A copy of the whole workspace that a test may change; MLflow's artifacts stay where they are."""
    from catsdogs_lib.pipeline.workspace import Workspace

    root = tmp_path / "ws"
    shutil.copytree(packaged[0].root, root)
    return Workspace(root)


@pytest.fixture(scope="session")
def bundle_folder() -> Path:
    """The reference bundle: to answer photos, nothing has to be trained."""
    return ROOT / BUNDLE


@pytest.fixture(scope="session")
def tiny_graph() -> Callable[..., bytes]:
    """Makes a graph to which all classes are alike but for their bias, which may be NaN; its shapes may be wrong."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    def made(logit_bias=(0.0, 0.0), unfamiliarity_bias=0.0, size=16, classes=2, photos="N") -> bytes:
        constants = {
            "weights": np.zeros((3, len(logit_bias)), np.float32),
            "bias": np.array(logit_bias, np.float32),
            "kept": np.ones(len(logit_bias), bool),
            "shift": np.array(unfamiliarity_bias, np.float32),
        }
        nodes = [
            helper.make_node("ReduceMean", ["image"], ["colour"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["colour", "weights"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["scores"]),
            # The runtime cannot infer how many columns are left.
            helper.make_node("Compress", ["scores", "kept"], ["logits"], axis=1),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("ReduceMean", ["colour"], ["grey"], axes=[1], keepdims=0),
            helper.make_node("Abs", ["grey"], ["distance"]),
            helper.make_node("Add", ["distance", "shift"], ["unfamiliarity"]),
        ]
        shapes = {"logits": ["N", classes], "probabilities": ["N", classes], "unfamiliarity": ["N"]}
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [photos, 3, size, size])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
        return bytes(model.SerializeToString())

    return made


@pytest.fixture(scope="session")
def tiny_description(bundle_folder) -> Callable[..., Any]:
    """Describes a graph of `tiny_graph`, with the golden answer of one without biases."""
    from catsdogs_lib.common.files import sha256_bytes
    from catsdogs_lib.imaging.preprocessing import Preprocessing
    from catsdogs_lib.inference.bundle import Bundle
    from catsdogs_lib.inference.description import Graph

    reference = Bundle.load(bundle_folder).description

    def described(graph: bytes, **changes):
        golden = reference.golden[0].model_copy(update={"probabilities": dict.fromkeys(reference.classes, 0.5)})
        parts = {
            "graph": Graph(sha256=sha256_bytes(graph), bytes=len(graph), weights="fp32"),
            "preprocessing": Preprocessing(16),
            "explanation": "occlusion",
            "golden": (golden,),
        }
        return reference.model_copy(update={**parts, **changes})

    return described


@pytest.fixture
def nan_bundle(tiny_graph, tiny_description, tmp_path):
    """A sealed bundle whose graph gives NaN for the second class, and finite golden answers."""
    from catsdogs_lib.inference.bundle import Bundle

    graph = tiny_graph(logit_bias=(0.0, float("nan")))
    return Bundle.write(tmp_path / "nan-bundle", tiny_description(graph), graph)


@contextlib.contextmanager
def serving(app):
    """Serve an application on a free port of 127.0.0.1, with uvicorn as the commands do."""
    import uvicorn

    from catsdogs_lib.serving.server import Connection

    config = uvicorn.Config(app, port=0, http=Connection, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def ask(url, method="GET", target="/", body=None, headers=()):
    """Send one request exactly as written: target and headers are not touched."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders()
        if body is not None:
            # Who is refused may be told so before all is sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.send(body)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()


@pytest.fixture
def serve():
    """Serve applications until the test ends: ``serve(app)`` gives the address."""
    with contextlib.ExitStack() as stack:
        yield lambda app: stack.enter_context(serving(app))


@pytest.fixture
def send():
    return ask


@pytest.fixture
def send_half():
    """Send a request whose body never comes whole; what is heard until the connection is closed."""

    def half(url, host=None):
        address = url.removeprefix("http://")
        name, _, port = address.partition(":")
        with socket.create_connection((name, int(port)), timeout=20) as connection:
            head = f"POST /predict HTTP/1.1\r\nhost: {host or address}\r\ncontent-length: 1000\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 10)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.getheaders(), answer.read()

    return half


@pytest.fixture
def function_url(tmp_path, serve):
    """Put a handler, given as source, behind a Function URL: ``function_url(source, workers)`` gives the address."""
    from catsdogs_lib.lambda_local.backends import WorkerBackend
    from catsdogs_lib.lambda_local.function_url import FunctionUrl

    with contextlib.ExitStack() as stack:

        def start(source, workers=1):
            file = tmp_path / "handler.py"
            file.write_text(source)
            backend = WorkerBackend(file, workers)
            stack.callback(backend.close)
            return serve(FunctionUrl(backend))

        yield start


@pytest.fixture
def reference():
    return ROOT / BUNDLE


def run(*command: object, environment: dict[str, str] | None = None) -> str:
    """Run a command in the project; its output, or its errors as the test's failure."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True)
    said = done.stdout[-2000:] + done.stderr[-4000:]
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{said}"
    return done.stdout


@contextlib.contextmanager
def one_half_at_a_time():
    """Hold what both halves would make; the one that comes second finds it made."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "making.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def engine() -> dict[str, str]:
    """The environment in which ``docker`` finds an engine."""
    # Without coverage: it would write into folders that containers and tools' environments own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        return environment
    if not (TOOLS / "engine").is_file():
        pytest.skip("needs a Docker engine: install Docker, or start it")
    with one_half_at_a_time():
        run(TOOLS / "engine", "up")
    exported = run("bash", "-c", f"eval \"$('{TOOLS}/engine' env)\" && env -0")
    named = dict(pair.split("=", 1) for pair in exported.split("\0") if "=" in pair)
    return environment | {name: named[name] for name in ("DOCKER_HOST", "DOCKER_CONFIG")}


@pytest.fixture(scope="session")
def base_image(engine) -> str:
    """What the image is built on: CATSDOGS_BASE_IMAGE, a local stand-in, or AWS's."""
    if named := os.environ.get("CATSDOGS_BASE_IMAGE"):
        return named
    if (TOOLS / "lambda-base").is_file():
        with one_half_at_a_time():
            run(TOOLS / "lambda-base", "3.13", environment=engine)
    found = subprocess.run(["docker", "image", "inspect", LOCAL_BASE], env=engine, capture_output=True)
    return LOCAL_BASE if found.returncode == 0 else AWS_BASE


@pytest.fixture(scope="session")
def docker(engine) -> Callable[..., str]:
    """Run docker and get what it prints."""
    return lambda *arguments: run("docker", *arguments, environment=engine)


@pytest.fixture(scope="session")
def image(engine, base_image, docker):
    """The image with the reference bundle, as ``make image`` builds it: its `name`, `base` and `config`."""
    name = "catsdogs-test"
    run("make", "image", f"BASE_IMAGE={base_image}", f"BUNDLE={BUNDLE}", f"TAG={name}", environment=engine)
    config = json.loads(docker("image", "inspect", name))[0]["Config"]
    return SimpleNamespace(name=name, base=base_image, config=config)


@pytest.fixture
def container(docker, image):
    """Start containers of the image; all are gone at the end."""
    started = []

    def start(*arguments: str) -> str:
        options = arguments[: arguments.index("--")] if "--" in arguments else arguments
        command = arguments[len(options) + 1 :]
        started.append(docker("run", "--detach", *HARD, *options, image.name, *command).strip())
        return started[-1]

    yield start
    for one in started:
        docker("rm", "--force", one)


@pytest.fixture(scope="session")
def tool() -> Callable[[str], Path]:
    """The programs of a tool's environment, which is made on demand."""

    def programs(name: str) -> Path:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
        run("make", f".venv-{name}/.installed", environment=environment)
        return ROOT / f".venv-{name}" / "bin"

    return programs


@pytest.fixture(scope="session")
def templates() -> dict[str, dict[str, Any]]:
    """The stacks for AWS by name; a short function ``!Ref X`` reads ``{"Ref": "X"}``."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import SafeConstructor

    class Constructor(SafeConstructor):
        def short(self, suffix, node):
            value = getattr(self, f"construct_{node.id}")(node, *([] if node.id == "scalar" else [True]))
            return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}

    Constructor.add_multi_constructor("!", Constructor.short)
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Constructor
    files = (ROOT / "template.yaml", *(ROOT / "deploy" / "aws").glob("*.yaml"))
    return {file.stem: yaml.load(file.read_text()) for file in files}


@pytest.fixture(scope="session")
def sam_built(engine, base_image, tool, tmp_path_factory) -> Path:
    """The template that ``sam build`` leaves, with the image built."""
    tool("sam")
    folder = tmp_path_factory.mktemp("sam") / "built"
    overrides = (f"BaseImage={base_image}", f"Bundle={BUNDLE}")
    run("scripts/sam", "build", "--build-dir", folder, "--parameter-overrides", *overrides, environment=engine)
    return folder / "template.yaml"
