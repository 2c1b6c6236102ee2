"""First answers of the image beside those of an image with torch, each in a fresh container with one core.

    make image && python benchmarks/in_container.py [--image NAME] [--rounds 5] [--requests 20] [--base IMAGE]

The other image has torch of PyPI in the versions of this environment on the same base, and the rival's handler of
`on_lambda.py`; building it takes minutes and 6 GB. Timed from the first request, since the emulator starts the runtime
then; all files are in the disk cache, so what Lambda takes to fetch an image is not in it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import weights
from figures import Part, Ratio
from memory_sizes import MEGABYTES_PER_CORE, docker
from on_lambda import multipart, photo

from catsdogs_lib.bundle import Bundle
from catsdogs_lib.doors.events import Arrival, HttpRequest, function_url_event
from catsdogs_lib.doors.function_url import Emulator

ROOT = Path(__file__).parents[1]
RIVAL = "catsdogs-rival"
PACKAGES = ("torch", "torchvision", "timm", "fastapi", "mangum", "pillow", "python-multipart")


def ask(emulator: Emulator, request: HttpRequest) -> float:
    """Milliseconds that one answer takes."""
    arrival = Arrival.now()
    payload = json.dumps(function_url_event(request, arrival)).encode()
    began = time.perf_counter()
    response = emulator.invoke(payload, arrival.request_id)
    took = time.perf_counter() - began
    if b"probabilities" not in response:
        raise SystemExit(response.decode()[:500])
    return 1e3 * took


def one(image: str, options: list[str], requests: int) -> dict[str, float]:
    """Start one container; milliseconds until its first answer, and medians of a small and a large photo."""
    limits = ["--memory", f"{MEGABYTES_PER_CORE}m", "--cpus", "1", "--tmpfs", "/tmp"]
    setting = ["--env", f"AWS_LAMBDA_FUNCTION_MEMORY_SIZE={MEGABYTES_PER_CORE}"]
    small, large = (multipart(photo(None, size)) for size in ((500, 375), (4000, 3000)))
    container = docker("run", "--detach", "--publish", "127.0.0.1::8080", *limits, *setting, *options, image)
    try:
        emulator = Emulator(f"http://{docker('port', container, '8080').splitlines()[0]}")
        time.sleep(1)
        found = {"first answer": ask(emulator, small)}
        for name, request in (("small photo", small), ("12 megapixels", large)):
            found[name] = statistics.median(ask(emulator, request) for _ in range(requests))
        return found
    finally:
        docker("rm", "--force", container)


def main() -> None:
    """Build the other image, run both in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="catsdogs-lambda")
    parser.add_argument("--base", default="public.ecr.aws/lambda/python:3.13")
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "reference", help="the one in the image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20)
    options = parser.parse_args()
    packages = " ".join(f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES)
    building = ["docker", "build", "--quiet", "--tag", RIVAL, "--build-arg", f"BASE_IMAGE={options.base}"]
    print("building the image with torch", file=sys.stderr)
    subprocess.run([*building, "--build-arg", f"PACKAGES={packages}", ROOT / "benchmarks" / "rivals"], check=True)
    runs: dict[str, list[dict[str, Any]]] = {options.image: [], RIVAL: []}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        weights.write(Bundle.load(options.bundle), Path(folder))
        Path(folder).chmod(0o755)
        more = {options.image: [], RIVAL: ["--volume", f"{folder}:/weights:ro", "--env", "WEIGHTS=/weights"]}
        for number in range(-1, options.rounds):  # the first round only fills the disk cache
            for image, found in runs.items():
                took = one(image, more[image], options.requests)
                print(image, {name: round(value) for name, value in took.items()}, file=sys.stderr)
                if number >= 0:
                    found.append(took)
    ratios = [
        Ratio(f"{name} in a container", "ms", "torch eager", *([run[name] for run in found] for found in runs.values()))
        for name in runs[RIVAL][0]
    ]
    sizes = [[1e-6 * int(docker("image", "inspect", "--format", "{{.Size}}", image))] for image in runs]
    ratios.append(Ratio("image", "MB", "torch of PyPI", *sizes))
    how = f"{options.rounds} fresh containers of each, in turn, one core and {MEGABYTES_PER_CORE} MB; {packages}."
    Part("containers", "In a container, as at 1 769 MB", how, ratios).keep()


if __name__ == "__main__":
    main()
