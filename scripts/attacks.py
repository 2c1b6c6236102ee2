"""Attacks on `catsdogs serve` with slow, parallel, contradictory or abandoned requests."""

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from server_process import HEALTH, HealthProber, ServerProcess, send
from soak import wire

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from hostile_files import make, saved  # noqa: E402
from hostile_requests import MAX_BODY_BYTES, boundaries  # noqa: E402
from mutations import bare, multipart  # noqa: E402

Figures = dict[str, float | int | str]
SERVE = ("serve", "--bundle", "models/reference")
PHOTO = wire(multipart(saved("JPEG")))
POST = b"POST /predict HTTP/1.1\r\nhost: attack\r\ncontent-type: image/jpeg\r\n"
SLOW_SECONDS = 30.0
"""Duration of a sustained attack."""


def boundaries_that_are_none(log: Path) -> Figures:
    """Send 24 MiB of beginnings of a boundary."""
    with ServerProcess(SERVE, log) as server, HealthProber(server.port) as prober:
        answer = server.ask(wire(boundaries()))
        time.sleep(0.3)
        return {"status": answer.status, "seconds": answer.seconds} | _load(server, prober)


def chunks_of_one_byte(log: Path) -> Figures:
    """Send one-byte chunks as fast as they are taken."""
    with ServerProcess(SERVE, log) as server, HealthProber(server.port) as prober, server.connect(1) as connection:
        connection.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
        _send_for(connection, b"1\r\nA\r\n" * 2**13, SLOW_SECONDS)
        status = _status(connection)
        return {"status": status} | _load(server, prober)


def abandoned_requests(log: Path) -> Figures:
    """Send 20 photos of a kilobyte that decode to 12 megapixels, disconnect early, then send an honest one."""
    return _abandon(log, make("rle_fill_1kB.bmp"))


def abandoned_photos(log: Path) -> Figures:
    """Send 20 photos as expensive as any that is accepted, disconnect after half a second, then send an honest one."""
    return _abandon(log, make("lossless_12_megapixels.webp"))


def _abandon(log: Path, photo: bytes) -> Figures:
    with ServerProcess(SERVE, log) as server, HealthProber(server.port) as prober:
        raw = wire(bare(photo))
        connections = [server.connect() for _ in range(20)]
        for connection in connections:
            threading.Thread(target=send, args=(connection, raw), daemon=True).start()
        time.sleep(0.5)
        for connection in connections:
            connection.close()
        return _honest(server) | _load(server, prober)


def slow_large_bodies(log: Path) -> Figures:
    """Send five bodies of 24 MiB whose last bytes trickle in, and honest photos meanwhile."""
    length = MAX_BODY_BYTES - 512
    head = POST + b"content-length: %d\r\n\r\n" % length
    return _starve(log, head, lambda connection: connection.sendall(b"A" * (length - 256)))


def steady_large_bodies(log: Path) -> Figures:
    """Send five bodies just under 24 MiB at a rate that barely meets the time limit, and honest photos meanwhile."""
    head = POST + b"content-length: %d\r\n\r\n" % (MAX_BODY_BYTES - 1024)

    def steady(connection: socket.socket) -> None:
        for _ in range(int(SLOW_SECONDS * 5)):
            connection.sendall(b"A" * (MAX_BODY_BYTES // 155))
            time.sleep(0.2)

    return _starve(log, head, steady)


def _starve(log: Path, head: bytes, sending: Callable[[socket.socket], None]) -> Figures:
    with ServerProcess(SERVE, log) as server, HealthProber(server.port) as prober:

        def hold() -> None:
            try:
                with server.connect(5) as connection:
                    connection.sendall(head)
                    sending(connection)
                    _send_for(connection, b"A", SLOW_SECONDS, 0.2)
            except OSError:
                return  # refused, as intended

        for _ in range(5):
            threading.Thread(target=hold, daemon=True).start()
        time.sleep(1)
        statuses: Counter[int] = Counter()
        longest = 0.0
        end = time.monotonic() + SLOW_SECONDS - 2
        while time.monotonic() < end:
            answer = server.ask(PHOTO)
            statuses[answer.status] += 1
            longest = max(longest, answer.seconds)
            time.sleep(0.25)
        figures: Figures = {"photos answered": statuses[200], "photos refused": statuses.total() - statuses[200]}
        return figures | {"slowest photo": longest} | _load(server, prober)


def idle_connections(log: Path) -> Figures:
    """Open 300 connections to a server that may open 256 files, for ten seconds; then ask for an honest photo."""
    limited = ("bash", "-c", 'ulimit -n 256 && exec "$@"', "bash")
    with ServerProcess(SERVE, log, limited) as server:
        connections = []
        before = log.read_bytes().count(b"\n")
        for _ in range(300):
            try:
                connections.append(server.connect(1))
            except OSError:
                break
        began = server.tree.cpu_seconds()
        health = server.ask(HEALTH, 2)
        time.sleep(10)
        figures: Figures = {
            "connections": len(connections),
            "lines of log": log.read_bytes().count(b"\n") - before,
            "cpu": server.tree.cpu_seconds() - began,
            "health meanwhile": health.status,
        }
        for connection in connections:
            connection.close()
        time.sleep(0.5)
        return figures | _honest(server)


def smuggled_request(log: Path) -> Figures:
    """Send Content-Length and Transfer-Encoding in one message, with a second request hidden between the two."""
    hidden = b"GET /version HTTP/1.1\r\nhost: attack\r\n\r\n"
    with ServerProcess(SERVE, log) as server, server.connect(5) as connection:
        body = b"0\r\n\r\n" + hidden
        connection.sendall(POST + b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n" % len(body) + body)
        received = _read(connection)
        answers = received.count(b"HTTP/1.1 ")
        return {"answers": answers, "unexpected answers": abs(answers - 1), "statuses": _statuses(received)}


def absolute_target(log: Path) -> Figures:
    """Send a photo with an absolute-form target, as through a forward proxy."""
    with ServerProcess(SERVE, log) as server:
        absolute = b"POST http://127.0.0.1:%d/predict " % server.port
        return _honest(server, PHOTO.replace(b"POST /predict ", absolute, 1))


class Attack(NamedTuple):
    """An attack, and the most that each of its figures may be."""

    launch: Callable[[Path], Figures]
    limits: dict[str, float]

    @property
    def name(self) -> str:
        """Its name in words."""
        return self.launch.__name__.replace("_", " ")

    def violations(self, figures: Figures) -> list[str]:
        """Name the figures that exceed their limits."""
        values = {name: float(figures[name]) for name in self.limits}
        return [f"{name} is {value:g}" for name, value in values.items() if not value <= self.limits[name]]


ATTACKS = (
    Attack(boundaries_that_are_none, {"failed health": 0}),
    Attack(chunks_of_one_byte, {"failed health": 0}),
    Attack(abandoned_requests, {"photos refused": 0, "seconds": 5}),
    Attack(abandoned_photos, {"photos refused": 0, "seconds": 5}),
    Attack(slow_large_bodies, {"photos refused": 0}),
    Attack(steady_large_bodies, {"photos refused": 0}),
    Attack(idle_connections, {"lines of log": 100, "photos refused": 0}),
    Attack(smuggled_request, {"unexpected answers": 0}),
    Attack(absolute_target, {"photos refused": 0}),
)


def _honest(server: ServerProcess, raw: bytes = PHOTO) -> Figures:
    """Send an honest photo; no answer counts as refused, too."""
    answer = server.ask(raw)
    return {"status": answer.status, "photos refused": int(answer.status != 200), "seconds": answer.seconds}


def _load(server: ServerProcess, prober: HealthProber) -> Figures:
    return {
        "cpu": server.tree.cpu_seconds(),
        "peak memory": max(server.tree.peaks().values()),
        "worst health": prober.worst,
        "failed health": prober.failures,
    }


def _send_for(connection: socket.socket, data: bytes, seconds: float, pause: float = 0.0) -> None:
    """Send the same bytes again and again, until the time is up or the connection is closed."""
    end, rest = time.monotonic() + seconds, b""
    while time.monotonic() < end:
        rest = rest or data
        try:
            rest = rest[connection.send(rest) :]
        except TimeoutError:
            continue
        except OSError:
            return
        time.sleep(pause)


def _status(connection: socket.socket) -> int:
    """The status of the first answer; 0 if there is none."""
    statuses = _statuses(_read(connection))
    return int(statuses.split()[0]) if statuses else 0


def _statuses(received: bytes) -> str:
    return " ".join(part[:3].decode() for part in received.split(b"HTTP/1.1 ")[1:])


def _read(connection: socket.socket) -> bytes:
    """Read until the connection is closed, or nothing comes."""
    received = b""
    connection.settimeout(2)
    try:
        while part := connection.recv(2**16):
            received += part
    except OSError:
        pass
    return received
