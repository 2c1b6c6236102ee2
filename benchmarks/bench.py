"""Run the benchmarks one after the other and write reports/benchmarks/README.md.

    python benchmarks/bench.py [PART ...] [--photos RAW_FOLDER]

Parts are lambda, servers, scoring and profiles; training and accelerator (which need photos) and containers (which
needs Docker and the image) run only when you name them. RAW_FOLDER holds `train/class/file` and `test/class/file`;
without it photos are drawn. README.md beside this file says what each part answers.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from comparison import FOLDER

HERE = Path(__file__).parent


def commands(photos: Path | None) -> dict[str, list[str]]:
    """Return the script and arguments of each part."""
    given = sorted(photos.rglob("*.jpg")) if photos else []
    small = ["--small", str(given[len(given) // 2])] if given else []
    return {
        "lambda": ["on_lambda.py", *small],
        "servers": ["servers.py", *(["--photo", small[1]] if small else [])],
        "scoring": ["score_against_bare_loop.py", *(["--photos", str(photos)] if photos else [])],
        "profiles": ["profiles.py", *(["--photos", str(photos)] if photos else [])],
        "training": ["training.py", str(photos)],
        "accelerator": ["accelerator.py", f"{photos}/train"],
        "containers": ["in_container.py"],
    }


BY_NAME = ("training", "accelerator", "containers")
"""Parts that take half an hour, or need what not every machine has."""


def main() -> None:
    """Run the parts; ends with 1 where a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"all but {', '.join(BY_NAME)}, where none is named")
    parser.add_argument("--photos", type=Path)
    options = parser.parse_args()
    known = commands(options.photos.resolve() if options.photos else None)
    parts = options.parts or [name for name in known if name not in BY_NAME]
    for name in parts:
        if name not in known:
            parser.error(f"there is no part '{name}'; there are {', '.join(known)}")
    if {"training", "accelerator"} & set(parts) and options.photos is None:
        parser.error("training and accelerator need --photos RAW_FOLDER with train/class/file and test/class/file")
    missed = []
    for name in parts:
        print(f"\n== {name}", flush=True)
        script, *arguments = known[name]
        done = subprocess.run([sys.executable, str(HERE / script), *arguments], cwd=HERE.parent)
        if done.returncode:
            missed.append(name)
    print(f"\n{FOLDER / 'README.md'}" + (f"; bars were missed in {', '.join(missed)}" if missed else ""))
    raise SystemExit(bool(missed))


if __name__ == "__main__":
    main()
