"""Atomic file I/O: files are written under a temporary name, then renamed. Also JSON and SHA-256."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

PARTIAL = ".partial-"
"""Prefix of temporary names; files and folders that have it are ignored, and removed by `sweep`."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace `path` atomically with the file or folder that the block writes to a temporary name.

    On an error, the temporary file or folder is removed and `path` stays as it was.

    Parameters
    ----------
    path
        The final name. Its parent is created if necessary.

    Yields
    ------
    Path
        The temporary name, in the same folder (so on the same file system) and with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}")
    try:
        yield partial
        if partial.is_dir() and path.exists():
            # A folder cannot be renamed over one that is not empty: move the old one aside first.
            old = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-old-{path.name}")
            path.rename(old)
            partial.rename(path)
            remove(old)
        else:
            partial.replace(path)
    except BaseException:
        remove(partial)
        raise


def remove(path: Path) -> None:
    """Remove a file, or a folder with its contents; ignore a missing one.

    A folder gets a temporary name first, so that a killed process leaves it either whole or to be swept.
    """
    if path.is_dir() and not path.is_symlink():
        if not path.name.startswith(PARTIAL):
            path = path.rename(path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}"))
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left unfinished directly below `folder`.

    A folder that `replacing` had moved aside gets its name back if its replacement was never completed.
    """
    for partial in folder.glob(f"{PARTIAL}*-old-*"):
        original = folder / partial.name.split("-old-", 1)[1]
        if not original.exists():
            partial.rename(original)
    for partial in folder.glob(f"{PARTIAL}*"):
        remove(partial)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with replacing(path) as partial, partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically; raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Compute the SHA-256 of `data`, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def parse_json(raw: bytes) -> Any:
    """Parse UTF-8 JSON; raises ValueError for anything else, such as NaN, or nesting of thousands of levels."""
    try:
        return json.loads(raw.decode(), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return parse_json(path.read_bytes())


def digest(value: Any) -> str:
    """Compute the SHA-256 of a JSON value, whatever the order of its keys; raises ValueError for NaN and infinity."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
