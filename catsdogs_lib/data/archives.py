"""Unpacking what somebody packed: nothing is written outside the folder, nothing explodes.

Only what may be a photo is written at all. Sizes are counted while bytes come out, never believed.
"""

import bz2
import errno
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from catsdogs_lib.common.progress import track
from catsdogs_lib.data.layouts import SourceError, is_junk, is_packed, is_photo
from catsdogs_lib.imaging import decoding

MAX_MEMBERS = 200_000
"""Eight times Kaggle's 25 000 photos."""
MAX_BYTES = 32 * 2**30
"""Of all unpacked: 40 times Kaggle's 0.8 GB, or 8 000 photos from a phone at 4 MB each."""
MAX_MEMBER_BYTES = 2**30
"""Of one file; a photo above 64 MiB is not even read, but a later check names it rather than this one."""
MAX_RATIO = 100
"""Unpacked to packed. Photos hardly shrink; deflate can reach 1 032 with zeros."""
RATIO_FROM = decoding.MAX_BYTES
"""Below this many unpacked bytes the ratio is not looked at: a flat drawing in BMP may well pass 100."""

_CHUNK = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others come out in pieces of any size
_ENCRYPTED = 0x1
_DRIVE = re.compile(r"[A-Za-z]:")
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    UnicodeError,
    ValueError,
    IndexError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    gzip.BadGzipFile,
)
"""What the standard library raises on hostile or broken archives."""


class ArchiveError(SourceError):
    """An archive is damaged, encrypted, or not safe to unpack."""


class _Budget:
    """Counts what comes out of an archive and ends it where it is too much."""

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
        """Book `count` more bytes of a member of which `done`, these included, have come out."""
        self.total += count
        if done > MAX_MEMBER_BYTES:
            raise ArchiveError(
                self.archive, f"'{name}' unpacks to more than {_size(MAX_MEMBER_BYTES)}, which is no photo; remove it"
            )
        if packed is not None and done > RATIO_FROM and done > MAX_RATIO * packed:
            self._explodes(f"'{name}'")
        self.check(self.total)

    def check(self, total: int) -> None:
        """Check the bytes that came out so far."""
        if total > MAX_BYTES:
            raise ArchiveError(
                self.archive, f"it unpacks to more than {_size(MAX_BYTES)}; unpack it yourself and name the folder"
            )
        if total > RATIO_FROM and total > MAX_RATIO * self.packed:
            self._explodes("it")

    def _explodes(self, what: str) -> None:
        raise ArchiveError(
            self.archive,
            f"{what} unpacks to over {MAX_RATIO} times its size, as photos never do; do not trust this archive",
        )


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar (plain, gzip, bzip2), told by its content, not its name."""
    with path.open("rb") as stream:
        magic = stream.read(265)
    # A zip without members starts with its end record.
    return magic[:4] in (b"PK\x03\x04", b"PK\x05\x06") or magic[257:262] == b"ustar" or _opener(magic) is not None


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the photos of a zip or tar below `folder`, which is made.

    Parameters
    ----------
    archive
        A file for which `is_archive` holds.
    folder
        Where to. On an error what was written so far stays; the caller removes it.

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
    except _DAMAGED as error:
        raise ArchiveError(
            budget.archive, f"it is damaged or incomplete ({_short(error)}); copy, download or pack it again"
        ) from None
    except OSError as error:
        # gzip and bz2 report damage as an OSError without a number; an offset that makes no sense is EINVAL.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise ArchiveError(
            budget.archive, f"it is damaged or incomplete ({_short(error)}); copy, download or pack it again"
        ) from None


def _unzip(archive: Path, folder: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(archive) as packed:
        for info in track(packed.infolist(), "unpacking photos"):
            budget.member()
            name = info.filename
            # What a Unix zip says of the file's type stands in the upper half.
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _link(budget, name)
            place = _place(name, budget)
            if info.is_dir():
                _make(folder, place)
                continue
            if place is None or not (is_photo(place.name) or is_packed(place.name)):
                continue
            if info.flag_bits & _ENCRYPTED:
                raise ArchiveError(budget.archive, "it is encrypted; unpack it with its password and name the folder")
            if info.compress_type not in _METHODS:
                raise ArchiveError(
                    budget.archive, f"'{name}' is compressed in a way that is not read; pack it as an ordinary zip"
                )
            if not is_photo(place.name):
                _mark(folder, place)
                continue
            with packed.open(info) as stream:
                _write(stream, folder, place, budget, info.compress_size)


def _untar(archive: Path, folder: Path, budget: _Budget) -> None:
    with archive.open("rb") as raw:
        opener = _opener(raw.read(4))
        raw.seek(0)
        stream = opener(raw) if opener else raw
        with tarfile.open(fileobj=_Watched(stream, budget), mode="r:") as packed:
            for info in track(_members(packed), "unpacking photos"):
                budget.member()
                if not (info.isreg() or info.isdir()) or info.issparse():
                    raise _link(budget, info.name)
                place = _place(info.name, budget)
                if info.isdir():
                    _make(folder, place)
                elif place is not None and is_packed(place.name):
                    _mark(folder, place)
                elif place is not None and is_photo(place.name):
                    inner = packed.extractfile(info)
                    assert inner is not None  # a regular file always has content
                    with inner:
                        _write(inner, folder, place, budget)


def _members(packed: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := packed.next()) is not None:
        yield info
        # It would keep every header for a second look.
        packed.members.clear()  # type: ignore[attr-defined]


class _Watched(io.RawIOBase):
    """The bytes of a tar, read once from front to back; headers and padding are counted too."""

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
        # A compressed stream would start afresh for any step back; a sound tar needs none.
        if whence != io.SEEK_SET or offset < self.position:
            raise tarfile.ReadError("parts out of order")
        # In steps, so that what unpacks for too long can be ended.
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
    if magic[:3] == b"\x1f\x8b\x08":
        return lambda raw: cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if magic[:3] == b"BZh":
        return bz2.BZ2File
    return None


def _place(name: str, budget: _Budget) -> PurePosixPath | None:
    """Where a member goes, relative to the folder; None for junk."""
    # Zips made on Windows may part folders by backslashes.
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or _DRIVE.match(name) or "\0" in name:
        raise ArchiveError(budget.archive, f"'{name}' would be written outside the folder; do not trust this archive")
    if not path.parts or any(is_junk(part) for part in path.parts):
        return None
    return path


def _make(folder: Path, place: PurePosixPath | None) -> None:
    # An empty class folder is kept, so that it can be named.
    if place is not None:
        (folder / place).mkdir(parents=True, exist_ok=True)


def _mark(folder: Path, place: PurePosixPath) -> None:
    # An archive in an archive is not unpacked; its empty name is enough to say so.
    _make(folder, place.parent)
    (folder / place).touch()


def _write(stream: IO[bytes], folder: Path, place: PurePosixPath, budget: _Budget, packed: int | None = None) -> None:
    _make(folder, place.parent)
    done = 0
    with (folder / place).open("xb") as target:
        while chunk := stream.read(_CHUNK):
            done += len(chunk)
            budget.take(len(chunk), str(place), done, packed)
            target.write(chunk)


def _link(budget: _Budget, name: str) -> ArchiveError:
    return ArchiveError(
        budget.archive, f"'{name}' is a link or a device instead of a photo; pack it again with the files themselves"
    )


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]


def _size(count: int) -> str:
    return f"{count / 2**30:.0f} GiB"
