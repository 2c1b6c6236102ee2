"""How much of a bare loop's throughput does `catsdogs score` keep? Both on the same photos, in turn.

    python benchmarks/score_against_bare_loop.py [--photos FOLDER] [--count 4000] [--rounds 3]

The bare loop decodes (`classifier.load`) and runs the graph, no more: no errors, no order, no file, nothing to go
on from. How many photos it gives the graph at once, and whether a core gets a process or a thread, is tried first.
Timed is the whole command on either side, from its start to its end; the processor's time, too, which other work on
the machine disturbs less. Without --photos they are drawn; too few are repeated under other names. Ends with 1 where
less than 95 % is kept, a second core brings less than 1.85, or memory grows.
"""

import argparse
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import psutil
from comparison import Part, Ratio

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "models" / "reference"
CORES = len(os.sched_getaffinity(0))
BAR = 0.95
SCALING = 1.85
"""A second core makes it so many times as fast, at least."""
GROWTH = 1.1
"""Largest ratio of the memory in the last quarter of a run to that in the second."""
DRAWN = 200
TRIED_PHOTOS = 400
WAYS = tuple(itertools.product(("processes", "threads"), (1, 2, 4, 8)))


def loop(photos: Sequence[Path], batch: int, threads: int = 1) -> None:
    """Decode and look: what nothing that answers for photos can do without."""
    classifier = Classifier(Bundle.load(BUNDLE), 1)

    def share(begin: int) -> None:
        for first in range(begin * batch, len(photos), batch * threads):
            classifier.run([classifier.load(photo) for photo in photos[first : first + batch]])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(share, range(threads)))


def bare(folder: Path, cores: int, layout: str, batch: int) -> None:
    """Run the bare loop on every photo of a folder; the body of its process."""
    photos = sorted(folder.iterdir())
    if layout == "threads":
        loop(photos, batch, cores)
        return
    spawn = get_context("spawn")
    running = [spawn.Process(target=loop, args=(photos[number::cores], batch)) for number in range(cores)]
    for process in running:
        process.start()
    for process in running:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a process of the bare loop ended with {process.exitcode}")


@dataclass
class Run:
    """What a command took."""

    seconds: float
    processor_seconds: float
    memory: list[int] = field(default_factory=list)


def timed(*command: object) -> Run:
    """Run a command; its memory, with that of its children, is looked at every half second."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    memory: list[int] = []
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        ended = threading.Event()
        watch = threading.Thread(target=_watch, args=(psutil.Process(process.pid), memory, ended))
        watch.start()
        output, _ = process.communicate()
        seconds = time.monotonic() - begin
        ended.set()
        watch.join()
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}: {output.decode()[-1000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, processor, memory)


def _watch(process: psutil.Process, memory: list[int], ended: threading.Event) -> None:
    while not ended.wait(0.5):
        try:
            memory.append(sum(member.memory_info().rss for member in (process, *process.children(recursive=True))))
        except psutil.NoSuchProcess:
            continue


def scored(folder: Path, workers: int) -> Run:
    """Run `catsdogs score` into a new folder."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as out:
        catsdogs = (sys.executable, "-m", "catsdogs_lib", "score")
        return timed(*catsdogs, folder, Path(out) / "answers", "--bundle", BUNDLE, "--workers", workers)


def collect(folder: Path, given: Path | None, count: int) -> None:
    """Fill a folder with names of photos, and read each once, so that the disk is not what is measured."""
    photos = sorted(given.rglob("*.jpg")) if given else []
    if not photos:
        drawn = folder.with_name("drawn")
        drawn.mkdir()
        for number in range(DRAWN):
            draw(("cat", "dog")[number % 2], number).resize((500, 375)).save(drawn / f"{number}.jpg", quality=90)
        photos = sorted(drawn.iterdir())
    folder.mkdir()
    for number, photo in zip(range(count), itertools.cycle(photos), strict=False):
        (folder / f"{number:06d}.jpg").symlink_to(photo.resolve())
        if number < len(photos):
            photo.read_bytes()


def tune(folder: Path) -> tuple[str, int]:
    """Find out how the bare loop is fastest here: the best of three runs each, in turn."""
    few = folder.with_name("few")
    few.mkdir()
    for photo in sorted(folder.iterdir())[:TRIED_PHOTOS]:
        (few / photo.name).symlink_to(photo.resolve())
    fastest = dict.fromkeys(WAYS, float("inf"))
    for way in WAYS * 3:
        fastest[way] = min(fastest[way], _bare(few, CORES, *way).seconds)
    for (layout, batch), seconds in fastest.items():
        print(f"bare loop, {CORES} {layout}, {batch} at once: {TRIED_PHOTOS / seconds:.0f} photos/s with its start")
    return min(fastest, key=lambda way: fastest[way])


def _bare(folder: Path, cores: int, layout: str, batch: int) -> Run:
    return timed(sys.executable, __file__, "--bare", folder, cores, layout, batch)


def growth(memory: Sequence[int]) -> float:
    """How much more memory the last quarter takes than the second."""
    quarter = len(memory) // 4
    return statistics.median(memory[-quarter:]) / statistics.median(memory[quarter : 2 * quarter])


def show(count: int, ours: Sequence[Run], theirs: Sequence[Run], one_core: Sequence[Run]) -> bool:
    """Keep what was measured; whether enough is kept and memory is flat."""
    grown = statistics.median(growth(run.memory) for run in ours)
    peak = max(max(run.memory) for run in ours) / 2**20
    print(f"memory of all processes: {peak:.0f} MiB at most; the last quarter takes {grown:.3f} times the second")

    def ratio(what: str, rival: str, other: Sequence[Run], key: str, bar: float | None = None) -> Ratio:
        pair = ([count / getattr(run, key) for run in runs] for runs in (ours, other))
        return Ratio(what, "/s", rival, *pair, bar=bar, more=True)

    part = Part(
        "scoring",
        f"Bulk scoring of {count} photos on {CORES} cores",
        "The command `catsdogs score` beside the bare loop of decoding and ONNX Runtime, in turn, each from its start "
        "to its end; the bare loop as its fastest way here has it.",
        [
            ratio("photos a second", "the bare loop", theirs, "seconds", BAR),
            ratio("per second of processor", "the bare loop", theirs, "processor_seconds"),
            ratio(f"{CORES} cores", "one core", one_core, "seconds", SCALING),
        ],
    )
    return part.keep() and grown <= GROWTH


def main() -> None:
    """Run both; ends with 1 where a bar is missed."""
    if sys.argv[1:2] == ["--bare"]:
        folder, cores, layout, batch = sys.argv[2:]
        bare(Path(folder), int(cores), layout, int(batch))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder with photos, .jpg")
    parser.add_argument("--count", type=int, default=4000, help="photos that each run looks at")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name) / "photos"
        collect(folder, options.photos, options.count)
        layout, batch = tune(folder)
        print(f"taken: {layout}, {batch} at once")
        ours, theirs, one_core = [], [], []
        for number in range(options.rounds):
            # Whoever goes first in one round goes second in the next.
            for side in (ours, theirs) if number % 2 else (theirs, ours):
                side.append(scored(folder, CORES) if side is ours else _bare(folder, CORES, layout, batch))
            one_core.append(scored(folder, 1))
        if not show(options.count, ours, theirs, one_core):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
