"""Kill each stage of the graph at seeded moments, run it again, and compare the result with an unbroken run.

    python scripts/kill_series.py [--times 10] [--per-class 40] [--seed 0]

Every kill is SIGKILL to the stage's process group and its kernel. Afterwards the manifest must be identical, the
metrics the same, and no partial file may be left. Works in a copy of the project.
"""

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
STAGES = ("explore", "prepare", "train", "evaluate", "package")


def copy_project(folder: Path, per_class: int) -> None:
    """Copy the tracked files, with a smaller sample and a short fine-tuning that leaves checkpoints."""
    subprocess.run(["git", "-C", ROOT, "checkout-index", "-a", f"--prefix={folder}/"], check=True)
    subprocess.run([BIN / "dvc", "init", "--no-scm", "-q", "-f"], cwd=folder, check=True)
    text = (folder / "params.yaml").read_text()
    for name, value in (("per_class", per_class), ("method", "finetune"), ("baseline_epochs", 2)):
        text = re.sub(rf"(?m)^(\s+{name}: )\S+", rf"\g<1>{value}", text)
    (folder / "params.yaml").write_text(text)


def start(folder: Path, stage: str, *flags: str) -> "subprocess.Popen[bytes]":
    """Start one stage in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PATH": f"{BIN}:{os.environ['PATH']}"}
    log = (folder / "kill-series.log").open("ab")
    command = [sys.executable, "-m", "dvc", "repro", "-s", *flags, stage]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
    )


def descendants(pid: int) -> list[int]:
    """Return all processes below `pid`; a kernel has its own session and would outlive the group."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    pids, pending = [], [pid]
    while pending:
        children = parents.get(pending.pop(), [])
        pids += children
        pending += children
    return pids


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGKILL to the process group and to everything below it."""
    below = descendants(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def outcome(folder: Path) -> dict[str, object]:
    """Return what must be the same after any number of kills."""
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    description = json.loads((folder / "models" / "bundle" / "model.json").read_text())
    return {
        "manifest": (folder / "data" / "manifest.csv").read_bytes(),
        "metrics": metrics,
        "graph": description["graph"]["sha256"],
        "golden": description["golden"],
        "half-written": sorted(
            str(path.relative_to(folder)) for path in folder.rglob(".partial-*") if ".dvc" not in path.parts
        ),
    }


def run_whole(folder: Path, stage: str) -> float:
    """Run a stage to its end; return the seconds it took."""
    begin = time.monotonic()
    if start(folder, stage).wait():
        raise SystemExit(f"stage {stage} failed; see {folder / 'kill-series.log'}")
    return time.monotonic() - begin


def main() -> None:
    """Run the series; ends with 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="kills of each stage")
    parser.add_argument("--per-class", type=int, default=40, help="drawn pictures of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="kill-series-") as name:
        whole, broken = Path(name) / "whole", Path(name) / "broken"
        for folder in (whole, broken):
            folder.mkdir()
            copy_project(folder, options.per_class)
        seconds = {stage: run_whole(whole, stage) for stage in STAGES}
        expected = outcome(whole)
        kills = 0
        for stage in STAGES:
            done = 0
            while done < options.times:
                process = start(broken, stage, "--force")
                moment = chance.uniform(0.05, 0.95) * seconds[stage]
                try:
                    process.wait(moment)
                except subprocess.TimeoutExpired:
                    kill(process)
                    done += 1
                    print(f"{stage}: killed after {moment:.1f} s of {seconds[stage]:.1f} s", flush=True)
            kills += done
            run_whole(broken, stage)
        actual = outcome(broken)
        different = [key for key in expected if expected[key] != actual[key]]
        print(f"{kills} kills; {'all the same' if not different else 'DIFFERENT: ' + ', '.join(different)}")
        if different or actual["half-written"]:
            for key in different:
                if key != "manifest":
                    print(key, expected[key], actual[key], sep="\n  ")
            raise SystemExit(1)


if __name__ == "__main__":
    main()
