"""Misleading requests: truncated forms, encoded bodies, bodies that a gateway treated as text."""

import base64
import gzip
from collections.abc import Iterator

from mutations import BOUNDARY, Mutation, bare, form, multipart

from catsdogs_lib.client.messages import HttpRequest

MAX_BODY_BYTES = 24 * 2**20


def requests(photo: bytes) -> Iterator[Mutation]:
    """Make every request out of a photo; their names say what is wrong with them."""
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    whole = form(photo)
    encoded = form(base64.encodebytes(photo)).replace(
        b"Content-Type:", b"Content-Transfer-Encoding: base64\r\nContent-Type:", 1
    )
    yield Mutation("gzip with Content-Encoding", encoded_body(gzip.compress(photo, mtime=0), "gzip"))
    yield Mutation("gzip that inflates to 200 MiB", encoded_body(gzip.compress(bytes(200 * 2**20), mtime=0), "gzip"))
    yield Mutation("deflate with Content-Encoding", encoded_body(photo, "deflate"))
    yield Mutation("base64 text as the body", bare(base64.b64encode(photo)))
    yield Mutation("data URI as the body", bare(b"data:image/jpeg;base64," + base64.b64encode(photo)))
    yield Mutation("base64 text as text/plain", bare(base64.b64encode(photo), "text/plain"))
    yield Mutation("base64 part of a form", bare(encoded, content_type))
    yield Mutation("text through a gateway", bare(photo.decode(errors="replace").encode()))
    yield Mutation("form through a gateway", bare(whole.decode(errors="replace").encode(), content_type))
    yield Mutation("form cut off before its last boundary", bare(whole[: -len(BOUNDARY) - 8], content_type))
    yield Mutation("form cut off in the photo", bare(whole[: len(whole) // 2], content_type))
    yield Mutation("form cut off in its head", bare(whole[:60], content_type))
    yield Mutation("form of nothing", bare(b"", content_type))
    yield Mutation("form without a boundary", bare(whole, "multipart/form-data"))
    yield Mutation("form with epilogue", bare(whole + b"epilogue", content_type))
    yield Mutation("form with 1000 fields", bare(form(b"x", field="other") * 1000 + whole, content_type))
    yield Mutation("photo of another name", multipart(photo, "photo.heic", "image/heic"))
    yield Mutation("24 MiB of boundaries that are none", boundaries())


def encoded_body(body: bytes, encoding: str) -> HttpRequest:
    """Make a request with a Content-Encoding."""
    return HttpRequest("POST", "/predict", "", (("content-type", "image/jpeg"), ("content-encoding", encoding)), body)


def boundaries(size: int = MAX_BODY_BYTES) -> HttpRequest:
    """Make a form whose photo is nothing but beginnings of a boundary."""
    head, line = b'--X\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n', b"\r\n--Xy"
    return bare(head + line * ((size - len(head)) // len(line)), "multipart/form-data; boundary=X")
