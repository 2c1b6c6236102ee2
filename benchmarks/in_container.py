"""First answers of the image beside those of an image with torch, each in a fresh container with one core.

    make image && python benchmarks/in_container.py [--image NAME] [--rounds 5] [--requests 20] [--base IMAGE]

The other image has torch of PyPI in the versions of this environment on the same base, and the rival's handler of
`on_lambda.py`; building it takes minutes and 6 GB. Timed from the first request, since the emulator starts the runtime
then; all files are in the disk cache, so what Lambda takes to fetch an image is not in it.
"""

import argparse
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import weights
from figures import Part, Ratio
from memory_sizes import MEGABYTES_PER_CORE, docker, measure

from catsdogs_lib.inference.bundle import Bundle

ROOT = Path(__file__).parents[1]
RIVAL = "catsdogs-rival"
PACKAGES = ("torch", "torchvision", "timm", "fastapi", "mangum", "pillow", "python-multipart")


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
                took = measure(image, MEGABYTES_PER_CORE, options.requests, more[image])
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
