"""Safe unpacking of zip and tar: nothing is written outside the folder, and no archive bomb unpacks.

Only files that may be photos are written. Sizes are counted while unpacking, never taken from headers.
"""

import bz2
import errno
import gzip
import io
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from catsdogs_lib.common.progress import track
from catsdogs_lib.data.layouts import SourceError, is_junk, is_packed, is_photo
from catsdogs_lib.imaging import decoding

MAX_MEMBERS = 200_000
"""Largest number of members: eight times Kaggle's 25 000 photos."""
MAX_BYTES = 32 * 2**30
"""Largest size of all unpacked files: 40 times Kaggle's 0.8 GB, or 8 000 photos from a phone at 4 MB each."""
MAX_MEMBER_BYTES = 2**30
"""Largest size of one unpacked file; photos above 64 MiB pass here and are named by a later check."""
MAX_RATIO = 100
"""Largest ratio of unpacked to packed bytes: photos hardly shrink, while deflate reaches 1 032 on zeros."""
MIN_BYTES_FOR_RATIO = decoding.MAX_BYTES
"""Unpacked bytes from which the ratio is checked: a flat drawing in BMP may well exceed 100."""

_CHUNK = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others come out in pieces of any size
_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b\x08": gzip.open, b"BZh": bz2.open}
_ENCRYPTED = 0x1
_DRIVE = re.compile(r"[A-Za-z]:")
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    struct.error,
    UnicodeError,
    ValueError,
    IndexError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)
"""Exceptions that the standard library raises on hostile or broken archives."""


class ArchiveError(SourceError):
    """An archive is damaged, encrypted, or not safe to unpack."""


class _Budget:
    """Counts the files and bytes that come out of an archive and raises when they exceed a limit."""

    def __init__(self, archive: Path) -> None:
        self.archive = str(archive)
        self.packed = archive.stat().st_size
        self.members = 0
        self.total = 0

    def member(self) -> None:
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise ArchiveError(
                self.archive, f"it holds more than {MAX_MEMBERS} files; unpack it yourself and name the folder"
            )

    def take(self, count: int, name: str, done: int, packed: int | None = None) -> None:
        """Count `count` more bytes of a member, of which `done` bytes have been unpacked including these."""
        self.total += count
        if done > MAX_MEMBER_BYTES:
            raise ArchiveError(
                self.archive, f"'{name}' unpacks to more than {_size(MAX_MEMBER_BYTES)}, which is no photo; remove it"
            )
        if packed is not None and done > MIN_BYTES_FOR_RATIO and done > MAX_RATIO * packed:
            self._explodes(f"'{name}'")
        self.check(self.total)

    def check(self, total: int) -> None:
        """Check the number of bytes unpacked so far."""
        if total > MAX_BYTES:
            raise ArchiveError(
                self.archive, f"it unpacks to more than {_size(MAX_BYTES)}; unpack it yourself and name the folder"
            )
        if total > MIN_BYTES_FOR_RATIO and total > MAX_RATIO * self.packed:
            self._explodes("it")

    def _explodes(self, name: str) -> None:
        raise ArchiveError(
            self.archive,
            f"{name} unpacks to over {MAX_RATIO} times its size, as photos never do; do not trust this archive",
        )


def is_archive(path: Path) -> bool:
    """Tell whether a file is a zip or a tar (plain, gzip, bzip2), by its content."""
    with path.open("rb") as stream:
        magic = stream.read(265)
    # A zip without members starts with its end record.
    return magic[:4] in (b"PK\x03\x04", b"PK\x05\x06") or magic[257:262] == b"ustar" or _opener(magic) is not None


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the photos of a zip or tar below `folder`, which is created.

    Parameters
    ----------
    archive
        A file for which `is_archive` holds.
    folder
        Destination. After an error the files written so far stay; the caller removes them.

    Raises
    ------
    ArchiveError
        Damaged, encrypted, holding links or paths that lead outside, or too large in any respect.
    OSError
        The disk is full, or the archive cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    budget = _Budget(archive)
    with archive.open("rb") as stream:
        magic = stream.read(4)
    try:
        (_unzip if magic[:2] == b"PK" else _untar)(archive, folder, budget)
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise ArchiveError(
            budget.archive, f"it holds '{Path(str(error.filename)).name}' twice; pack it again without doubles"
        ) from None
    except (*_DAMAGED, OSError) as error:
        # gzip and bz2 report damage as an OSError without a number; an offset that makes no sense is EINVAL.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ArchiveError(
            budget.archive, f"it is damaged or incomplete ({_short(error)}); copy, download or pack it again"
        ) from None
        raise ArchiveError(
            budget.archive, f"it is damaged or incomplete ({_short(error)}); copy, download or pack it again"
        ) from None


def _unzip(archive: Path, folder: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(archive) as packed:
        for info in track(packed.infolist(), "unpacking photos"):
            budget.member()
            name = info.filename
            # In a zip made on Unix, the upper half holds the type of the file.
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _link(budget, name)
            target = _target(name, budget)
            if info.is_dir():
                _make(folder, target)
                continue
            if target is None or not (is_photo(target.name) or is_packed(target.name)):
                continue
            if info.flag_bits & _ENCRYPTED:
                raise ArchiveError(budget.archive, "it is encrypted; unpack it with its password and name the folder")
            if info.compress_type not in _METHODS:
                raise ArchiveError(
                    budget.archive, f"'{name}' is compressed in a way that is not read; pack it as an ordinary zip"
                )
            if not is_photo(target.name):
                _mark(folder, target)
                continue
            with packed.open(info) as stream:
                _write(stream, folder, target, budget, info.compress_size)


def _untar(archive: Path, folder: Path, budget: _Budget) -> None:
    with archive.open("rb") as raw:
        opener = _opener(raw.read(4))
        raw.seek(0)
        stream = opener(raw) if opener else raw
        with tarfile.open(fileobj=_BudgetedStream(stream, budget), mode="r:") as packed:
            for info in track(_members(packed), "unpacking photos"):
                budget.member()
                if not (info.isreg() or info.isdir()) or info.issparse():
                    raise _link(budget, info.name)
                target = _target(info.name, budget)
                if info.isdir():
                    _make(folder, target)
                elif target is not None and is_packed(target.name):
                    _mark(folder, target)
                elif target is not None and is_photo(target.name):
                    inner = packed.extractfile(info)
                    assert inner is not None  # a regular file always has content
                    with inner:
                        _write(inner, folder, target, budget)


def _members(packed: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := packed.next()) is not None:
        yield info
        # tarfile would keep every header in memory.
        packed.members.clear()  # type: ignore[attr-defined]


class _BudgetedStream(io.RawIOBase):
    """The bytes of a tar, read once from front to back and counted, headers and padding included."""

    def __init__(self, stream: IO[bytes], budget: _Budget) -> None:
        super().__init__()
        self.stream = stream
        self.budget = budget
        self.position = 0

    def read(self, size: int = -1) -> bytes:
        # tarfile reads an extended header as a whole, however long it claims to be.
        if not 0 <= size <= _CHUNK:
            raise ArchiveError(self.budget.archive, "a header in it is absurdly long; do not trust this archive")
        data = self.stream.read(size)
        self.position += len(data)
        self.budget.check(self.position)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        # A compressed stream would start again for any step back; a sound tar needs none.
        if whence != io.SEEK_SET or offset < self.position:
            raise tarfile.ReadError("parts out of order")
        # In steps, so that the limits are checked on the way.
        while (left := offset - self.position) > 0 and self.read(min(left, _CHUNK)):
            pass
        return self.position

    def tell(self) -> int:
        return self.position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _opener(magic: bytes) -> Callable[[IO[bytes]], IO[bytes]] | None:
    return next((opener for signature, opener in _OPENERS.items() if magic.startswith(signature)), None)


def _target(name: str, budget: _Budget) -> PurePosixPath | None:
    """Return the path of a member relative to the folder, or None for junk."""
    # Zips made on Windows may separate folders with backslashes.
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or _DRIVE.match(name) or "\0" in name:
        raise ArchiveError(budget.archive, f"'{name}' would be written outside the folder; do not trust this archive")
    if not path.parts or any(is_junk(part) for part in path.parts):
        return None
    return path


def _make(folder: Path, target: PurePosixPath | None) -> None:
    # Empty class folders are kept, so that a message can name them.
    if target is not None:
        (folder / target).mkdir(parents=True, exist_ok=True)


def _mark(folder: Path, target: PurePosixPath) -> None:
    # An archive in an archive is not unpacked; an empty file of its name lets a message name it.
    _make(folder, target.parent)
    (folder / target).touch()


def _write(stream: IO[bytes], folder: Path, target: PurePosixPath, budget: _Budget, packed: int | None = None) -> None:
    _make(folder, target.parent)
    done = 0
    with (folder / target).open("xb") as output:
        while chunk := stream.read(_CHUNK):
            done += len(chunk)
            budget.take(len(chunk), str(target), done, packed)
            output.write(chunk)


def _link(budget: _Budget, name: str) -> ArchiveError:
    return ArchiveError(
        budget.archive, f"'{name}' is a link or a device instead of a photo; pack it again with the files themselves"
    )


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]


def _size(count: int) -> str:
    return f"{count / 2**30:.0f} GiB"
