"""The table of capabilities names what is there."""

import re
from pathlib import Path

from catsdogs_lib.cli.command_line import cli

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "capabilities.md").read_text()


def test_every_file_of_the_table_exists():
    named = re.findall(r"`([\w.-]+/[\w./-]+)`", TABLE)
    assert len(named) > 40
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_command_of_the_table_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z-]+)`", TABLE)) <= targets
    assert set(re.findall(r"`catsdogs ([a-z-]+)`", TABLE)) <= set(cli.commands)


def test_every_test_of_delivery_is_in_the_table():
    files = [path.relative_to(ROOT) for part in ("aws", "deploy") for path in (ROOT / "tests" / part).glob("test_*.py")]
    quiet = {"test_storage.py", "test_training_data.py"}  # parts of what the others show
    assert [str(path) for path in files if path.name not in quiet and str(path) not in TABLE] == []
