"""The git commit of the code that is running."""

import subprocess
from pathlib import Path

RECORDED_ELSEWHERE = (":!params.yaml", ":!dvc.lock")
"""Files that runs change, and record themselves: a change to them does not make the code dirty."""


def git_commit(root: Path) -> str:
    """Get the commit of the code below `root`: 40 digits, with ``-dirty`` if tracked files have changed since.

    Returns ``"unknown"`` outside a git checkout, or if git is not installed.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *RECORDED_ELSEWHERE)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def subject(root: Path, commit: str) -> str | None:
    """Get the first line of a commit's message; None if the checkout below `root` does not have the commit."""
    try:
        return _git(root, "log", "-1", "--format=%s", "--end-of-options", commit)
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
