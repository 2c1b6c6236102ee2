"""The server beside others with the same network on the same cores: throughput, and the wait at equal load.

    python benchmarks/servers.py [--bundle DIR] [--rounds 3] [--seconds 8] [--photo FILE]

Each is set up as its documentation says, and uses every core: ours in one process, theirs in as many workers of one
thread as there are cores. LitServe and BentoML have environments of their own (make bench-tools), torch comes from
the project's. Throughput is that of a closed loop of two clients a core; the wait is measured under one open stream
of requests at a rate that every side keeps up with, each sent when it is due, whether or not others are answered.
"""

import argparse
import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import weights
from comparison import Part, Ratio
from on_lambda import multipart, photo

from catsdogs_lib.inference.bundle import Bundle

ROOT = Path(__file__).parents[1]
RIVALS = ROOT / "benchmarks" / "rivals"
CORES = len(os.sched_getaffinity(0))
OURS = "catsdogs"


@dataclass(frozen=True)
class Side:
    """A server: how it starts, what it is asked, and what is installed for it."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    path: str = "/predict"
    json: bool = False


def sides(folder: Path, bundle: Bundle) -> list[Side]:
    """All servers that can be started here; ``PORT`` in a command stands for its port."""
    torch = {
        "WEIGHTS": str(folder),
        "THREADS": "1",
        "WORKERS": str(CORES),
        "OMP_NUM_THREADS": "1",
        "RIVALS": str(RIVALS),
    }
    uvicorn = (
        sys.executable,
        "-m",
        "uvicorn",
        "handler:app",
        "--port",
        "PORT",
        "--workers",
        str(CORES),
        "--log-level",
        "warning",
    )
    flavour = ("--model-uri", str(folder / "flavour"), "--env-manager", "local")
    mlflow = (sys.executable, "-m", "mlflow", "models", "serve", *flavour, "--port", "PORT", "--workers", str(CORES))
    lit, bento = (ROOT / f".venv-{name}" / "bin" for name in ("litserve", "bentoml"))
    servers = [
        Side(
            OURS,
            (sys.executable, "-m", "catsdogs_lib", "serve", "--port", "PORT"),
            {"CATSDOGS_BUNDLE": str(bundle.folder)},
        ),
        Side("FastAPI, torch eager", uvicorn, torch),
        Side("FastAPI, torch traced", uvicorn, {**torch, "RIVAL": "script"}),
        Side("MLflow models serve", mlflow, torch, "/invocations", json=True),
    ]
    if lit.exists():
        servers.append(Side("LitServe", (str(lit / "python"), "lit.py"), torch))
    if bento.exists():
        command = (str(bento / "python"), "-m", "bentoml", "serve", "bento:Pets", "--port", "PORT")
        servers.append(
            Side("BentoML", command, {**torch, "DO_NOT_TRACK": "True", "BENTOML_HOME": str(folder / "bento")})
        )
    return servers


@contextlib.contextmanager
def running(side: Side, log: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Start a server and wait for its first answer; its port and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [part.replace("PORT", str(port)) for part in side.command]
    environment = {
        **os.environ,
        # MLflow looks there for uvicorn.
        "PATH": f"{Path(command[0]).parent}:{os.environ['PATH']}",
        **side.environment,
        "PORT": str(port),
        "PYTHONPATH": str(ROOT if side.name == OURS else RIVALS),
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=RIVALS, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield port, psutil.Process(process.pid)
    finally:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=8)
        for survivor in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                survivor.kill()
        process.wait()


class Client:
    """One connection that is kept."""

    def __init__(self, side: Side, port: int, data: bytes) -> None:
        request = multipart(data)
        self._path, self._headers, self._body = side.path, dict(request.headers), request.body
        if side.json:
            self._headers = {"content-type": "application/json"}
            table = {"columns": ["photo"], "data": [[base64.b64encode(data).decode()]]}
            self._body = json.dumps({"dataframe_split": table}).encode()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self) -> Any:
        """Ask once; the answer's JSON."""
        self._connection.request("POST", self._path, self._body, self._headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise OSError(f"{response.status}: {body[:200]!r}")
        return json.loads(body)


def wait(side: Side, port: int, data: bytes, log: Path) -> Any:
    """The first answer."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return Client(side, port, data).ask()
        time.sleep(0.1)
    raise SystemExit(f"{side.name} gives no answer:\n{log.read_text()[-3000:]}")


def closed_loop(side: Side, port: int, data: bytes, seconds: float) -> float:
    """Answers a second of two clients a core, each asking as soon as it is answered."""
    counts, end = [], time.perf_counter() + seconds

    def loop() -> None:
        client, count = Client(side, port, data), 0
        while time.perf_counter() < end:
            client.ask()
            count += 1
        counts.append(count)

    began = time.perf_counter()
    threads = [threading.Thread(target=loop) for _ in range(2 * CORES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def open_loop(side: Side, port: int, data: bytes, rate: float, seconds: float) -> list[float]:
    """Seconds from when each request was due to its answer; the same moments for every side."""
    due = np.cumsum(np.random.default_rng(1).exponential(1 / rate, int(rate * seconds)))
    local = threading.local()
    began = time.perf_counter()

    def ask_at(moment: float) -> float:
        if not hasattr(local, "client"):
            local.client = Client(side, port, data)
        time.sleep(max(0.0, began + moment - time.perf_counter()))
        local.client.ask()
        return time.perf_counter() - began - moment

    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(ask_at, due))


def measure(side: Side, data: bytes, rate: float, seconds: float, log: Path) -> dict[str, Any]:
    """Start a server, load it, end it."""
    began = time.perf_counter()
    with running(side, log) as (port, process):
        answer = wait(side, port, data, log)
        first = time.perf_counter() - began
        closed_loop(side, port, data, 2.0)  # each worker has answered once
        throughput = closed_loop(side, port, data, seconds)
        waits = open_loop(side, port, data, rate, seconds)
        family = [process, *process.children(recursive=True)]
        memory = sum(member.memory_full_info().pss for member in family)
    return {
        "start": first,
        "throughput": throughput,
        "p50": float(np.quantile(waits, 0.5)),
        "p99": float(np.quantile(waits, 0.99)),
        "memory": memory,
        "answer": answer,
    }


def main() -> None:
    """Run all; ends with 1 where another is better."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "reference")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--rate", type=float, default=15.0, help="requests a second, where waits are measured")
    parser.add_argument("--photo", type=Path, help="a photo of about 500 pixels")
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle.resolve())
    data = photo(options.photo, (500, 375))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        weights.write(bundle, folder)
        model = [sys.executable, RIVALS / "flavour.py", folder / "flavour"]
        subprocess.run(model, check=True, env={**os.environ, "WEIGHTS": str(folder)}, cwd=folder, capture_output=True)
        all_sides = sides(folder, bundle)
        runs: dict[str, list[dict[str, Any]]] = {side.name: [] for side in all_sides}
        for number in range(options.rounds):
            for side in all_sides[number % 2 :] + all_sides[: number % 2]:
                run = measure(side, data, options.rate, options.seconds, folder / "log")
                runs[side.name].append(run)
                print(
                    f"round {number + 1}, {side.name}: {run['throughput']:.1f}/s, p99 {1e3 * run['p99']:.0f} ms",
                    flush=True,
                )
    if not _part(runs, bundle, options).keep():
        raise SystemExit(1)


def _part(runs: dict[str, list[dict[str, Any]]], bundle: Bundle, options: argparse.Namespace) -> Part:
    ratios, table = [], []
    others = [name for name in runs if name != OURS]
    for what, key, unit, scale, more in (
        ("throughput", "throughput", "/s", 1.0, True),
        ("p99 at equal load", "p99", "ms", 1e3, False),
        ("start to first answer", "start", "s", 1.0, False),
        ("memory", "memory", "MB", 1e-6, False),
    ):
        for name in others:
            ours, theirs = ([scale * run[key] for run in runs[side]] for side in (OURS, name))
            ratios.append(
                Ratio(what, unit, name, ours, theirs, bar=1.0 if key in ("throughput", "p99") else None, more=more)
            )
    for name, side_runs in runs.items():
        keys = ("throughput", "p50", "p99", "start", "memory")
        throughput, p50, p99, start, memory = (statistics.median(run[key] for run in side_runs) for key in keys)
        row = {"server": name, "answers/s": throughput, "p50, ms": 1e3 * p50, "p99, ms": 1e3 * p99}
        table.append({**row, "start, s": start, "memory, MB": 1e-6 * memory})
    seconds = f"{options.seconds:g} s"
    return Part(
        "servers",
        f"As servers on {CORES} cores: bundle {bundle.version}, {bundle.description.preprocessing.size} pixels",
        f"{options.rounds} rounds, a fresh server each, in turn; {seconds} of a closed loop of {2 * CORES} clients, "
        f"then {seconds} of an open stream of {options.rate:g} requests a second (the same moments for all). Ours is "
        f"one process; theirs are {CORES} workers of one torch thread in inference mode. Clients share the "
        "cores with the server. MLflow takes base64 in JSON, the others a form. Memory counts shared pages once.",
        ratios,
        {"All servers, medians": table},
    )


if __name__ == "__main__":
    main()
