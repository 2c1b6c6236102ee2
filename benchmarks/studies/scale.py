"""Lambda at 10, 1 000 and 100 000 requests a second, simulated from times that are measured here.

    python benchmarks/studies/scale.py [--large 0.2] [--start 0.5] [--reserved 1000 30000]

Answers to small and 12-megapixel photos are timed in this process, one thread, one at a time; the simulation draws from
these times. Requests come by chance (a Poisson process). An environment answers one request at a time, is kept for ten
minutes, and the one used last is taken first; where none is free, a new one starts unless the limit of concurrency or
that of the scaling rate is met, and then the request is throttled (429).
"""

import argparse
import heapq
import io
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from starlette.testclient import TestClient

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.inference.bundle import Bundle, locate
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.settings import ServiceSettings

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import costs

KEPT = 600.0
"""Seconds that an idle environment is kept; AWS promises nothing, five to fifteen minutes are seen."""
SCALING = (1000, 10.0)
"""Environments that a function may add within so many seconds: Lambda's documented scaling rate."""
SECONDS_A_MONTH = costs.SECONDS_A_MONTH
CONTAINER_HOUR = 0.04048 + 2 * 0.004445
"""US dollars of a vCPU with 2 GB on Fargate in us-east-1: list prices of 2026."""
LOAD = 0.7
"""Share of a container's core that may be busy before waiting grows."""


@dataclass(frozen=True)
class Limits:
    """What a function may do.

    `concurrency` is the number of environments at once; `start` the seconds by which the first answer of a new one is
    late.
    """

    concurrency: int
    start: float


@dataclass(frozen=True)
class Outcome:
    """What callers and the bill saw: seconds of each answer, new environments, refusals, the most at once."""

    seconds: NDArray[np.float64]
    started: int
    throttled: int
    most: int


def simulate(rate: float, duration: float, service: NDArray[np.float64], limits: Limits, seed: int = 0) -> Outcome:
    """Let requests come for `duration` seconds at `rate` a second; `service` are seconds that answers took."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, int(rate * duration * 1.1) + 50))
    arrivals = arrivals[arrivals < duration]
    times = rng.choice(service, len(arrivals))
    idle: deque[float] = deque()  # when each was last used; the latest last
    busy: list[float] = []
    seconds = np.empty(len(arrivals))
    may_start, stamp = float(SCALING[0]), 0.0
    answered = started = throttled = most = 0
    for now, work in zip(arrivals.tolist(), times.tolist(), strict=True):
        while busy and busy[0] <= now:
            idle.append(heapq.heappop(busy))
        while idle and idle[0] < now - KEPT:
            idle.popleft()
        may_start, stamp = min(SCALING[0], may_start + (now - stamp) * SCALING[0] / SCALING[1]), now
        late = 0.0
        if idle:
            idle.pop()
        elif len(busy) < limits.concurrency and may_start >= 1:
            may_start -= 1
            started += 1
            late = limits.start
        else:
            throttled += 1
            continue
        heapq.heappush(busy, now + work + late)
        most = max(most, len(busy))
        seconds[answered] = work + late
        answered += 1
    return Outcome(seconds[:answered], started, throttled, most)


def photo(size: tuple[int, int], seed: int) -> bytes:
    """A drawn photo, JPEG."""
    stream = io.BytesIO()
    draw(("cat", "dog")[seed % 2], seed).resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def answer_times(bundle: Bundle, photos: list[bytes], rounds: int) -> NDArray[np.float64]:
    """Seconds of each answer, through the whole application, one thread."""
    app = create_app(Model(Classifier(bundle, threads=1)), ServerTelemetry(), ServiceSettings(alone=True))
    client = TestClient(app)
    seconds = []
    for _ in range(rounds + 1):
        for data in photos:
            began = time.perf_counter()
            client.post("/predict", content=data, headers={"content-type": "image/jpeg"}).raise_for_status()
            seconds.append(time.perf_counter() - began)
    return np.array(seconds[len(photos) :])


def dollars_lambda(rate: float, seconds: float, started: float) -> float:
    """US dollars a month of requests and compute."""
    each = costs.price("lambda_request") + seconds * costs.GIGABYTES * costs.price("lambda_gb_second")
    return rate * SECONDS_A_MONTH * (each + started * costs.GIGABYTES * costs.price("lambda_gb_second"))


def dollars_containers(rate: float, seconds: float) -> float:
    """US dollars a month of containers with a core each, two at least."""
    return max(2, int(np.ceil(rate * seconds / LOAD))) * CONTAINER_HOUR * SECONDS_A_MONTH / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--large", type=float, default=0.2, help="share of 12-megapixel photos")
    parser.add_argument("--start", type=float, default=0.5, help="seconds by which a new environment's answer is late")
    parser.add_argument("--reserved", type=int, nargs="+", default=[1000, 10_000])
    given = parser.parse_args()
    bundle = Bundle.load(locate(given.bundle))
    small = answer_times(bundle, [photo((500, 375), seed) for seed in range(10)], 30)
    large = answer_times(bundle, [photo((4000, 3000), seed) for seed in range(3)], 20)
    many = round(len(small) * given.large / (1 - given.large))
    service = np.concatenate([small, np.random.default_rng(0).choice(large, many)])
    mean = float(service.mean())
    print(
        f"measured at {bundle.description.preprocessing.size} pixels: small {1000 * np.median(small):.1f} ms (95 %: "
        f"{1000 * np.quantile(small, 0.95):.1f}), 12 megapixels {1000 * np.median(large):.1f} ms; mean of the mix "
        f"{1000 * mean:.1f} ms"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "requests/s",
        "limit",
        "from",
        "median",
        "99 %",
        "99.9 %",
        "new",
        "throttled",
        "most at once",
        "Lambda $/month",
        "containers $/month",
    ):
        table.add_column(name, justify="right")
    for rate, duration in ((10, 600), (1000, 60), (100_000, 20)):
        for limit in given.reserved:
            whole = simulate(rate, duration, service, Limits(limit, given.start))
            quantiles = np.quantile(whole.seconds, [0.5, 0.99, 0.999]) * 1000
            asked = len(whole.seconds) + whole.throttled
            table.add_row(
                f"{rate:,}",
                f"{limit:,}",
                f"{duration} s",
                *(f"{q:.0f} ms" for q in quantiles),
                f"{whole.started:,}",
                f"{whole.throttled / asked:.2%}",
                f"{whole.most:,}",
                f"{dollars_lambda(rate * (1 - whole.throttled / asked), mean, 0):,.0f}",
                f"{dollars_containers(rate, mean):,.0f}",
            )
    Console(width=160).print(table)
    rates = np.geomspace(0.01, 100, 400)
    cheaper = next(rate for rate in rates if dollars_containers(rate, mean) < dollars_lambda(rate, mean, 0))
    print(f"two containers cost less than Lambda from {cheaper:.1f} requests a second on, all day")


if __name__ == "__main__":
    main()
