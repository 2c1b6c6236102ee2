"""Which code made this."""

import subprocess
from pathlib import Path

RECORDED_ELSEWHERE = (":!params.yaml", ":!dvc.lock")
"""Files that runs change and record in full themselves: they do not make the code another one."""


def git_commit(root: Path) -> str:
    """The commit of the code below `root`: 40 digits, with ``-dirty`` where tracked files were changed since.

    ``"unknown"`` outside a git checkout, or where git is not installed.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *RECORDED_ELSEWHERE)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def subject(root: Path, commit: str) -> str | None:
    """First line of a commit's message; None where the checkout below `root` does not hold the commit."""
    try:
        return _git(root, "log", "-1", "--format=%s", "--end-of-options", commit)
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
