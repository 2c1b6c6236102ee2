"""Seeded mutations of photos and of the requests that carry them: what a stranger, a bad line or an attacker sends.

The same photos, seed and count give the same requests.
"""

import io
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from PIL import Image

from catsdogs_lib.client.messages import HttpRequest

BOUNDARY = "----mutation"
FORMATS = {"PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp", "TIFF": "image/tiff"}
CONTENT_TYPES = (
    "",
    "text/plain",
    "application/json",
    "application/octet-stream",
    "image/",
    "image",
    "image/*",
    "IMAGE/JPEG",
    "image/svg+xml",
    "image/jpeg; charset=utf-8",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=other",
    "multipart/mixed; boundary=----mutation",
    "video/mp4",
    "x" * 4000,
    'multipart/form-data; boundary="----mutation',
    "multipart/form-data; boundary=\u00e4\u00f6",
    ";;;=",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=" + "-" * 500,
)
FILE_NAMES = (
    "photo.jpg",
    "",
    "../../etc/passwd",
    "a" * 5000,
    'quo"te.jpg',
    "new\\nline.jpg",
    "\u732b.jpg",
    "%00.jpg",
    "%(levelno)0999999d.jpg",
    "100%.jpg",
    "%s%n{0}${x}.jpg",
    "photo.jpg;x=1",
    "\x7f",
)


class Mutation(NamedTuple):
    """A request, and what was done to it."""

    name: str
    request: HttpRequest


def bare(body: bytes, content_type: str = "image/jpeg") -> HttpRequest:
    """A photo as the whole body."""
    return HttpRequest("POST", "/predict", headers=(("content-type", content_type),), body=body)


def multipart(body: bytes, filename: str = "photo.jpg", content_type: str = "image/jpeg") -> HttpRequest:
    """A photo as the field ``file`` of a form."""
    return bare(form(body, filename, content_type), f"multipart/form-data; boundary={BOUNDARY}")


def form(body: bytes, filename: str = "photo.jpg", content_type: str = "image/jpeg", field: str = "file") -> bytes:
    """The body of a multipart request."""
    head = f'Content-Disposition: form-data; name="{field}"; filename="{filename}"\r\nContent-Type: {content_type}'
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + body + f"\r\n--{BOUNDARY}--\r\n".encode()


def in_other_formats(photo: bytes) -> list[bytes]:
    """The same photo in each other format that is read, and as a progressive JPEG."""
    found = []
    with Image.open(io.BytesIO(photo)) as image:
        small = image.convert("RGB").resize((160, 120))
        for name, settings in [*((name, {}) for name in FORMATS), ("JPEG", {"progressive": True})]:
            stream = io.BytesIO()
            small.save(stream, name, **settings)
            found.append(stream.getvalue())
    return found


def mutations(photos: Sequence[bytes], count: int, seed: int = 0) -> Iterator[Mutation]:
    """Make requests out of photos.

    Parameters
    ----------
    photos
        Whole photos in any format.
    count, seed
        How many, and which.
    """
    chance = random.Random(seed)
    kinds = list(_PHOTO_KINDS | _REQUEST_KINDS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        photo, other = chance.choice(photos), chance.choice(photos)
        if kind in _PHOTO_KINDS:
            request = chance.choice((bare, multipart))(_PHOTO_KINDS[kind](chance, photo, other))
        else:
            request = _REQUEST_KINDS[kind](chance, photo, other)
        yield Mutation(f"{kind} {number}", request)


def mutated_photos(photos: Sequence[bytes], count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Make files out of photos, as `mutations` makes requests: the kind with its number, and the bytes."""
    chance = random.Random(seed)
    kinds = list(_PHOTO_KINDS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        yield f"{kind} {number}", _PHOTO_KINDS[kind](chance, chance.choice(photos), chance.choice(photos))


def _bits(chance: random.Random, photo: bytes, _: bytes) -> bytes:
    changed = bytearray(photo)
    for _number in range(chance.choice((1, 2, 8, 64, 512))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(chance: random.Random, photo: bytes, _: bytes) -> bytes:
    return photo[: chance.randrange(min(700, len(photo)) if chance.random() < 0.3 else len(photo))]


def _head(chance: random.Random, photo: bytes, _: bytes) -> bytes:
    changed = bytearray(photo)
    for _number in range(chance.choice((1, 2, 4, 16))):
        changed[chance.randrange(min(700, len(changed)))] = chance.choice((0, 0xFF, 0x7F, 0x80, chance.randrange(256)))
    return bytes(changed)


def _sizes(chance: random.Random, photo: bytes, _: bytes) -> bytes:
    """Another width and height, where the format has them."""
    changed, value = bytearray(photo), chance.choice((0, 1, 7, 3000, 7000, 0x7FFF, 0xFFFF))
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        if (at := photo.find(marker)) > 0:
            for offset in chance.choice(((5,), (7,), (5, 7))):
                changed[at + offset : at + offset + 2] = value.to_bytes(2, "big")
    if photo.startswith(b"\x89PNG"):
        at = chance.choice((16, 20))
        changed[at : at + 4] = (value * chance.choice((1, 65536))).to_bytes(4, "big")
    if photo.startswith(b"GIF"):
        changed[6:8] = value.to_bytes(2, "little")
    if photo.startswith(b"BM"):
        changed[18:22] = value.to_bytes(4, "little")
    return bytes(changed)


def _segments(chance: random.Random, photo: bytes, _: bytes) -> bytes:
    """A stretch dropped, doubled, moved or blanked."""
    begin = chance.randrange(len(photo))
    end = min(len(photo), begin + chance.choice((1, 16, 300, 5000)))
    part = photo[begin:end]
    match chance.randrange(4):
        case 0:
            return photo[:begin] + photo[end:]
        case 1:
            return photo[:end] + part * chance.choice((1, 3)) + photo[end:]
        case 2:
            return part + photo[:begin] + photo[end:]
        case _:
            return photo[:begin] + bytes([chance.choice((0, 0xFF))]) * len(part) + photo[end:]


def _spliced(chance: random.Random, photo: bytes, other: bytes) -> bytes:
    return photo[: chance.randrange(len(photo))] + other[chance.randrange(len(other)) :]


def _parts(chance: random.Random, photo: bytes, _: bytes) -> bytes:
    """A whole chunk of a PNG, or segment of a JPEG, repeated."""
    begin, end = chance.choice(_spans(photo))
    copies = min(chance.choice((1, 2, 40, 1000)), 2**22 // max(1, end - begin))
    return photo[:end] + photo[begin:end] * copies + photo[end:]


def _lengths(chance: random.Random, photo: bytes, _: bytes) -> bytes:
    """Another length in a chunk, a segment, or the head of a format that has neither."""
    changed, (begin, end) = bytearray(photo), chance.choice(_spans(photo))
    width = 4 if photo.startswith(b"\x89PNG") else 2
    at = begin + 2 if photo.startswith(b"\xff\xd8") else begin
    largest = 256**width - 1
    value = chance.choice((0, 1, 2, end - begin + 1, largest // 2, largest, chance.randrange(largest)))
    changed[at : at + width] = (value % (largest + 1)).to_bytes(width, chance.choice(("big", "little")))
    return bytes(changed)


def _spans(photo: bytes) -> list[tuple[int, int]]:
    """The bounds of a PNG's chunks or a JPEG's segments, a few at most; else of words in the first kilobyte."""
    spans = []
    if photo.startswith((b"\x89PNG", b"\xff\xd8")):
        at, is_png = (8, True) if photo.startswith(b"\x89PNG") else (2, False)
        while at + 4 <= len(photo) and len(spans) < 50 and (is_png or photo[at] == 0xFF):
            length = struct.unpack_from(">I", photo, at)[0] + 12 if is_png else photo[at + 2] * 256 + photo[at + 3] + 2
            spans.append((at, at + length))
            at += length
    return spans or [(at, at + 4) for at in range(0, max(1, min(len(photo), 1024)), 4)]


def _typed(chance: random.Random, photo: bytes, _: bytes) -> HttpRequest:
    body = photo if chance.random() < 0.5 else form(photo)
    return bare(body, chance.choice(CONTENT_TYPES))


def _named(chance: random.Random, photo: bytes, _: bytes) -> HttpRequest:
    return multipart(photo, chance.choice(FILE_NAMES), chance.choice(("image/jpeg", "text/plain", "", "\u00e4")))


def _form_head(chance: random.Random, photo: bytes, _: bytes) -> HttpRequest:
    """Bytes of the form around the photo changed."""
    body = bytearray(form(photo))
    around = [*range(140), *range(len(body) - 30, len(body))]
    for _number in range(chance.choice((1, 2, 5))):
        body[chance.choice(around)] = chance.choice(b'\r\n\0-":;= \xff' + bytes([chance.randrange(256)]))
    return bare(bytes(body), f"multipart/form-data; boundary={BOUNDARY}")


def _form_parts(chance: random.Random, photo: bytes, other: bytes) -> HttpRequest:
    """A form that is cut, doubled, empty, has other fields, or too much of something."""
    whole, end = form(photo), f"--{BOUNDARY}--\r\n".encode()
    opening = f"--{BOUNDARY}\r\n".encode()
    body: bytes = chance.choice(
        (
            whole[: chance.randrange(len(whole))],
            whole[: -len(end)],
            whole[: -len(end)] + form(other),
            form(photo, field="photo"),
            form(photo, field=""),
            form(b""),
            end,
            opening,
            opening + b"\r\n" + photo + b"\r\n" + end,
            opening + b"Content-Disposition: form-data\r\n\r\n" + photo + b"\r\n" + end,
            opening + b"Content-Disposition: attachment; name=file\r\n\r\n" + photo + b"\r\n" + end,
            opening + b'Content-Disposition: form-data; name="file"\r\n\r\ntext\r\n' + end,
            opening + b"X: " + b"y" * 100_000 + b"\r\n\r\n" + photo + b"\r\n" + end,
            opening + b"X: y\r\n" * 5000 + b"\r\n" + photo + b"\r\n" + end,
            whole.replace(b"Content-Type", b"Content-Transfer-Encoding: base64\r\nContent-Type"),
            (opening + b'Content-Disposition: form-data; name="a"\r\n\r\nb\r\n') * chance.choice((3, 200)) + whole,
            b"\r\n" * chance.choice((1, 50)) + whole,
            b"preamble" + whole,
            whole + b"epilogue" * 100,
            whole.replace(b"\r\n", b"\n"),
        )
    )
    return bare(body, f"multipart/form-data; boundary={BOUNDARY}")


_PHOTO_KINDS: dict[str, Callable[[random.Random, bytes, bytes], bytes]] = {
    "bits": _bits,
    "cut": _cut,
    "head": _head,
    "sizes": _sizes,
    "segments": _segments,
    "spliced": _spliced,
    "parts": _parts,
    "lengths": _lengths,
}
_REQUEST_KINDS: dict[str, Callable[[random.Random, bytes, bytes], HttpRequest]] = {
    "type": _typed,
    "name": _named,
    "form head": _form_head,
    "form parts": _form_parts,
}
