"""How many bytes packages take when they are installed."""

import importlib.metadata
import re
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder, without what Python compiles."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def closure(names: Iterable[str]) -> dict[str, int]:
    """Bytes of installed packages and of all that they need, by name."""
    found: dict[str, int] = {}
    waiting = [_plain(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # needed elsewhere, not here
        files = (Path(str(file.locate())) for file in package.files or () if "__pycache__" not in file.parts)
        found[name] = sum(path.stat().st_size for path in files if path.is_file())
        for line in package.requires or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append(_plain(need.name))
    return found


def size_without(name: str, left_out: re.Pattern[str]) -> int:
    """Bytes of an installed package without the files whose names match."""
    files = (Path(str(one.locate())) for one in importlib.metadata.distribution(name).files or ())
    kept = (one for one in files if "__pycache__" not in one.parts and not left_out.search(one.name) and one.is_file())
    return sum(one.stat().st_size for one in kept)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
