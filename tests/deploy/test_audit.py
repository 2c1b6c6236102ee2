"""``make audit`` passes only where every locked package was looked up."""

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
UNKNOWN = f"idna==0.0.0.dev1 --hash=sha256:{'0' * 64}\n"
"""A version that was never published."""


@pytest.fixture
def audit(tool, tmp_path):
    """Audit a project with one lock; gives the process."""
    programs = tool("checks")

    def done(lock, **environment):
        (tmp_path / ".venv-checks").symlink_to(programs.parent)
        (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
        for name in ("requirements/checks.lock", "lambda/requirements.txt"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text(lock)
        # Made already: the lock is younger.
        command = ["make", "--old-file=.venv-checks/.installed", "audit"]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | environment, timeout=120
        )

    return done


def test_a_package_that_the_index_does_not_know_fails(audit):
    done = audit(UNKNOWN)
    assert done.returncode != 0
    assert "idna" in done.stderr


def test_an_index_that_does_not_answer_fails(audit):
    unreachable = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    done = audit(UNKNOWN, **unreachable, NO_PROXY="", no_proxy="")
    assert done.returncode != 0
    assert "Unable to connect to proxy" in done.stderr


def test_a_lock_that_names_nothing_fails(audit):
    assert audit("# nothing is locked\n").returncode != 0
