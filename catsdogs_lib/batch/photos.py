"""Photos of a source, not yet read: each has a name, can read itself, and can be pickled for another process."""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from catsdogs_lib.batch.rows import printable
from catsdogs_lib.imaging.decoding import MAX_BYTES, PhotoError

_LOCAL_HEADER = struct.Struct("<4s22x2H")
"""Local header of a zip member: signature, lengths of name and extra field (the directory may have other lengths)."""
_ENCRYPTED_FLAG = 0x1


class UnreadableError(PhotoError):
    """The bytes of a photo cannot be read."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of a source, under the name that the source gives it: a path, a member of a zip, or an address."""

    remote: ClassVar[bool] = False
    """True if reading mostly waits for the network."""
    name: str

    @property
    def path(self) -> str:
        """Name of the photo in its row."""
        return printable(self.name)

    def read(self) -> bytes | Path:
        """Read its bytes, or return the path of its file; raises `UnreadableError` if they cannot be read."""
        raise NotImplementedError


class LocalPhoto(Photo):
    """A file on this machine."""

    __slots__ = ()

    def read(self) -> Path:
        """Return the path of the file."""
        return Path(self.name)


@dataclass(frozen=True, slots=True)
class ZippedPhoto(Photo):
    """A member of a zip, read without unpacking the zip."""

    archive: str
    member: zipfile.ZipInfo

    def read(self) -> bytes:
        """Unpack the member into memory, up to the size limit of a photo.

        The directory of a large zip takes as much memory as the rest of a process, so only the process that lists
        the zip loads it; this one entry is enough here.
        """
        if self.member.flag_bits & _ENCRYPTED_FLAG:
            raise UnreadableError("encrypted in its zip; unpack the zip with its password and name the folder")
        if self.member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnreadableError("compressed in a way that is not read; pack it as an ordinary zip")
        try:
            with Path(self.archive).open("rb") as stream:
                stream.seek(self.member.header_offset)
                signature, name_length, extra_length = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
                if signature != b"PK\x03\x04":
                    raise zipfile.BadZipFile("no member begins there")
                stream.seek(name_length + extra_length, 1)
                with zipfile.ZipExtFile(stream, "r", self.member) as unpacked:
                    return unpacked.read(MAX_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError) as error:
            raise UnreadableError(f"damaged in its zip ({error}); copy or pack it again") from None
        except OSError as error:
            raise UnreadableError(f"its zip cannot be read ({error.strerror}); check that it is still there") from None


class RemotePhoto(Photo):
    """An object that fsspec reads."""

    __slots__ = ()
    remote = True

    def read(self) -> bytes:
        """Fetch the object, up to the size limit of a photo if the server supports ranges."""
        import fsspec.core

        try:
            system, path = fsspec.core.url_to_fs(self.name)
            return bytes(system.cat_file(path, start=0, end=MAX_BYTES + 1))
        except MemoryError:
            raise
        except Exception as error:
            # Each fsspec file system has exceptions of its own.
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreadableError(f"cannot be read ({reason[:300]}); check the address and the access to it") from None
