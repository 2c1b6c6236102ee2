"""A Docker engine, a base image, the image built once, and SAM with checkov in environments of their own."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = Path(os.environ.get("CATSDOGS_SHARED", ROOT / "../shared")).resolve() / "tools"
BUNDLE = "models/reference"
LOCAL_BASE = "localhost/lambda-python:3.13"
AWS_BASE = "public.ecr.aws/lambda/python:3.13"
HARD = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
        "--memory", "1769m", "--cpus", "1")  # fmt: skip
"""How a container runs here: Lambda's limits, and nothing to write on but /tmp."""


def run(*command: object, environment: dict[str, str] | None = None) -> str:
    """Run a command in the project; its output, or its errors as the test's failure."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True)
    said = done.stdout[-2000:] + done.stderr[-4000:]
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{said}"
    return done.stdout


@pytest.fixture(scope="session")
def engine() -> dict[str, str]:
    """The environment in which ``docker`` finds an engine."""
    # Without coverage: it would write into folders that containers and tools' environments own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        return environment
    if not (TOOLS / "engine").is_file():
        pytest.skip("needs a Docker engine: install Docker, or start it")
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
def sam_built(engine, base_image, tool, tmp_path_factory) -> Path:
    """The template that ``sam build`` leaves, with the image built."""
    tool("sam")
    folder = tmp_path_factory.mktemp("sam") / "built"
    overrides = (f"BaseImage={base_image}", f"Bundle={BUNDLE}")
    run("scripts/sam", "build", "--build-dir", folder, "--parameter-overrides", *overrides, environment=engine)
    return folder / "template.yaml"
