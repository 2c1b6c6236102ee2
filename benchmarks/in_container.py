"""First answers of the image beside those of an image with torch, each in a fresh container with one core.

    make image && python benchmarks/in_container.py [--image NAME] [--rounds 5] [--requests 20] [--base IMAGE]

The other image has torch of PyPI in the versions of this environment on the same base, and the rival's handler of
`on_lambda.py`; building it takes minutes and 6 GB. Timed from the first request, since the emulator starts the runtime
then; all files are in the disk cache, so the time that Lambda takes to fetch an image is left out.

Then the image alone, by memory size: Lambda gives a core for every 1 769 MB, and here a container gets that quota. The
price is that of small photos, relative to the cheapest size (Lambda bills memory times time).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import weights
from comparison import Part, Ratio
from on_lambda import multipart, photo

from catsdogs_lib.client.lambda_events import Arrival, function_url_event
from catsdogs_lib.client.messages import HttpRequest
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.lambda_local.backends import EmulatorBackend

ROOT = Path(__file__).parents[1]
RIVAL = "catsdogs-rival"
PACKAGES = ("torch", "torchvision", "timm", "fastapi", "mangum", "pillow", "python-multipart")
MEMORY_SIZES = (512, 884, 1769, 3538)
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
        return {
            "first answer": ask(emulator, small),
            "small photo": statistics.median(ask(emulator, small) for _ in range(requests)),
            "12 megapixels": statistics.median(ask(emulator, large) for _ in range(requests)),
        }
    finally:
        docker("rm", "--force", container)


def by_memory_size(image: str, requests: int) -> list[dict[str, Any]]:
    """Rows of a table: times at each memory size, and the price of small photos."""
    times = {size: measure(image, size, requests) for size in MEMORY_SIZES}
    cheapest = min(size * row["small photo"] for size, row in times.items())
    return [
        {
            "memory, MB": str(size),
            "cores": size / MEGABYTES_PER_CORE,
            **{f"{name}, ms": milliseconds for name, milliseconds in row.items()},
            "price of small photos": size * row["small photo"] / cheapest,
        }
        for size, row in times.items()
    ]


def beside_torch(options: argparse.Namespace, packages: str) -> list[Ratio]:
    """Build the other image and run both in turn."""
    building = ["docker", "build", "--quiet", "--tag", RIVAL, "--build-arg", f"BASE_IMAGE={options.base}"]
    print("building the image with torch", file=sys.stderr)
    subprocess.run([*building, "--build-arg", f"PACKAGES={packages}", ROOT / "benchmarks" / "rivals"], check=True)
    runs: dict[str, list[dict[str, float]]] = {options.image: [], RIVAL: []}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        weights.write(Bundle.load(options.bundle), Path(folder))
        Path(folder).chmod(0o755)
        more = {options.image: [], RIVAL: ["--volume", f"{folder}:/weights:ro", "--env", "WEIGHTS=/weights"]}
        for number in range(-1, options.rounds):  # the first round only fills the disk cache
            for image, rounds in runs.items():
                times = measure(image, MEGABYTES_PER_CORE, options.requests, more[image])
                print(image, {name: round(value) for name, value in times.items()}, file=sys.stderr)
                if number >= 0:
                    rounds.append(times)
    ratios = [
        Ratio(f"{name} in a container", "ms", "torch eager", *([run[name] for run in side] for side in runs.values()))
        for name in runs[RIVAL][0]
    ]
    sizes = [[1e-6 * int(docker("image", "inspect", "--format", "{{.Size}}", image))] for image in runs]
    return [*ratios, Ratio("image", "MB", "torch of PyPI", *sizes)]


def main() -> None:
    """Measure both images, then ours at each memory size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="catsdogs-lambda")
    parser.add_argument("--base", default="public.ecr.aws/lambda/python:3.13")
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "reference", help="the one in the image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20)
    options = parser.parse_args()
    packages = " ".join(f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES)
    ratios = beside_torch(options, packages)
    how = f"{options.rounds} fresh containers of each, in turn, one core and {MEGABYTES_PER_CORE} MB; {packages}."
    tables = {"By memory size, medians": by_memory_size(options.image, options.requests)}
    Part("containers", "In a container, as at 1 769 MB", how, ratios, tables).keep()


if __name__ == "__main__":
    main()
