"""Where many photos are named: a folder, a zip, a list, or an address that fsspec knows."""

import csv
import io
import itertools
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TextIO

from catsdogs_lib.batch.photos import LocalPhoto, Photo, RemotePhoto, ZippedPhoto
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.imaging.decoding import SUFFIXES

COLUMN = "path"
"""The column of a CSV that names the photos; the result has it too."""
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)(?:://|::)", re.IGNORECASE)
_JUNK = "__macosx"


class SourceUnusableError(CatsdogsError):
    """No photos can be had from a source.

    Parameters
    ----------
    source
        As the user named it.
    problem
        What is wrong with it and what to do about it.
    """

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"source '{source}': {problem}")
        self.source = source
        self.problem = problem


@dataclass(frozen=True)
class Source:
    """Photos in an order that is the same each time.

    Attributes
    ----------
    name
        The same for the same source, wherever it is named from.
    photos
        Goes through them; may be called again.
    """

    name: str
    photos: Callable[[], Iterator[Photo]]

    def count(self) -> int:
        """Count the photos, of which there must be one.

        Raises
        ------
        SourceUnusableError
            There is none.
        """
        count = sum(1 for _ in self.photos())
        if not count:
            raise SourceUnusableError(self.name, f"there are no photos in it; they end in {', '.join(SUFFIXES)}")
        return count


def open_source(given: str) -> Source:
    """Find out what a source is: an address, a folder, a zip, one photo, else a list of paths and addresses.

    Raises
    ------
    SourceUnusableError
        It is missing, damaged, or nothing of these.
    """
    if _ADDRESS.match(given):
        return _remote(given)
    path = Path(given)
    name = str(path.absolute())
    if path.is_dir():
        return Source(name, lambda: _walk(given))
    if not path.exists():
        raise SourceUnusableError(given, "there is no such file or folder; check the path")
    if path.suffix.lower() in SUFFIXES:
        return Source(name, lambda: iter([LocalPhoto(given)]))
    if zipfile.is_zipfile(path):
        members = _members(path)
        return Source(name, lambda: (ZippedPhoto(given, member) for member in members))
    return Source(name, lambda: _listed(given, lambda: _text(path.open("rb"))))


def is_photo(path: str) -> bool:
    """Whether a file of this name is taken for a photo; what some system leaves behind is not."""
    parts = PurePosixPath(path)
    junk = parts.name.startswith(".") or any(part.casefold() == _JUNK for part in parts.parts)
    return parts.suffix.lower() in SUFFIXES and not junk


def _walk(folder: str) -> Iterator[Photo]:
    # One folder at a time: the names of all of them never lie in memory.
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in sorted(names):
            if is_photo(name):
                yield LocalPhoto(os.path.join(place, name))  # noqa: PTH118 - a Path a photo would take longer


def _raise(error: OSError) -> None:
    raise error


def _members(archive: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(archive) as packed:
            return [member for member in packed.infolist() if not member.is_dir() and is_photo(member.filename)]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise SourceUnusableError(str(archive), f"the zip is damaged ({error}); copy or pack it again") from None


def _listed(source: str, opened: Callable[[], TextIO]) -> Iterator[Photo]:
    """Go through a list: a CSV by its column, any other text by its lines."""
    with opened() as stream:
        named = _column(source, stream) if source.lower().endswith(".csv") else (line.rstrip("\r\n") for line in stream)
        for number, name in enumerate(named, 1):
            if "\0" in name:
                raise SourceUnusableError(
                    source, f"entry {number} is not text; name a folder, a zip, an address, or a list in UTF-8"
                )
            if address := _ADDRESS.match(name):
                _check(source, address[1])
                yield RemotePhoto(name)
            elif name.strip():
                yield LocalPhoto(name)


def _check(source: str, protocol: str) -> None:
    """See whether fsspec reads such addresses here; S3 needs s3fs, for one."""
    import fsspec

    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise SourceUnusableError(source, f"a module for {protocol} addresses is missing ({error}); do so") from None
    except ValueError:
        raise SourceUnusableError(source, f"fsspec knows no addresses of the kind '{protocol}'; check it") from None


def _text(raw: IO[bytes]) -> TextIO:
    # Names that are no UTF-8 come through as they do from the system; '-sig' passes over a mark at the beginning.
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _column(source: str, stream: TextIO) -> Iterator[str]:
    rows = csv.reader(stream)
    try:
        head = next(rows, [])
        if COLUMN not in head:
            raise SourceUnusableError(source, f"a CSV needs a first line with a column '{COLUMN}'; name the column so")
        at = head.index(COLUMN)
        yield from (row[at] if len(row) > at else "" for row in rows)
    except csv.Error as error:
        raise SourceUnusableError(source, f"line {rows.line_num} is no CSV ({error}); mend it") from None


def _remote(address: str) -> Source:
    import fsspec.core

    _check(address, address.partition(":")[0])
    try:
        system, path = fsspec.core.url_to_fs(address)
        ending = PurePosixPath(path).suffix.lower()
        if "*" not in path and ending in SUFFIXES:
            return Source(address, lambda: iter([RemotePhoto(address)]))
        if "*" not in path and ending in (".txt", ".csv"):
            names_in_it = system.cat_file(path)
            return Source(address, lambda: _listed(address, lambda: _text(io.BytesIO(names_in_it))))
        found = system.glob(path) if "*" in path else system.find(path)
    except MemoryError:
        raise
    except Exception as error:
        # Every file system of fsspec brings exceptions of its own.
        said = " ".join(str(error).split()) or type(error).__name__
        raise SourceUnusableError(
            address, f"it cannot be listed ({said[:300]}); check the address and the access to it"
        ) from None
    names = sorted(name for name in found if is_photo(name))
    outer = "::".join(itertools.islice(address.split("::"), 1, None))

    def whole(name: str) -> str:
        return f"{system.unstrip_protocol(name)}::{outer}" if outer else str(system.unstrip_protocol(name))

    return Source(address, lambda: (RemotePhoto(whole(name)) for name in names))
