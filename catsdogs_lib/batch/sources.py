"""Sources of photos: a folder, a zip, a list, or an address that fsspec reads."""

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

PATH_COLUMN = "path"
"""Column of a CSV list that names the photos; the output has it too."""
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)(?:://|::)", re.IGNORECASE)
_MACOS_METADATA_FOLDER = "__macosx"


class SourceUnusableError(CatsdogsError):
    """A source holds no photos, or cannot be read.

    Parameters
    ----------
    source
        Name that the user gave.
    problem
        Cause and remedy.
    """

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"source '{source}': {problem}")
        self.problem = problem


@dataclass(frozen=True)
class Source:
    """Photos in a stable order.

    Attributes
    ----------
    name
        Absolute path or address: the same from whichever folder the source is named.
    photos
        Returns an iterator over the photos; may be called again.
    """

    name: str
    photos: Callable[[], Iterator[Photo]]

    def count(self) -> int:
        """Count the photos.

        Raises
        ------
        SourceUnusableError
            There are none.
        """
        count = sum(1 for _ in self.photos())
        if not count:
            raise SourceUnusableError(self.name, f"there are no photos in it; they end in {', '.join(SUFFIXES)}")
        return count


def open_source(given: str) -> Source:
    """Open an address, a folder, a zip, a single photo, or a list of paths and addresses.

    Raises
    ------
    SourceUnusableError
        The source is missing, damaged, or none of these.
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
        return Source(name, lambda: (ZippedPhoto(member.filename, given, member) for member in members))
    return Source(name, lambda: _listed(given, lambda: _text(path.open("rb"))))


def is_photo_path(path: str) -> bool:
    """Tell whether a path looks like a photo's, and not like a file that an operating system left behind."""
    parts = PurePosixPath(path)
    junk = parts.name.startswith(".") or any(part.casefold() == _MACOS_METADATA_FOLDER for part in parts.parts)
    return parts.suffix.lower() in SUFFIXES and not junk


def _walk(folder: str) -> Iterator[Photo]:
    # One folder at a time, so that the names of a large tree are never all in memory.
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in sorted(names):
            if is_photo_path(name):
                yield LocalPhoto(os.path.join(parent, name))  # noqa: PTH118 - faster than a Path for each photo


def _raise(error: OSError) -> None:
    raise error


def _members(archive: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(archive) as packed:
            return [member for member in packed.infolist() if not member.is_dir() and is_photo_path(member.filename)]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise SourceUnusableError(str(archive), f"the zip is damaged ({error}); copy or pack it again") from None


def _listed(source: str, opened: Callable[[], TextIO]) -> Iterator[Photo]:
    """Read a list: the path column of a CSV, or the lines of any other text."""
    with opened() as stream:
        names = _column(source, stream) if source.lower().endswith(".csv") else (line.rstrip("\r\n") for line in stream)
        for number, name in enumerate(names, 1):
            if "\0" in name:
                raise SourceUnusableError(
                    source, f"entry {number} is not text; name a folder, a zip, an address, or a list in UTF-8"
                )
            if address := _ADDRESS.match(name):
                _require_protocol(source, address[1])
                yield RemotePhoto(name)
            elif name.strip():
                yield LocalPhoto(name)


def _require_protocol(source: str, protocol: str) -> None:
    """Check that fsspec can read addresses of a protocol here; S3, for example, needs s3fs."""
    import fsspec

    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise SourceUnusableError(source, f"a module for {protocol} addresses is missing ({error})") from None
    except ValueError:
        raise SourceUnusableError(source, f"fsspec knows no addresses of the kind '{protocol}'; check it") from None


def _text(raw: IO[bytes]) -> TextIO:
    # Names that are not UTF-8 come through as os.listdir gives them; '-sig' skips a byte order mark.
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _column(source: str, stream: TextIO) -> Iterator[str]:
    rows = csv.reader(stream)
    try:
        header = next(rows, [])
        if PATH_COLUMN not in header:
            raise SourceUnusableError(source, f"a CSV needs a header with a column '{PATH_COLUMN}'; rename the column")
        column = header.index(PATH_COLUMN)
        yield from (row[column] if len(row) > column else "" for row in rows)
    except csv.Error as error:
        raise SourceUnusableError(source, f"line {rows.line_num} is not valid CSV ({error}); correct it") from None


def _remote(address: str) -> Source:
    import fsspec.core

    _require_protocol(address, address.partition(":")[0])
    try:
        system, path = fsspec.core.url_to_fs(address)
        suffix = PurePosixPath(path).suffix.lower()
        if "*" not in path and suffix in SUFFIXES:
            return Source(address, lambda: iter([RemotePhoto(address)]))
        if "*" not in path and suffix in (".txt", ".csv"):
            content = system.cat_file(path)
            return Source(address, lambda: _listed(address, lambda: _text(io.BytesIO(content))))
        paths = system.glob(path) if "*" in path else system.find(path)
    except MemoryError:
        raise
    except Exception as error:
        # Each fsspec file system has exceptions of its own.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceUnusableError(
            address, f"it cannot be listed ({reason[:300]}); check the address and the access to it"
        ) from None
    names = sorted(name for name in paths if is_photo_path(name))
    outer = "::".join(itertools.islice(address.split("::"), 1, None))

    def photo(name: str) -> RemotePhoto:
        return RemotePhoto("::".join(filter(None, (system.unstrip_protocol(name), outer))))

    return Source(address, lambda: map(photo, names))
