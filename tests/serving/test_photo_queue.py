"""The queue: photos of disconnected clients are dropped, no photo waits forever, and clients take turns."""

import asyncio
import io
import threading
import time

import pytest
from PIL import Image
from starlette.requests import ClientDisconnect, Request

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.photo_queue import PhotoQueue
from catsdogs_lib.serving.problems import ProblemError
from catsdogs_lib.serving.settings import ServiceSettings


class Sender:
    """A client whose request is disconnected by `leave`."""

    def __init__(self, address: str) -> None:
        self._left = asyncio.Event()
        self.request = Request({"type": "http", "client": (address, 1)}, self._receive)

    async def _receive(self):
        await self._left.wait()
        return {"type": "http.disconnect"}

    def leave(self):
        self._left.set()


class Work:
    """Processing that waits for `go_on`, and records the order of the photos."""

    def __init__(self) -> None:
        self.order: list[bytes] = []
        self.go_on = threading.Event()

    def __call__(self, photo: bytes) -> bytes:
        assert self.go_on.wait(20)
        self.order.append(photo)
        return photo


def run(scenario, **settings):
    """Run a scenario with a queue for one photo at a time."""
    work = Work()

    async def play():
        queue = PhotoQueue(ServiceSettings(concurrency=1, **settings))

        def enter(sender, photo):
            return asyncio.create_task(queue.run(work, photo, sender.request))

        tasks = await scenario(enter, work)
        work.go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        # Whatever has happened: the next one gets its turn.
        assert (await asyncio.wait_for(enter(Sender("later"), b"later"), 10))[0] == b"later"
        return results

    results = asyncio.run(play())
    assert work.order.pop() == b"later"
    return results, work.order


def test_a_photo_whose_client_has_left_is_dropped_before_its_turn():
    async def scenario(enter, _):
        first, gone, stays = Sender("a"), Sender("b"), Sender("c")
        tasks = [enter(first, b"first"), enter(gone, b"gone"), enter(stays, b"stays")]
        await asyncio.sleep(0.05)
        gone.leave()
        await asyncio.wait([tasks[1]], timeout=5)
        return tasks

    results, order = run(scenario)
    assert order == [b"first", b"stays"]
    assert isinstance(results[1], ClientDisconnect)


def test_all_may_leave_at_the_moment_of_their_turn():
    async def scenario(enter, work):
        senders = [Sender("a") for _ in range(8)]
        tasks = [enter(sender, b"%d" % number) for number, sender in enumerate(senders)]
        await asyncio.sleep(0.05)
        work.go_on.set()
        # Blocks the loop: the first photo is done before any client leaves, and its turn not yet passed on.
        time.sleep(0.05)
        for sender in senders:
            sender.leave()
        return tasks

    results, _ = run(scenario)
    assert all(isinstance(result, ClientDisconnect | tuple) for result in results)


def test_a_photo_that_waits_too_long_is_refused():
    async def scenario(enter, _):
        tasks = [enter(Sender("a"), b"first"), enter(Sender("b"), b"late")]
        await asyncio.wait([tasks[1]], timeout=5)
        return tasks

    results, order = run(scenario, queue_seconds=0.1)
    assert order == [b"first"]
    assert isinstance(results[1], ProblemError)
    assert results[1].kind == problems.BUSY
    assert results[1].headers["retry-after"]


def test_a_cancelled_photo_keeps_no_place():
    async def scenario(enter, _):
        tasks = [enter(Sender("a"), b"first"), enter(Sender("b"), b"cancelled"), enter(Sender("c"), b"last")]
        await asyncio.sleep(0.05)
        tasks[1].cancel()
        return tasks

    results, order = run(scenario, max_waiting=2)
    assert order == [b"first", b"last"]
    assert isinstance(results[1], asyncio.CancelledError)


def test_clients_take_turns():
    async def scenario(enter, _):
        many, few = Sender("many"), Sender("few")
        tasks = [enter(many, b"many %d" % number) for number in range(4)]
        await asyncio.sleep(0.05)
        tasks += [enter(few, b"few %d" % number) for number in range(2)]
        await asyncio.sleep(0.05)
        return tasks

    _, order = run(scenario)
    assert order == [b"many 0", b"many 1", b"few 0", b"many 2", b"few 1", b"many 3"]


@pytest.fixture(scope="module")
def expensive() -> bytes:
    """A small file that takes a few hundred milliseconds: 12 megapixels of one colour, WebP."""
    stream = io.BytesIO()
    Image.new("RGB", (4096, 3072), (90, 120, 60)).save(stream, "WEBP", quality=30)
    return stream.getvalue()


def test_expensive_photos_of_clients_that_have_left_do_not_delay_the_next(served, expensive, photo):
    def answered():
        with served.connect() as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            received = b""
            while data := connection.recv(65536):
                received += data
        (line,) = (line for line in received.splitlines() if line.startswith(b"prediction_latency_seconds_count"))
        return float(line.split()[1])

    before = answered()
    connections = [served.connect() for _ in range(20)]
    for connection in connections:
        connection.sendall(served.head(len(expensive), "image/webp") + expensive)
    for connection in connections:
        connection.close()
    assert served.post(photo)[0] == 200
    # What ran when its client left is completed, and what waited is not begun.
    assert answered() - before <= 4
