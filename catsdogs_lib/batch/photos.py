"""Photos that wait somewhere: each knows its name and how it is read, and can be sent to another process."""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from catsdogs_lib.batch.rows import printable
from catsdogs_lib.imaging.decoding import MAX_BYTES, PhotoError

_LOCAL_HEADER = struct.Struct("<4s22x2H")
"""Of a zip's member: its mark, and the lengths of its name and its extra field, which the directory may not repeat."""
_ENCRYPTED = 0x1


class UnreadableError(PhotoError):
    """A photo is named, but its bytes cannot be had."""


class Photo(Protocol):
    """A photo of a source."""

    remote: ClassVar[bool]
    """Whether reading it is mostly waiting."""

    @property
    def path(self) -> str:
        """What names it in its row."""

    def read(self) -> bytes | Path:
        """Read its bytes, or say where they lie; raises `UnreadableError` where they cannot be had."""


@dataclass(frozen=True, slots=True)
class LocalPhoto:
    """A file of this machine."""

    remote: ClassVar[bool] = False
    file: str

    @property
    def path(self) -> str:
        """The file as it was named."""
        return printable(self.file)

    def read(self) -> Path:
        """Say where it lies."""
        return Path(self.file)


@dataclass(frozen=True, slots=True)
class ZippedPhoto:
    """A member of a zip, read where it lies."""

    remote: ClassVar[bool] = False
    archive: str
    member: zipfile.ZipInfo

    @property
    def path(self) -> str:
        """The member's name."""
        return printable(self.member.filename)

    def read(self) -> bytes:
        """Unpack it into memory, no more than a photo may have.

        The directory of a large zip takes as much memory as the rest of a process, so only the process that lists
        it holds it; here the one entry is enough.
        """
        if self.member.flag_bits & _ENCRYPTED:
            raise UnreadableError("encrypted in its zip; unpack the zip with its password and name the folder")
        if self.member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnreadableError("compressed in a way that is not read; pack it as an ordinary zip")
        try:
            with Path(self.archive).open("rb") as stream:
                stream.seek(self.member.header_offset)
                mark, name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
                if mark != b"PK\x03\x04":
                    raise zipfile.BadZipFile("no member begins there")
                stream.seek(name + extra, 1)
                with zipfile.ZipExtFile(stream, "r", self.member) as unpacked:
                    return unpacked.read(MAX_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError) as error:
            raise UnreadableError(f"damaged in its zip ({error}); copy or pack it again") from None
        except OSError as error:
            raise UnreadableError(f"its zip cannot be read ({error.strerror}); check that it is still there") from None


@dataclass(frozen=True, slots=True)
class RemotePhoto:
    """An object that fsspec reads."""

    remote: ClassVar[bool] = True
    address: str

    @property
    def path(self) -> str:
        """The address."""
        return printable(self.address)

    def read(self) -> bytes:
        """Fetch it, no more than a photo may have where the other side can send a part."""
        import fsspec.core

        try:
            system, path = fsspec.core.url_to_fs(self.address)
            return bytes(system.cat_file(path, start=0, end=MAX_BYTES + 1))
        except MemoryError:
            raise
        except Exception as error:
            # Every file system of fsspec brings exceptions of its own.
            said = " ".join(str(error).split()) or type(error).__name__
            raise UnreadableError(f"cannot be read ({said[:300]}); check the address and the access to it") from None
