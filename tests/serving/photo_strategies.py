"""What schemathesis sends as a photo; it loads this file by SCHEMATHESIS_HOOKS."""

import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image

PHOTO_NAMES = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@st.composite
def photos(draw):
    """Small photos of every format that is read, some cut off, and what is none."""
    size = (draw(st.integers(1, 300)), draw(st.integers(1, 300)))
    colour = tuple(draw(st.lists(st.integers(0, 255), min_size=3, max_size=3)))
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, draw(st.sampled_from(PHOTO_NAMES)))
    data = stream.getvalue()
    return draw(st.sampled_from((data, data, data[: len(data) // 2], b"text", b"")))


schemathesis.openapi.format("binary", photos())
schemathesis.openapi.media_type("image/*", photos())
