"""The price of decoding in a process of its own: a small photo, the first answer, memory.

    python benchmarks/studies/isolation.py [PHOTO]

Both sides alternate in one run: decoding in a limited process, as it is done, and in the process that answers.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from catsdogs_lib.data.synthetic.render import draw

ROUNDS_IN_PROCESS, STARTS = 400, 15
SIDES = ("inside", "isolated")
START = """
import sys, time
begun = time.perf_counter()
import os
sys.path.insert(0, "lambda")
import catsdogs_lib.inference.classifier as classifier
from catsdogs_lib.imaging.statistics import square_with_statistics

class Inside:
    call = staticmethod(square_with_statistics)

if sys.argv[1] == "inside":
    classifier.decoder_pool = lambda count: Inside()
from pathlib import Path
from catsdogs_lib.serving.model import Model
photo = Path(sys.argv[2]).read_bytes()
asked = Model.load(threads=1).classifier
asked.predict_with_statistics(photo)
first = time.perf_counter() - begun
pids = [os.getpid()]
for pid in pids:
    pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
def pss(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
print(first, sum(map(pss, pids)) / 1000, len(pids))
if sys.argv[3] == "0":
    sys.exit()
other = Inside() if sys.argv[1] == "isolated" else None
seconds = {"inside": [], "isolated": []}
pool = asked.decoders
for _ in range(int(sys.argv[3])):
    for side, decoders in (("inside", other), ("isolated", pool)):
        asked.decoders = decoders
        start = time.perf_counter()
        asked.predict_with_statistics(photo)
        seconds[side].append(time.perf_counter() - start)
print(*seconds["inside"])
print(*seconds["isolated"])
"""


def run(side: str, photo: Path, rounds: int = 0) -> list[list[float]]:
    command = [sys.executable, "-c", START, side, str(photo), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [[float(value) for value in line.split()] for line in done.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", nargs="?", type=Path)
    photo = parser.parse_args().photo
    with tempfile.TemporaryDirectory() as folder:
        if photo is None:
            photo = Path(folder, "small.jpg")
            draw("cat", 1).resize((500, 375)).save(photo, quality=85)
        starts: dict[str, list[list[float]]] = {side: [] for side in SIDES}
        for _ in range(STARTS):
            for side in SIDES:
                starts[side].append(run(side, photo)[0])
        for index, name, unit, scale in ((0, "first answer", "ms", 1e3), (1, "memory of all processes (PSS)", "MB", 1)):
            values = {side: [scale * start[index] for start in starts[side]] for side in SIDES}
            inside, isolated = (statistics.median(values[side]) for side in SIDES)
            difference = statistics.median(b - a for a, b in zip(*values.values(), strict=True))
            of_minima = min(values["isolated"]) - min(values["inside"])
            print(
                f"{name}: {inside:.1f} {unit} inside, {isolated:.1f} isolated; median of {STARTS} pairs "
                f"{difference:+.1f} {unit}, of minima {of_minima:+.1f}"
            )
        _, inside_seconds, isolated_seconds = run("isolated", photo, ROUNDS_IN_PROCESS)
        pairs = [1e3 * (b - a) for a, b in zip(inside_seconds, isolated_seconds, strict=True)]
        print(
            f"a photo of {photo.stat().st_size / 1000:.0f} kB, from bytes to answer: "
            f"{1e3 * statistics.median(inside_seconds):.2f} ms inside, {1e3 * statistics.median(isolated_seconds):.2f} "
            f"isolated; median of {len(pairs)} pairs {statistics.median(pairs):+.2f} ms"
        )


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"in {time.perf_counter() - began:.0f} s")
