"""What a Lambda memory size costs in time: the image with the share of a core that AWS gives for that memory.

    make image && python benchmarks/memory_sizes.py [--image catsdogs-lambda] [--requests 20]

Lambda gives a core for every 1 769 MB; here a container gets that quota. Printed for each size: the start until the
first answer, medians of a small and a 12-megapixel photo, and the price of a thousand small photos relative to the
cheapest size (Lambda bills memory times time, so a size that is twice as fast at twice the memory costs the same).
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import time

from PIL import Image
from rich.console import Console
from rich.table import Table

from catsdogs_lib.data.drawing import draw
from catsdogs_lib.doors.events import Arrival, HttpRequest, function_url_event
from catsdogs_lib.doors.function_url import Emulator

SIZES = (512, 884, 1769, 3538)
MEGABYTES_PER_CORE = 1769


def photo(size: tuple[int, int]) -> HttpRequest:
    """A drawn photo as a request."""
    stream = io.BytesIO()
    draw("cat", 5).resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=88)
    return HttpRequest("POST", "/predict", headers=(("content-type", "image/jpeg"),), body=stream.getvalue())


def docker(*arguments: str) -> str:
    """Run docker and give what it prints."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def ask(emulator: Emulator, request: HttpRequest) -> float:
    """Seconds that one answer takes."""
    arrival = Arrival.now()
    payload = json.dumps(function_url_event(request, arrival)).encode()
    began = time.perf_counter()
    response = emulator.invoke(payload, arrival.request_id)
    seconds = time.perf_counter() - began
    if b"prediction_id" not in response:
        raise SystemExit(response.decode()[:500])
    return seconds


def measure(image: str, megabytes: int, requests: int) -> tuple[float, float, float]:
    """Start one container; seconds until its first answer, and medians of a small and a large photo."""
    small, large = photo((500, 375)), photo((4000, 3000))
    cores = min(megabytes / MEGABYTES_PER_CORE, len(os.sched_getaffinity(0)))
    limits = ["--memory", f"{megabytes}m", "--cpus", f"{cores:.2f}", "--read-only", "--tmpfs", "/tmp"]
    setting = ["--env", f"AWS_LAMBDA_FUNCTION_MEMORY_SIZE={megabytes}"]
    container = docker("run", "--detach", "--publish", "127.0.0.1::8080", *limits, *setting, image)
    try:
        emulator = Emulator(f"http://{docker('port', container, '8080').splitlines()[0]}")
        time.sleep(1)
        first = ask(emulator, small)
        seconds = [statistics.median(ask(emulator, one) for _ in range(requests)) for one in (small, large)]
        return first, seconds[0], seconds[1]
    finally:
        docker("rm", "--force", container)


def main() -> None:
    """Measure every size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="catsdogs-lambda")
    parser.add_argument("--requests", type=int, default=20)
    options = parser.parse_args()
    found = {size: measure(options.image, size, options.requests) for size in SIZES}
    cheapest = min(size * small for size, (_, small, _) in found.items())
    table = Table(title="by memory size, medians", title_justify="left")
    for name in ("MB", "cores", "first answer, ms", "small photo, ms", "12 megapixels, ms", "price of small photos"):
        table.add_column(name, justify="right")
    for size, (first, small, large) in found.items():
        cells = (f"{1e3 * seconds:.0f}" for seconds in (first, small, large))
        table.add_row(str(size), f"{size / MEGABYTES_PER_CORE:.2f}", *cells, f"{size * small / cheapest:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
