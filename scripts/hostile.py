"""Send hostile files and requests through every door and measure memory, processor time, answers and restarts.

    python scripts/hostile.py [--doors serve function-url predict score attacks] [--mutations 2000] [--output FOLDER]

Doors are `catsdogs serve`, the local Function URL without /dev/shm (as on Lambda), `catsdogs predict` and `catsdogs
score`; `attacks` are those of scripts/attacks.py. Files are generated, besides those of ../shared/data where there are
any. Memory is that of a process and all its descendants. Writes hostile.json and hostile.txt; ends with 1 where a limit
is exceeded. Linux only.
"""

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from attacks import ATTACKS, SERVE, Figures
from pyarrow import parquet
from rich.console import Console
from rich.table import Table
from server_process import HealthProber, ServerProcess
from soak import SHARED, wire

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from hostile_files import files, saved  # noqa: E402
from hostile_requests import requests  # noqa: E402
from mutations import Mutation, bare, in_other_formats, multipart, mutated_photos, mutations  # noqa: E402
from process_tree import Idle, MemoryWatch, ProcessTree, wait_for_rest  # noqa: E402

DOORS = ("serve", "function-url", "predict", "score", "attacks")
MAX_GROWTH = 250e6
"""Bytes that a photo may use beyond the idle process."""
MAX_CPU_SECONDS = 2.3
"""Processor seconds that a photo may take: 2 for decoding, the rest for receiving it and for the model."""
REFUSALS = {200, 400, 408, 411, 413, 415, 422, 503}
"""Statuses that an answer may have."""
WORKER = b"spawn_main"
"""Part of the command line of a process that holds the function; the processes it forks may be replaced."""
WITHOUT_SHM = """
mount -t tmpfs none "$0" && cd "$0" && for name in null zero full random urandom tty; do
touch $name && mount --bind /dev/$name $name || exit 1; done && ln -s /proc/self/fd fd &&
cd "$OLDPWD" && mount --bind "$0" /dev && test ! -e /dev/shm && exec "$@"
"""
"""Shell script that runs a command without /dev/shm, inside a mount namespace; $0 is an empty folder."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """The answer to a file or request, and its price: seconds, processor seconds and bytes above the idle process."""

    name: str
    answer: str
    seconds: float
    cpu: float
    growth: int
    detail: str = ""
    photos: int = 1


@dataclasses.dataclass
class Door:
    """The answers, prices and violations at one door."""

    name: str
    costs: list[Cost] = dataclasses.field(default_factory=list)
    violations: list[str] = dataclasses.field(default_factory=list)
    figures: Figures = dataclasses.field(default_factory=dict)

    def add(self, cost: Cost, fault: str | None = None) -> None:
        """Record a cost and its violations."""
        self.costs.append(cost)
        if fault is not None:
            self.violations.append(f"{cost.name}: {cost.answer} {fault}")
        if cost.growth > MAX_GROWTH:
            self.violations.append(f"{cost.name}: {cost.growth / 1e6:.0f} MB above the idle process")
        if cost.cpu / cost.photos > MAX_CPU_SECONDS:
            self.violations.append(f"{cost.name}: {cost.cpu / cost.photos:.2f} s of processor time a photo")


class Corpus:
    """Everything that is sent, made once.

    Parameters
    ----------
    shared
        Folder with `edge` and `hostile`, if there is one.
    count
        Number of mutations.
    """

    def __init__(self, shared: Path, count: int) -> None:
        self.edge = [(path.name, path.read_bytes()) for path in sorted(shared.glob("edge/*/*")) if path.is_file()]
        self.crafted = [(file.name, file.data) for file in files(shared / "hostile")]
        self.photo = saved("JPEG")
        self._requests = list(requests(self.photo))
        self.titles = {name for name, _ in self.crafted} | {mutation.name for mutation in self._requests}
        small = [data for _, data in self.edge + self.crafted if 0 < len(data) < 2**20]
        self._sources = small + [self.photo, *in_other_formats(self.photo)] * 4
        self._count = count

    def requests(self) -> Iterator[Mutation]:
        """Every file, bare and in a form by turns, every request, and the mutations."""
        for number, (name, data) in enumerate(self.edge + self.crafted):
            yield Mutation(name, (bare, multipart)[number % 2](data))
        for name, data in self.crafted:
            if len(data) < 4 * 2**20:
                yield Mutation(f"explain {name}", dataclasses.replace(bare(data), path="/explain"))
        yield from self._requests
        yield from mutations(self._sources, self._count)

    def groups(self) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
        """Files to put into a folder together: honest ones, each expensive one alone, and all others."""
        yield "an honest photo", [("honest.jpg", self.photo)]
        yield "honest photos", [(f"{number}.jpg", self.photo) for number in range(200)]
        yield from ((name, [(name, data)]) for name, data in self.crafted)
        if self.edge:
            yield "files of edge", self.edge
        mutated = [(f"{name.replace(' ', '_')}.jpg", data) for name, data in mutated_photos(self._sources, self._count)]
        yield f"{len(mutated)} mutations", mutated


def through_server(name: str, corpus: Corpus, arguments: Sequence[str], folder: Path, prefix: Sequence[str]) -> Door:
    """Send every request to a server, one after the other, while its health is probed."""
    door = Door(name)
    with ServerProcess(arguments, folder / f"{name}.log", prefix) as server:
        for _ in range(3):
            server.ask(wire(bare(corpus.photo)))
        time.sleep(0.5)
        idle, workers = Idle(server.tree), server.tree.workers(WORKER)
        with MemoryWatch(server.tree) as watch, HealthProber(server.port) as prober:
            for mutation in corpus.requests():
                server.tree.reset_peaks()
                watch.take()
                before = server.tree.cpu_seconds()
                answer = server.ask(wire(mutation.request))
                cpu = server.tree.cpu_seconds() - before
                if cpu > 0.2:
                    # The answer may come before the work ends.
                    cpu = wait_for_rest(server.tree) - before
                growth = idle.growth(watch.take())
                fault = answer.fault or (None if answer.status in REFUSALS else "no status of an answer")
                detail = "" if answer.status == 200 else _detail(answer.body)
                door.add(Cost(mutation.name, str(answer.status), answer.seconds, cpu, growth, detail), fault)
            door.figures = {"idle": idle.total, "worst health": prober.worst, "failed health": prober.failures}
        if server.process.poll() is not None or server.tree.workers(WORKER) != workers:
            door.violations.append("a process was restarted")
    return door


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body).get("detail", ""))
    except (ValueError, AttributeError):
        return body[:80].decode(errors="replace")


def through_command(name: str, corpus: Corpus, folder: Path) -> Door:
    """Run a command on folders of files; processor time is counted beyond that of one honest photo."""
    door, start, idle = Door(name), 0.0, 0
    for number, (title, members) in enumerate(corpus.groups()):
        photos, out = folder / f"{name}-photos", folder / f"{name}-{number}"
        shutil.rmtree(photos, ignore_errors=True)
        photos.mkdir()
        for file, data in members:
            (photos / file).write_bytes(data)
        options = {"predict": ["--json", str(photos)], "score": [str(photos), str(out), "--workers", "1"]}[name]
        run = run_command([name, *options, "--bundle", "models/reference"], folder / "command.log")
        if number == 0:
            start = run.cpu
        if number == 1:
            # In its second half the command processes only small photos.
            idle = int(statistics.median(run.samples[len(run.samples) // 2 :]))
        errors = _errors(run.output) if name == "predict" else _errors_in_rows(out)
        answered = run.output.count('"prediction"') if name == "predict" else len(members) - len(errors)
        answer = f"{answered} answered, {len(errors)} not"
        growth = max(0, max(run.samples) - idle) if idle else 0
        detail = errors[0] if len(members) == 1 and errors else ""
        cost = Cost(title, answer, run.seconds, max(0.0, run.cpu - start), growth, detail, len(members))
        deaths = [error for error in errors if "the process that looked at it" in error]
        failed = run.code not in (0, 1) or "Traceback" in run.output
        fault = f"ended with {run.code}: {run.output[-300:]}" if failed else None
        fault = fault or (f"a process died: {deaths[0]}" if deaths else None)
        lost = len(members) - answered - len(errors)
        door.add(cost, fault or (f"{lost} photos have no answer" if lost else None))
    door.figures = {"idle": idle, "cpu of one honest photo, start included": start}
    return door


class CommandRun(NamedTuple):
    """The output of a command and its price: seconds, processor seconds, and samples of its memory in bytes."""

    code: int
    output: str
    seconds: float
    cpu: float
    samples: list[int]


def run_command(arguments: Sequence[str], log: Path) -> CommandRun:
    """Run a command of ``catsdogs`` and measure it with all its descendants."""
    began = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "catsdogs_lib", *arguments], cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT
        )
        with MemoryWatch(ProcessTree(process.pid)) as watch:
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds, cpu = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
    return CommandRun(process.returncode, log.read_text(errors="replace"), seconds, cpu, watch.samples)


def _errors(text: str) -> list[str]:
    rows = [json.loads(line) for line in text.splitlines() if line.startswith('{"path"')]
    return [row["error"] for row in rows if "error" in row]


def _errors_in_rows(out: Path) -> list[str]:
    columns = [parquet.read_table(file, columns=["error"]) for file in sorted(out.glob("*.parquet"))]
    return [error for column in columns for error in column["error"].to_pylist() if error is not None]


def show(door: Door, titles: Collection[str], console: Console) -> None:
    """Print the results of a door: its totals, then the files and requests with these titles and the expensive ones."""
    console.print(door.name, style="bold")
    summary = Table(show_header=False)
    if door.costs:
        answers = Counter(cost.answer for cost in door.costs)
        costliest = max(door.costs, key=lambda cost: cost.cpu / cost.photos)
        slowest = max(door.costs, key=lambda cost: cost.seconds / cost.photos)
        largest = max(door.costs, key=lambda cost: cost.growth)
        summary.add_row("files and requests", str(sum(cost.photos for cost in door.costs)))
        if all(cost.photos == 1 for cost in door.costs):
            summary.add_row("answers", ", ".join(f"{name}: {count}" for name, count in sorted(answers.items())))
        summary.add_row("largest growth", f"{largest.growth / 1e6:.0f} MB: {largest.name}")
        summary.add_row("most processor time", f"{costliest.cpu / costliest.photos:.2f} s: {costliest.name}")
        summary.add_row("slowest", f"{slowest.seconds / slowest.photos:.2f} s: {slowest.name}")
    for name, value in door.figures.items():
        summary.add_row(name, f"{value / 1e6:.0f} MB" if name in ("idle", "peak memory") else _number(value))
    summary.add_row("violations", str(len(door.violations)), style="red" if door.violations else "green")
    console.print(summary)
    table = Table("file or request", "answer", "s", "CPU s", "MB", "detail")
    for cost in _worth_showing(door.costs, titles):
        figures = (f"{cost.seconds:.2f}", f"{cost.cpu:.2f}", f"{cost.growth / 1e6:.0f}")
        table.add_row(cost.name, cost.answer, *figures, cost.detail[:150])
    if table.rows:
        console.print(table)
    for violation in door.violations[:40]:
        console.print(f"VIOLATED {door.name}: {violation}"[:400], markup=False)


def _worth_showing(costs: Sequence[Cost], titles: Collection[str]) -> Iterable[Cost]:
    expensive = (cost for cost in costs if cost.cpu > 1 or cost.growth > 100e6 or cost.photos > 1)
    return {cost.name: cost for cost in (*(cost for cost in costs if cost.name in titles), *expensive)}.values()


def _number(value: float | int | str) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def without_shm(folder: Path) -> tuple[str, ...] | None:
    """Return a prefix for commands that lets them see no /dev/shm; None where that is not allowed."""
    (folder / "dev").mkdir()
    root = () if os.geteuid() == 0 else ("--map-root-user",)
    prefix = ("unshare", "--mount", *root, "sh", "-c", WITHOUT_SHM, str(folder / "dev"))
    try:
        done = subprocess.run([*prefix, "true"], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return prefix if done.returncode == 0 else None


def doors(options: argparse.Namespace, corpus: Corpus, console: Console, folder: Path) -> Iterator[Door]:
    """Test every door that was named, one after the other."""
    for name in options.doors:
        if name == "serve":
            yield through_server(name, corpus, SERVE, folder, ())
        elif name == "function-url":
            if prefix := without_shm(folder):
                yield through_server(name, corpus, ("function-url",), folder, prefix)
            else:
                console.print("function-url: skipped, since 'unshare --mount' is not allowed here; run it as root")
        elif name == "attacks":
            for attack in ATTACKS:
                figures = attack.launch(folder / "attack.log")
                yield Door(f"attack: {attack.name}", violations=attack.violations(figures), figures=figures)
        else:
            yield through_command(name, corpus, folder)


def main() -> None:
    """Run; exit with 1 if a limit was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--doors", nargs="+", choices=DOORS, default=DOORS)
    parser.add_argument("--mutations", type=int, default=2000, help="for each door")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with edge and hostile, if there is one")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "hostile", help="folder for the report")
    options = parser.parse_args()
    console = Console(width=200, record=True)
    options.output.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(options.shared, options.mutations)
    opened: list[Door] = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        for door in doors(options, corpus, console, Path(folder)):
            opened.append(door)
            show(door, corpus.titles, console)
            # After every door: a run takes long and may be interrupted.
            report = json.dumps([dataclasses.asdict(each) for each in opened], indent=1)
            (options.output / "hostile.json").write_text(report)
            (options.output / "hostile.txt").write_text(console.export_text(clear=False))
    raise SystemExit(1 if any(door.violations for door in opened) else 0)


if __name__ == "__main__":
    main()
