"""What the function weighs: bytes, imports and modules. A dependency too many makes one of these grow, and every cold
start with it. Raise a limit only for something that users get in return, and say so in the commit.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MOST_MEGABYTES = 190
"""Of /var/task without the bundle; it has 181."""
MOST_MODULES = 560
"""In the process once the handler is imported; it has about 525."""
PACKAGES = {
    "PIL",
    "annotated_types",
    "anyio",
    "aws_lambda_powertools",
    "catsdogs_lib",
    "handler",
    "jmespath",
    "mangum",
    "numpy",
    "onnxruntime",
    "pydantic",
    "pydantic_core",
    "python_multipart",
    "starlette",
    "typing_extensions",
    "typing_inspection",
}
"""All that the handler may import."""
LOOK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import handler
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def modules(served) -> list[str]:
    """Names of the modules that the handler brings in, in an interpreter that has nothing else."""
    environment = {**os.environ, "CATSDOGS_BUNDLE": str(ROOT / "models" / "reference")}
    command = [sys.executable, "-I", "-S", "-c", LOOK, served]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_served_environment_is_no_larger_than_it_was(served):
    size = sum(path.stat().st_size for path in served.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert size < MOST_MEGABYTES * 1e6


def test_the_handler_imports_nothing_new(modules):
    packages = {name.split(".")[0] for name in modules if not name.startswith("_")}
    assert packages - set(sys.stdlib_module_names) - PACKAGES == set()


def test_the_handler_imports_no_more_modules_than_it_did(modules):
    assert len(modules) < MOST_MODULES
