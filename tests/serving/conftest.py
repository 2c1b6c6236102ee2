"""One application with the reference bundle, asked in this process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry
from catsdogs_lib.serving.model import Model

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "models" / "reference"


@pytest.fixture(scope="session")
def model() -> Model:
    return Model.load(REFERENCE)


@pytest.fixture
def telemetry(model) -> ServerTelemetry:
    return ServerTelemetry(model.classifier.bundle)


@pytest.fixture
def ask(model, telemetry):
    """A client of the application; a mistake in it is an answer, as for a sender."""
    return TestClient(create_app(model, telemetry), raise_server_exceptions=False)


@pytest.fixture(scope="session")
def photo(model) -> bytes:
    """A drawn picture, PNG."""
    return model.classifier.bundle.description.golden[0].data


@pytest.fixture(scope="session")
def served_address():
    """The address of `catsdogs serve` with the reference bundle, a process of its own."""
    command = [sys.executable, "-m", "catsdogs_lib", "serve", "--port", "0", "--bundle", REFERENCE]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            line = process.stderr.readline()
            yield re.search(r"http://\S+:\d+", line)[0]
        finally:
            process.terminate()
