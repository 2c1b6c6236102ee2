"""Runs the benchmarks beside others, one after the other, and writes reports/benchmarks/README.md.

    python benchmarks/bench.py [lambda] [servers] [scoring] [profiles] [training] [--photos RAW_FOLDER]

RAW_FOLDER holds `train/class/file` and `test/class/file`; without it photos are drawn, and there is no training.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from figures import FOLDER

HERE = Path(__file__).parent


def commands(photos: Path | None) -> dict[str, list[str]]:
    """What each part runs."""
    given = sorted(photos.rglob("*.jpg")) if photos else []
    small = ["--small", str(given[len(given) // 2])] if given else []
    return {
        "lambda": ["on_lambda.py", *small],
        "servers": ["servers.py", *(["--photo", small[1]] if small else [])],
        "scoring": ["score_against_bare_loop.py", *(["--photos", str(photos)] if photos else [])],
        "profiles": ["profiles.py", *(["--photos", str(photos)] if photos else [])],
        "training": ["training.py", str(photos)],
    }


def main() -> None:
    """Run the parts; ends with 1 where a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="all but training, where none is named")
    parser.add_argument("--photos", type=Path)
    options = parser.parse_args()
    known = commands(options.photos.resolve() if options.photos else None)
    parts = options.parts or [name for name in known if name != "training"]
    for name in parts:
        if name not in known:
            parser.error(f"there is no part '{name}'; there are {', '.join(known)}")
    if "training" in parts and options.photos is None:
        parser.error("training needs --photos RAW_FOLDER with train/class/file and test/class/file")
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
