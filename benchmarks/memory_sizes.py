"""What a Lambda memory size costs in time: the image with the share of a core that AWS gives for that memory.

    make image && python benchmarks/memory_sizes.py [--image catsdogs-lambda] [--requests 20]

Lambda gives a core for every 1 769 MB; here a container gets that quota. Printed for each size: the start until the
first answer, medians of a small and a 12-megapixel photo, and the price of a thousand small photos relative to the
cheapest size (Lambda bills memory times time, so a size that is twice as fast at twice the memory costs the same).
"""

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Sequence

from on_lambda import multipart, photo
from rich.console import Console
from rich.table import Table

from catsdogs_lib.client.lambda_events import Arrival, HttpRequest, function_url_event
from catsdogs_lib.lambda_local.function_url import EmulatorBackend

SIZES = (512, 884, 1769, 3538)
MEGABYTES_PER_CORE = 1769


def docker(*arguments: str) -> str:
    """Run docker and give what it prints."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def ask(emulator: EmulatorBackend, request: HttpRequest) -> float:
    """Milliseconds that one answer takes."""
    arrival = Arrival.now()
    payload = json.dumps(function_url_event(request, arrival)).encode()
    began = time.perf_counter()
    response = emulator.invoke(payload, arrival.request_id)
    seconds = time.perf_counter() - began
    if b"probabilities" not in response:
        raise SystemExit(response.decode()[:500])
    return 1e3 * seconds


def measure(image: str, megabytes: int, requests: int, options: Sequence[str] = ()) -> dict[str, float]:
    """Start one container; milliseconds until its first answer, and medians of a small and a large photo."""
    small, large = (multipart(photo(None, size)) for size in ((500, 375), (4000, 3000)))
    cores = min(megabytes / MEGABYTES_PER_CORE, len(os.sched_getaffinity(0)))
    limits = ["--memory", f"{megabytes}m", "--cpus", f"{cores:.2f}", "--read-only", "--tmpfs", "/tmp"]
    setting = ["--env", f"AWS_LAMBDA_FUNCTION_MEMORY_SIZE={megabytes}", *options]
    container = docker("run", "--detach", "--publish", "127.0.0.1::8080", *limits, *setting, image)
    try:
        emulator = EmulatorBackend(f"http://{docker('port', container, '8080').splitlines()[0]}")
        time.sleep(1)
        found = {"first answer": ask(emulator, small)}
        for name, request in (("small photo", small), ("12 megapixels", large)):
            found[name] = statistics.median(ask(emulator, request) for _ in range(requests))
        return found
    finally:
        docker("rm", "--force", container)


def main() -> None:
    """Measure every size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="catsdogs-lambda")
    parser.add_argument("--requests", type=int, default=20)
    options = parser.parse_args()
    found = {size: measure(options.image, size, options.requests) for size in SIZES}
    cheapest = min(size * took["small photo"] for size, took in found.items())
    table = Table(title="by memory size, medians", title_justify="left")
    for name in ("MB", "cores", "first answer, ms", "small photo, ms", "12 megapixels, ms", "price of small photos"):
        table.add_column(name, justify="right")
    for size, took in found.items():
        cells = (f"{milliseconds:.0f}" for milliseconds in took.values())
        price = size * took["small photo"] / cheapest
        table.add_row(str(size), f"{size / MEGABYTES_PER_CORE:.2f}", *cells, f"{price:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
