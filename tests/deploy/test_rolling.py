"""Workers on one listening socket are replaced in turn under load: no request is lost."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catsdogs_lib.inference.bundle import Bundle

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "models" / "reference"


class Workers:
    """`catsdogs serve --fd` on one socket, which this process holds but never accepts on."""

    def __init__(self):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(2048)
        self.port = self.listener.getsockname()[1]
        self.running = []

    def start(self):
        fd = self.listener.fileno()
        command = [sys.executable, "-m", "catsdogs_lib", "serve", "--fd", str(fd), "--bundle", REFERENCE, "--threads=1"]
        worker = subprocess.Popen(
            command, pass_fds=[fd], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT
        )
        self.running.append(worker)
        said = worker.stderr.readline()
        assert f"http://127.0.0.1:{self.port} " in said, said

    def replace(self):
        """A new one is ready before the oldest is told to go."""
        self.start()
        oldest = self.running[0]
        oldest.send_signal(signal.SIGTERM)
        # uvicorn raises the signal again once everything is answered.
        assert oldest.wait(40) == -signal.SIGTERM
        self.running.pop(0).stderr.close()

    def close(self):
        for worker in self.running:
            worker.kill()
            worker.wait()
            worker.stderr.close()
        self.listener.close()


@pytest.fixture
def workers():
    with contextlib.closing(Workers()) as made:
        made.start()
        made.start()
        yield made


def ask(port, photo):
    """One request on a connection of its own, never tried again; its status, or what went wrong."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        try:
            connection.request("POST", "/predict", photo, {"content-type": "image/png", "connection": "close"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException) as error:
            return repr(error)


@pytest.mark.slow
def test_a_rolling_restart_under_load_loses_no_request(workers):
    photo = Bundle.load(REFERENCE).description.golden[0].data
    a_second, replaced, over = 50, 0, threading.Event()
    with ThreadPoolExecutor(64) as pool:
        begin = time.monotonic()

        def load():
            asked = []
            while not over.is_set():
                # By the clock, whatever the answers do: a slow server gets no fewer requests.
                time.sleep(max(0.0, begin + len(asked) / a_second - time.monotonic()))
                asked.append(pool.submit(ask, workers.port, photo))
            return asked

        asking = threading.Thread(target=lambda: found.extend(load()))
        found = []
        asking.start()
        while replaced < 6 or time.monotonic() - begin < 20:
            workers.replace()
            replaced += 1
        over.set()
        asking.join()
        seconds = time.monotonic() - begin
        answers = [one.result() for one in found]
    lost = [answer for answer in answers if answer != 200]
    print(f"{len(answers)} requests in {seconds:.0f} s, {replaced} workers replaced, {len(lost)} lost")
    assert lost == []
    assert len(answers) > 500


def test_a_file_descriptor_that_does_not_listen_gets_a_sentence(tmp_path):
    for made in (lambda: os.open(tmp_path, os.O_RDONLY), lambda: socket.socket().detach()):
        fd = made()
        command = [sys.executable, "-m", "catsdogs_lib", "serve", "--fd", str(fd), "--bundle", REFERENCE]
        done = subprocess.run(command, pass_fds=[fd], capture_output=True, text=True, cwd=ROOT)
        os.close(fd)
        assert done.returncode == 2
        assert done.stderr == (
            f"catsdogs: file descriptor {fd} is no listening TCP socket; pass one down, or name --host and --port\n"
        )
