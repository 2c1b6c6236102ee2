"""A real Chromium in front of the real server."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parents[2]
# A container has no sandbox for it, and it must not look for the world outside.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Server:
    """`catsdogs serve` as a process of its own."""

    url: str
    log: Path
    process: subprocess.Popen

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def photo_bytes(self) -> int:
        """Bytes of the last photo that reached it."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line["photo_bytes"] for line in lines if "photo_bytes" in line][-1]


@contextlib.contextmanager
def served(bundle: Path, folder: Path, **settings: str):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("catsdogs"), "serve", "--port", str(port), "--bundle", bundle]
    log = folder / f"server-{port}.log"
    with log.open("wb") as stream:
        environment = {**os.environ, **settings}
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)

    server = Server(f"http://127.0.0.1:{port}/", log, process)
    try:
        _wait_for(server)
        yield server
    finally:
        server.stop()


def _wait_for(server: Server) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert server.process.poll() is None, server.log.read_text()
        try:
            with urllib.request.urlopen(f"{server.url}ready", timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()  # it listens, but has no model yet
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"not ready after a minute: {server.log.read_text()}")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a server on a bundle, with settings in its environment, for the length of a `with`."""
    return lambda bundle, **settings: served(bundle, tmp_path_factory.mktemp("served"), **settings)


@pytest.fixture(scope="module")
def server(start, familiar_bundle):
    """Serves that bundle."""
    with start(familiar_bundle.folder) as started:
        yield started


@pytest.fixture(scope="module")
def browser():
    path = find_chromium()
    if path is None:
        pytest.skip("needs Chromium; on Debian 'apt-get install chromium'")
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS, env=dict(os.environ))
        yield started
        started.close()


@dataclass
class Watched:
    """What the browser did: complaints on its console (violations of the policy, too), and every request."""

    complaints: list[str] = field(default_factory=list)
    requests: list = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def listen(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def note(self, request) -> None:
        self.requests.append(request)

    def unexpected(self) -> list[str]:
        return [text for text in self.complaints if not any(part in text for part in self.expected)]


@pytest.fixture
def visit(browser, server):
    """Opens the page; at the end no complaint and no request to anywhere else is left unexplained."""
    with contextlib.ExitStack() as opened:
        visits = []

        def visit_page(url=None, **options):
            options = {"viewport": {"width": 1200, "height": 860}, "reduced_motion": "reduce", **options}
            context = browser.new_context(**options)
            opened.callback(context.close)
            context.grant_permissions(["clipboard-read", "clipboard-write"])
            context.add_init_script(
                "addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective))"
            )
            page = context.new_page()
            page.set_default_timeout(20_000)
            page.watched = Watched()
            page.on("console", page.watched.listen)
            page.on("pageerror", lambda error: page.watched.complaints.append(str(error)))
            page.on("request", page.watched.note)
            page.goto(url or server.url)
            visits.append(page)
            return page

        yield visit_page
        for page in visits:
            assert page.watched.unexpected() == []
            origins = ("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:")
            assert [r.url for r in page.watched.requests if not r.url.startswith(origins)] == []
