"""Drawn photos in a folder, the reference bundle, and the command as a process."""

import io
import os
import subprocess
import sys
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.inference.bundle import Bundle

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "models" / "reference"


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return Bundle.load(REFERENCE)


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Some drawn photos, JPEG."""
    drawn = []
    for number in range(6):
        stream = io.BytesIO()
        draw(("cat", "dog")[number % 2], 900 + number).save(stream, "JPEG")
        drawn.append(stream.getvalue())
    return drawn


@pytest.fixture
def folder(tmp_path, pictures) -> Path:
    """A folder of photos with names that are legal, and odd; two of them are no photos."""
    place = tmp_path / "photos"
    (place / "below").mkdir(parents=True)
    for name, picture in zip(("cat.jpg", "below/dog.JPEG", "katze ä 猫.jpg"), pictures, strict=False):
        (place / name).write_bytes(picture)
    (place / "two\nlines.jpg").write_bytes(pictures[3])
    Path(os.fsdecode(os.fsencode(place) + b"/bytes\xff.jpg")).write_bytes(pictures[4])
    (place / "text.png").write_text("no photo")
    (place / "cut.jpg").write_bytes(pictures[5][:2000])
    (place / "notes.txt").write_text("passed over")
    (place / ".hidden.jpg").write_bytes(b"passed over")
    return place


@pytest.fixture
def many(tmp_path, pictures):
    """A folder with so many photos, which are few under many names."""

    def make(count: int) -> Path:
        place = tmp_path / "many"
        place.mkdir()
        for number in range(count):
            name = place / f"{number:05d}.jpg"
            if number < len(pictures):
                name.write_bytes(pictures[number])
            else:
                name.hardlink_to(place / f"{number % len(pictures):05d}.jpg")
        return place

    return make


def start(*arguments: object, **options) -> subprocess.Popen:
    """Start ``catsdogs score`` with the reference bundle."""
    command = [sys.executable, "-m", "catsdogs_lib", "score", *map(str, arguments)]
    if "--bundle" not in command:
        command += ["--bundle", str(REFERENCE)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options)


def score(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Run ``catsdogs score`` to its end."""
    with start(*arguments, **options) as process:
        said, warned = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, said, warned)


@pytest.fixture
def commands():
    """`start` and `score`, which tests cannot import."""
    return start, score


class Counted(SimpleHTTPRequestHandler):
    """Serves files and counts how often each is asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked[self.path] += 1
        self.server.on_ask(self)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """A server of `tmp_path`: its `address`, what was `asked` for, and `on_ask`, called before each answer."""
    pytest.importorskip("aiohttp", reason="fsspec reads http with aiohttp")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Counted, directory=tmp_path))
    server.asked, server.on_ask = Counter(), lambda _: None
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
