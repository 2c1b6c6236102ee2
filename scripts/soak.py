"""Let strangers at `catsdogs serve` for some minutes: good photos, hostile ones, slow senders, and a restart.

    python scripts/soak.py [--minutes 10] [--after-seconds 60] [--clients 4] [--no-restart] [--photos FOLDER]
                              [--edge FOLDER]

Every client opens one connection a request and asks again when it is answered; one request in ten is hostile. Some
send a byte a second. After the minutes, in which memory is measured, the server gets SIGTERM and another takes its
port for some seconds more. Ends with 1 where an answer is neither a prediction nor a problem document, a request is
lost after its connection was made, memory has grown, or a slow sender is not ended. Only 127.0.0.1 is asked.
"""

import argparse
import contextlib
import http.client
import io
import itertools
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from catsdogs_lib.client.messages import HttpRequest
from catsdogs_lib.data.synthetic.render import draw

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("CATSDOGS_SHARED", ROOT / "../shared")).resolve() / "data"
sys.path[:0] = [str(ROOT / "tests")]

from hostile_files import bomb  # noqa: E402
from mutations import bare, multipart, mutations  # noqa: E402

HOSTILE = 0.1
"""Share of requests that are hostile."""
GROWTH = 16e6
"""Bytes that the process may hold more in its last minute than in its second."""
HEAD_SECONDS, BODY_SECONDS = 15.0, 40.0
"""So long a sender of a byte a second may hold a connection, with its head and with its body."""
FIELDS = {"type", "title", "status", "detail", "request_id"}


class Server:
    """`catsdogs serve` as a process on a port that stays the same."""

    def __init__(self, port: int, log: Path) -> None:
        self._log = log.open("ab")
        command = [sys.executable, "-m", "catsdogs_lib", "serve", "--bundle", ROOT / "models" / "reference"]
        for _ in range(30):
            self.process = subprocess.Popen(
                [*command, "--port", str(port)], stdout=self._log, stderr=subprocess.PIPE, text=True
            )
            assert self.process.stderr
            if match := re.search(r"http://\S+:(\d+)", self.process.stderr.readline()):
                self.port = int(match[1])
                self.rss: list[tuple[float, float]] = []
                self.began = time.monotonic()
                return
            self.process.wait()
            time.sleep(0.1)  # the one before still holds the port
        raise SystemExit("the server does not start")

    def sample(self) -> None:
        """Note how much memory it holds."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            if match := re.search(r"VmRSS:\s+(\d+) kB", status):
                self.rss.append((time.monotonic() - self.began, int(match[1]) * 1024.0))

    def watch(self, seconds: float) -> None:
        """Sample once a second for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(1)
            self.sample()

    def growth(self) -> tuple[float, float, float]:
        """Bytes in the second minute, in the last one, and the most ever; of a short run a quarter is a minute."""
        lasted = self.rss[-1][0]
        minute = min(60.0, lasted / 4)
        early = [size for at, size in self.rss if minute <= at < 2 * minute]
        late = [size for at, size in self.rss if at >= lasted - minute]
        return statistics.median(early), statistics.median(late), max(size for _, size in self.rss)


class Soak:
    """What all clients share: where to ask, what came of it."""

    def __init__(self, photos: list[bytes], hostile: Iterator[tuple[str, bytes]]) -> None:
        self.photos, self._hostile = photos, hostile
        self._lock = threading.Lock()
        self.port = 0
        self.elapsed = 0.0
        self.end = threading.Event()
        self.answers: Counter[str] = Counter()
        self.refused_connections = 0
        self.violations: list[str] = []
        self.seconds: list[float] = []
        self.health: list[float] = []
        self.slow: Counter[str] = Counter()

    def hostile(self) -> tuple[str, bytes]:
        """The next hostile request."""
        with self._lock:
            return next(self._hostile)

    def violated(self, what: str) -> None:
        """Note that something is not as promised."""
        with self._lock:
            self.violations.append(what)
            if len(self.violations) <= 20:
                print(f"VIOLATED {what}", flush=True)

    def client(self, seed: int) -> None:
        """Ask again and again."""
        chance = random.Random(seed)
        while not self.end.is_set():
            hostile = chance.random() < HOSTILE
            name, raw = self.hostile() if hostile else ("photo", wire(multipart(chance.choice(self.photos))))
            began = time.perf_counter()
            status = self.ask(name, raw)
            if status is None:
                time.sleep(0.05)
                continue
            with self._lock:
                self.answers[f"{'hostile' if hostile else 'photo'} {status}"] += 1
                if not hostile:
                    self.seconds.append(time.perf_counter() - began)
            if not hostile and status != 200:
                self.violated(f"a good photo got {status}")

    def ask(self, name: str, raw: bytes) -> int | None:
        """Send one request; its status, or None where no connection was made."""
        try:
            connection = socket.create_connection(("127.0.0.1", self.port), 0.5)
        except OSError:
            self.refused_connections += 1
            return None
        with connection:
            connection.settimeout(60)
            # Who refuses a body may answer before it has been sent whole.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(raw)
            try:
                response = http.client.HTTPResponse(connection)
                response.begin()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.violated(f"{name}: connected, but no answer ({type(error).__name__}: {error})")
                return 0
        if (fault := fault_of(response, body)) is not None:
            self.violated(f"{name}: {response.status} {fault}")
        return response.status

    def prober(self) -> None:
        """Ask once a second whether the server is alive, as a host would."""
        while not self.end.wait(1):
            began = time.perf_counter()
            if self.ask("health", b"GET /health HTTP/1.1\r\nhost: soak\r\nconnection: close\r\n\r\n") is not None:
                self.health.append(time.perf_counter() - began)

    def slow_sender(self, kind: str) -> None:
        """Send a byte a second until it is ended."""
        head = b"POST /predict HTTP/1.1\r\nhost: soak\r\ncontent-type: image/jpeg\r\ncontent-length: 30000\r\n\r\n"
        sent_at_once, allowed = (head, BODY_SECONDS) if kind == "body" else (b"", HEAD_SECONDS)
        while not self.end.is_set():
            try:
                connection = socket.create_connection(("127.0.0.1", self.port), 0.5)
            except OSError:
                time.sleep(1)
                continue
            began, rest = time.monotonic(), iter(head if kind == "head" else itertools.repeat(0x41))
            with connection:
                connection.settimeout(1)
                answer = b""
                try:
                    connection.sendall(sent_at_once)
                    while not self.end.is_set():
                        connection.sendall(bytes([next(rest)]))
                        with contextlib.suppress(TimeoutError):
                            answer = connection.recv(65536)
                            break
                except OSError:
                    pass
            if not self.end.is_set():
                lasted = time.monotonic() - began
                self.slow[f"slow {kind}: {answer[9:12].decode() or 'closed'}"] += 1
                if lasted > allowed:
                    self.violated(f"a slow {kind} was not ended within {allowed:g} s, but in {lasted:.0f}")
                if answer and b"application/problem+json" not in answer and not answer.startswith(b"HTTP/1.1 200"):
                    self.violated(f"a slow {kind} got {answer[:80]!r}")


def fault_of(response: http.client.HTTPResponse, body: bytes) -> str | None:
    """What is wrong with an answer; None where it is a prediction or a problem document."""
    try:
        content = json.loads(body)
    except ValueError:
        return f"no JSON: {body[:100]!r}"
    if response.status == 200:
        return None if "prediction" in content or content == {"status": "alive"} else f"no prediction: {body[:100]!r}"
    if response.getheader("content-type") != "application/problem+json" or not set(content) >= FIELDS:
        return f"no problem document: {body[:200]!r}"
    return f"a mistake of ours: {body[:300]!r}" if response.status == 500 else None


def wire(request: HttpRequest, length: bool = True, extra: bytes = b"") -> bytes:
    """A request as bytes; without a length its body comes in chunks."""
    lines = [f"{request.method} {request.path} HTTP/1.1".encode(), b"host: soak", b"connection: close"]
    lines += [name.encode() + b": " + value.encode() for name, value in request.headers]
    if length:
        return b"\r\n".join([*lines, b"content-length: %d" % len(request.body)]) + extra + b"\r\n\r\n" + request.body
    size = 65521
    parts = (request.body[at : at + size] for at in range(0, len(request.body), size))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"\r\n".join([*lines, b"transfer-encoding: chunked"]) + extra + b"\r\n\r\n" + chunks + b"0\r\n\r\n"


def hostile_requests(photos: list[bytes], edge: Path, seed: int) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of hostile requests, without end."""
    chance = random.Random(seed)
    files = [(path.name, path.read_bytes()) for path in sorted(edge.rglob("*")) if path.is_file()]
    files += [(f"bomb {width} x {height}", bomb(width, height)) for width, height in ((60000, 60000), (9000, 9000))]
    large = photos[0] + bytes(25 * 2**20)
    changed = itertools.chain.from_iterable(mutations(photos, 1000, number) for number in itertools.count())
    for number in itertools.count():
        match number % 10:
            case 0 | 1 | 2:
                name, data = chance.choice(files)
                yield name, wire(chance.choice((bare, multipart))(data))
            case 3:
                yield "25 MiB", wire(bare(large), chance.random() < 0.5)
            case 4:
                yield (
                    "broken HTTP",
                    chance.choice(
                        (
                            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
                            b"GET\r\n\r\n",
                            b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
                            b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
                        )
                    ),
                )
            case 5:
                yield "chunked", wire(multipart(chance.choice(photos)), length=False)
            case 6:
                method, path = (
                    chance.choice(("GET", "PUT", "DELETE", "TRACE")),
                    chance.choice(("/predict", "/../..", "/%00")),
                )
                yield f"{method} {path}", wire(HttpRequest(method, path))
            case _:
                mutated = next(changed)
                yield mutated.name, wire(mutated.request)


def read_photos(folder: Path) -> list[bytes]:
    """Some photos of a folder; drawn pictures where there are none."""
    photos = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[::25]]
    if not photos:
        for kind, seed in itertools.product(("cat", "dog"), range(15)):
            stream = io.BytesIO()
            draw(kind, seed, (500, 375)).save(stream, "JPEG", quality=88)
            photos.append(stream.getvalue())
    return photos


def run(soak: Soak, options: argparse.Namespace, log: Path) -> list[Server]:
    """Let all clients loose, for as long as was asked; the servers that there were."""
    servers = [Server(0, log)]
    soak.port = servers[0].port
    work = [(soak.client, (number,)) for number in range(options.clients)]
    work += [(soak.slow_sender, (kind,)) for kind in ("head", "body") for _ in range(options.slow)]
    threads = [
        threading.Thread(target=target, args=arguments, daemon=True) for target, arguments in (*work, (soak.prober, ()))
    ]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    servers[0].watch(options.minutes * 60)
    if not options.no_restart:
        servers[0].process.send_signal(signal.SIGTERM)
        servers.append(Server(soak.port, log))
        servers[1].watch(options.after_seconds)
    soak.elapsed = time.monotonic() - began
    soak.end.set()
    for thread in threads:
        thread.join(70)
    for server in servers:
        server.process.terminate()
        if (code := server.process.wait(60)) not in (0, -signal.SIGTERM):
            soak.violated(f"the server ended with {code}")
    return servers


def show(soak: Soak, servers: list[Server]) -> None:
    """Print what came of it, and judge memory."""
    table = Table(title=f"{soak.elapsed / 60:.1f} minutes", title_justify="left", show_header=False)
    total = sum(soak.answers.values())
    table.add_row("answers", f"{total} ({total / soak.elapsed:.0f} a second)")
    table.add_row("by status", ", ".join(f"{name}: {count}" for name, count in sorted(soak.answers.items())))
    times = sorted(soak.seconds)
    quantiles = ", ".join(
        f"{name} {times[int(q * (len(times) - 1))] * 1e3:.0f}"
        for name, q in (("median", 0.5), ("99 %", 0.99), ("most", 1))
    )
    table.add_row("ms for a good photo", quantiles)
    table.add_row(
        "ms for a health check", f"median {statistics.median(soak.health) * 1e3:.0f}, most {max(soak.health) * 1e3:.0f}"
    )
    table.add_row("slow senders", ", ".join(f"{name}: {count}" for name, count in sorted(soak.slow.items())))
    table.add_row("connections not made", f"{soak.refused_connections} (while the server was exchanged)")
    # The one after the restart lives too short to be judged.
    early, late, most = servers[0].growth()
    figures = (early, late, late - early, GROWTH, most)
    table.add_row(
        "MB, first server",
        "{:.1f} in its second minute, {:.1f} in its last: {:+.1f}, {:g} allowed; {:.1f} most".format(
            *(figure / 1e6 for figure in figures)
        ),
    )
    if late - early > GROWTH:
        soak.violated(f"memory of the server grew by {(late - early) / 1e6:.1f} MB")
    for number, server in enumerate(servers, 1):
        step = max(1, len(server.rss) // 40)
        series = " ".join(f"{size / 1e6:.0f}" for _, size in server.rss[::step])
        table.add_row(f"MB over time, server {number}", f"every {step} s: {series}")
    table.add_row("violations", str(len(soak.violations)), style="red" if soak.violations else "green")
    Console(width=160).print(table)


def main() -> None:
    """Run; ends with 1 where something was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="of the server whose memory is measured")
    parser.add_argument("--after-seconds", type=float, default=60, help="of the server after the restart")
    parser.add_argument("--clients", type=int, default=4, help="that ask in a closed loop")
    parser.add_argument("--slow", type=int, default=2, help="senders of a byte a second, of heads and of bodies each")
    parser.add_argument("--no-restart", action="store_true", help="no SIGTERM, and no second server")
    parser.add_argument("--photos", type=Path, default=SHARED / "pets" / "test", help="good photos, else drawn ones")
    parser.add_argument("--edge", type=Path, default=SHARED / "edge", help="hostile files, where there are any")
    options = parser.parse_args()
    photos = read_photos(options.photos)
    soak = Soak(photos, hostile_requests(photos, options.edge, 0))
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        servers = run(soak, options, Path(folder) / "server.log")
    show(soak, servers)
    raise SystemExit(1 if soak.violations else 0)


if __name__ == "__main__":
    main()
