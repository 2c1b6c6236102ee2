"""Memory and processor time of a process with all its descendants, from Linux's /proc."""

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Self

TICK = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


class ProcessTree:
    """A process and its living descendants.

    Parameters
    ----------
    root
        Process id of the first.
    """

    def __init__(self, root: int) -> None:
        self.root = root

    def pids(self) -> list[int]:
        """List the processes that live, the root first."""
        pids = [self.root]
        for pid in pids:  # grows while it is read
            pids += self._children(pid)
        return pids

    @staticmethod
    def _children(pid: int) -> list[int]:
        children: list[int] = []
        with contextlib.suppress(OSError):
            for task in (PROC / str(pid) / "task").iterdir():
                children += map(int, (task / "children").read_text().split())
        return children

    def workers(self, command: bytes) -> set[int]:
        """List the children of the root, without theirs, whose command line holds some words."""
        pids = set()
        for pid in self._children(self.root):
            with contextlib.suppress(OSError):
                if command in (PROC / str(pid) / "cmdline").read_bytes():
                    pids.add(pid)
        return pids

    def bytes(self) -> int:
        """Add up the proportional set sizes: pages that several processes share count once."""
        return sum(_kilobytes(pid, "smaps_rollup", "Pss:") for pid in self.pids()) * 1024

    def resident(self) -> dict[int, int]:
        """Get the resident bytes of each process."""
        return {pid: _kilobytes(pid, "status", "VmRSS:") * 1024 for pid in self.pids()}

    def peaks(self) -> dict[int, int]:
        """Get the most bytes that were resident in each process since `reset_peaks`."""
        return {pid: _kilobytes(pid, "status", "VmHWM:") * 1024 for pid in self.pids()}

    def reset_peaks(self) -> None:
        """Reset what `peaks` returns."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                (PROC / str(pid) / "clear_refs").write_text("5")

    def is_running(self) -> bool:
        """Tell whether any thread is running or runnable."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for task in (PROC / str(pid) / "task").iterdir():
                    if (task / "stat").read_text().rpartition(")")[2].split()[0] == "R":
                        return True
        return False

    def cpu_seconds(self) -> float:
        """Add up the processor time, that of descendants which have ended and been waited for included."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                # The name in parentheses may hold spaces; utime is the 14th field, cstime the 17th.
                fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))
        return ticks / TICK


def _kilobytes(pid: int, file: str, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / file).read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return 0


class Sampler:
    """A context manager that calls `sample` on a thread of its own.

    Parameters
    ----------
    interval
        Seconds between the end of one sample and the start of the next.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def sample(self) -> None:
        """Take one sample."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._interval):
            self.sample()


class MemoryWatch(Sampler):
    """A thread that samples a tree's memory.

    Parameters
    ----------
    tree
        Its processes.
    """

    def __init__(self, tree: ProcessTree) -> None:
        super().__init__(interval=0.02)
        self._tree = tree
        self.samples: list[int] = []

    def take(self) -> int:
        """Return the most bytes seen since the last call."""
        samples, self.samples = self.samples, []
        return max([self._tree.bytes(), *samples])

    def sample(self) -> None:
        """Add up the memory of the tree."""
        self.samples.append(self._tree.bytes())


class Idle:
    """A tree at rest, against which growth is measured."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree
        self.total, self.each = tree.bytes(), tree.resident()

    def growth(self, most: int) -> int:
        """Compute the memory used beyond that: the sampled maximum `most`, or the exact peak of any one process."""
        peaks = self._tree.peaks()
        exact = max((peaks[pid] - self.each[pid] for pid in peaks.keys() & self.each.keys()), default=0)
        return max(0, most - self.total, exact)


def wait_for_rest(tree: ProcessTree, seconds: float = 60.0) -> float:
    """Wait until no thread of a tree is running or runnable, and return its processor seconds."""
    end, quiet = time.monotonic() + seconds, 0
    while quiet < 3 and time.monotonic() < end:
        quiet = 0 if tree.is_running() else quiet + 1
        time.sleep(0.03)
    return tree.cpu_seconds()
