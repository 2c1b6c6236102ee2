"""Bytes of installed packages."""

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
    sizes: dict[str, int] = {}
    waiting = [_plain(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in sizes:
            continue
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # needed elsewhere, not here
        files = (Path(str(file.locate())) for file in package.files or () if "__pycache__" not in file.parts)
        sizes[name] = sum(path.stat().st_size for path in files if path.is_file())
        for line in package.requires or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append(_plain(need.name))
    return sizes


def size_without(name: str, left_out: re.Pattern[str]) -> int:
    """Bytes of an installed package without the files whose names match."""
    files = (Path(str(file.locate())) for file in importlib.metadata.distribution(name).files or ())
    kept = (
        path for path in files if "__pycache__" not in path.parts and not left_out.search(path.name) and path.is_file()
    )
    return sum(path.stat().st_size for path in kept)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
