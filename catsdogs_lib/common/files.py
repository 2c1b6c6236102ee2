"""Writing so that nothing half-written is ever left: a temporary name first, then a rename."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"
"""Every unfinished file or folder carries this in its name; such names are ignored and swept away."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` when the block ends well.

    Works for a file or a folder: the block makes whichever it wants at the temporary name.
    On an error the temporary thing is removed and `path` is as it was.

    Parameters
    ----------
    path
        The final name. Its parent is made. What is already there is replaced.

    Yields
    ------
    Path
        The temporary name, in the same folder (so on the same file system) and with the same ending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}")
    try:
        yield partial
        if partial.is_dir() and path.exists():
            # A folder cannot be renamed over a full one: move the old one aside first.
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
    """Remove a file or a folder with all it holds; a missing one is fine.

    A folder takes a temporary name first: a kill leaves it whole, or to be swept, never half.
    """
    if path.is_dir() and not path.is_symlink():
        if not path.name.startswith(PARTIAL):
            path = path.rename(path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}"))
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left unfinished directly below `folder`.

    A folder that `replacing` had moved aside, and whose successor never came, goes back to its place.
    """
    for left in folder.glob(f"{PARTIAL}*-old-*"):
        place = folder / left.name.split("-old-", 1)[1]
        if not place.exists():
            left.rename(place)
    for left in folder.glob(f"{PARTIAL}*"):
        remove(left)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` as a whole or not at all."""
    with replacing(path) as partial, partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` as a whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a closing newline, as a whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of `data`, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def parse_json(raw: bytes) -> Any:
    """Parse UTF-8 JSON; anything else raises ValueError."""
    return json.loads(raw.decode())


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return parse_json(path.read_bytes())


def digest(value: Any) -> str:
    """SHA-256 of any JSON value, the same for the same content whatever the order of keys."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
