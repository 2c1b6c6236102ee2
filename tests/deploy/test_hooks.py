"""The hooks of git: what is committed is checked by the tools that CI uses, and notebooks lose their outputs alone."""

import os
import subprocess
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def commit(tool, tmp_path_factory):
    """Stage files in a repository of its own, and ask the hooks; gives the process and the repository."""
    programs = tool("checks")
    # Who runs the tests may be in a hook of git's, which names its own repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "COVERAGE"))}

    def ask(hooks, **files):
        folder = tmp_path_factory.mktemp("repository")
        for name in (".venv", ".venv-checks"):
            (folder / name).symlink_to(ROOT / name)
        for name in (".pre-commit-config.yaml", "pyproject.toml"):
            (folder / name).write_bytes((ROOT / name).read_bytes())
        for name, content in files.items():
            (folder / name).write_bytes(content)
        subprocess.run(["git", "init", "--quiet"], cwd=folder, env=environment, check=True)
        subprocess.run(["git", "add", *files, ".pre-commit-config.yaml"], cwd=folder, env=environment, check=True)
        skipped = ",".join(sorted({"types", "layers", "ruff", "ruff-format", "notebooks"} - set(hooks)))
        done = subprocess.run(
            [programs / "pre-commit", "run", "--color=never"],
            cwd=folder,
            capture_output=True,
            text=True,
            env=environment | {"SKIP": skipped, "PRE_COMMIT_HOME": str(folder / "home")},
        )
        return done, folder

    return ask


@pytest.mark.slow
def test_a_notebook_loses_its_outputs_and_nothing_else(commit):
    clean = ROOT / "notebooks" / "03_train.ipynb"
    book = nbformat.read(clean, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    code[1].outputs, code[1].execution_count = [nbformat.v4.new_output("stream", text="a secret")], 7
    done, folder = commit(["notebooks"], **{"book.ipynb": nbformat.writes(book).encode()})
    assert done.returncode == 1, done.stdout
    assert (folder / "book.ipynb").read_bytes() == clean.read_bytes()


@pytest.mark.slow
def test_keys_large_files_merges_and_style_are_stopped(commit):
    key = b"-----BEGIN " + b"RSA PRIVATE KEY-----\nabc\n"
    marks = b"<<<<<<" + b"< ours\n"
    done, folder = commit(
        ["ruff", "ruff-format"],
        **{"id": key, "photo.bin": bytes(2_000_000), "text.md": marks + b"blank \n", "odd.py": b"import os\nx=  1\n"},
    )
    for hook in ("private keys", "large files", "blanks at the ends", "style", "format"):
        (line,) = [line for line in done.stdout.splitlines() if hook in line and "." * 10 in line]
        assert line.endswith("Failed"), done.stdout
    assert (folder / "text.md").read_bytes() == marks + b"blank\n"


@pytest.mark.slow
def test_what_is_in_order_is_let_through(commit):
    files = ["catsdogs_lib/common/git.py", "notebooks/01_explore.ipynb", "docs/delivery.md"]
    done, _ = commit(
        ["ruff", "ruff-format", "notebooks"], **{Path(name).name: (ROOT / name).read_bytes() for name in files}
    )
    assert done.returncode == 0, done.stdout
