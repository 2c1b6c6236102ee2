"""The sample events are what their script makes, and small."""

import base64
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "lambda" / "events"


@pytest.fixture(scope="module")
def made():
    spec = importlib.util.spec_from_file_location("make_events", ROOT / "scripts" / "make_events.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.events())


def split(event):
    """The event without its photo, and the photo's pixels, where it carries one."""
    body = base64.b64decode(event["body"]) if event.get("isBase64Encoded") else b""
    begin, end = body.find(b"\xff\xd8"), body.rfind(b"\xff\xd9") + 2
    if begin < 0 or end < 2:
        return event, None
    pixels = np.asarray(Image.open(io.BytesIO(body[begin:end])), dtype=np.int16)
    # Another processor may round a pixel differently, and then the file has another length.
    headers = {name: value for name, value in event["headers"].items() if name.lower() != "content-length"}
    return {**event, "headers": headers, "body": [body[:begin], body[end:]]}, pixels


def test_making_the_events_again_changes_nothing(made):
    kept = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
    assert set(kept) == set(made)
    for name, event in made.items():
        (found, pixels), (wanted, drawn) = split(kept[name]), split(json.loads(json.dumps(event)))
        if name == "function_url_cut_off":
            continue  # a third of the file above, and no picture
        assert found == wanted, name
        assert (pixels is None) == (drawn is None), name
        if pixels is not None:
            assert np.abs(pixels - drawn).max() <= 8, name


def test_every_payload_carries_a_photo_both_ways(made):
    carrying = {name for name, event in made.items() if split(event)[1] is not None}
    kinds = ("function_url", "http_api", "rest")
    assert carrying == {f"{kind}_{way}" for kind in kinds for way in ("multipart", "bare")}


def test_events_are_small():
    assert max(path.stat().st_size for path in FOLDER.glob("*.json")) < 30_000
