"""The processes in which photos are decoded: a keeper that forks workers, and the worker that decodes under limits.

They need neither `/dev/shm` nor semaphores, which Lambda lacks: photos and pixels pass through sockets. The system
enforces the limits of each photo (``RLIMIT_AS``, interval timers) and ends a worker that exceeds them; nothing in the
worker has to cooperate.
"""

import gc
import importlib
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from catsdogs_lib.common.malloc import return_large_blocks
from catsdogs_lib.imaging.decoding import OUT_OF_MEMORY, PhotoError, PhotoTooLargeError

Decode = Callable[..., tuple[Any, bytes]]
"""A module-level function ``decode(source, *arguments)`` that returns a value for JSON, and bytes."""

WORN_BYTES = 32 * 2**20
"""A worker whose address space has grown by more than this is replaced: what is left for a photo would shrink."""
LARGE_BLOCK_BYTES = 4 * 2**20
"""Smaller blocks, which are all of a small photo, are kept for the next one: mapping them anew takes 2 ms."""
MAX_JOINED_BYTES = 2**20
MAX_DESCRIPTORS = 2**20
_LENGTHS = struct.Struct("QQ")


@dataclass(frozen=True)
class PhotoLimits:
    """Limits on decoding one photo.

    Parameters
    ----------
    cpu_seconds
        Processor time. A photo may cost two seconds in all; the rest is for everything but decoding.
    wall_seconds
        Elapsed time, which also ends a worker that is blocked.
    memory_bytes
        Address space beyond that of the idle worker, together with the caller's copy of the photo.
    """

    cpu_seconds: float = 1.8
    wall_seconds: float = 30.0
    memory_bytes: int = 250_000_000


def send(stream: socket.socket, header: Any, data: bytes = b"") -> None:
    """Send a message: a value for JSON, and bytes."""
    text = json.dumps(header).encode()
    start = _LENGTHS.pack(len(text), len(data)) + text
    # One piece wakes the receiver once, but costs a copy, which a large photo is spared.
    if len(data) < MAX_JOINED_BYTES:
        stream.sendall(start + data)
    else:
        stream.sendall(start)
        stream.sendall(data)


def receive(stream: BinaryIO) -> tuple[Any, bytes]:
    """Receive a message; raises `EOFError` if the other side has closed the connection."""
    lengths = _LENGTHS.unpack(_read(stream, _LENGTHS.size))
    text, data = _read(stream, lengths[0]), _read(stream, lengths[1])
    return json.loads(text), data


def _read(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def name_of(decode: Decode) -> str:
    """Return the name by which `main` finds a module-level function again."""
    return f"{decode.__module__}:{decode.__qualname__}"


def command(decode: Decode, limits: PhotoLimits, descriptor: int) -> list[str]:
    """Return the command line that runs `main`."""
    arguments = [str(descriptor), name_of(decode), *map(str, astuple(limits))]
    return [sys.executable, "-P", "-m", __name__, *arguments]


def main(descriptor: str, name: str, cpu_seconds: str, wall_seconds: str, memory_bytes: str) -> NoReturn:
    """Keep workers for the process that holds the other end of the socket `descriptor`."""
    module, _, function = name.partition(":")
    decode = getattr(importlib.import_module(module), function)
    limits = PhotoLimits(float(cpu_seconds), float(wall_seconds), int(memory_bytes))
    keep(socket.socket(fileno=int(descriptor)), decode, limits)


def keep(control: socket.socket, decode: Decode, limits: PhotoLimits) -> NoReturn:
    """Fork a worker for each byte received, send its socket, and report how it ended; exit once `control` is closed.

    The signal that ended a worker is sent as one byte, 0 if there was none.
    """
    status = 1
    try:
        control = _leave_parent(control)
        while control.recv(1):
            ours, theirs = socket.socketpair()
            worker = os.fork()
            if not worker:
                control.close()
                ours.close()
                work(theirs, decode, limits)
            theirs.close()
            socket.send_fds(control, [b"+"], [ours.fileno()])
            ours.close()
            exit_code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
            control.send(bytes([max(0, -exit_code)]))
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _leave_parent(control: socket.socket) -> socket.socket:
    """Drop what a forked keeper has inherited (descriptors, signal handlers, garbage); return its socket."""
    # Objects of the parent must not be collected here: they would close descriptors that now are ours.
    gc.freeze()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(control.detach(), 3)
    os.closerange(4, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], MAX_DESCRIPTORS))
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # Ctrl-C and a stop reach the whole group; the process that is served decides when its decoders end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGCHLD, signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    return socket.socket(fileno=3)


def work(connection: socket.socket, decode: Decode, limits: PhotoLimits) -> NoReturn:
    """Decode photos until the other side closes the connection, or this process has grown too large."""
    status = 1
    try:
        warnings.simplefilter("ignore")  # Pillow's warnings address programmers
        return_large_blocks(LARGE_BLOCK_BYTES)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        baseline = _address_space()
        send(connection, {"limited": _is_limited(baseline, limits)})
        stream = connection.makefile("rb")
        worn = False
        while not worn:
            request, data = receive(stream)
            path = request["path"]
            reply, pixels = _decode_limited(
                decode,
                data if path is None else Path(os.fsdecode(bytes.fromhex(path))),
                request["arguments"],
                baseline,
                limits,
            )
            del data
            worn = _address_space() > baseline + WORN_BYTES
            send(connection, {**reply, "last": worn}, pixels)
            del pixels
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _decode_limited(
    decode: Decode, source: bytes | Path, arguments: list[Any], baseline: int, limits: PhotoLimits
) -> tuple[dict[str, Any], bytes]:
    # The calling process holds a photo given as bytes as well.
    held_elsewhere = len(source) if isinstance(source, bytes) else 0
    _limit_memory(baseline + limits.memory_bytes - held_elsewhere if baseline else resource.RLIM_INFINITY)
    signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)
    try:
        value, pixels = decode(source, *arguments)
    except (MemoryError, RecursionError):
        return {"refusal": [PhotoTooLargeError.__name__, OUT_OF_MEMORY]}, b""
    except PhotoError as error:
        return {"refusal": [type(error).__name__, str(error)]}, b""
    except Exception:
        return {"failure": traceback.format_exc()}, b""
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _limit_memory(resource.RLIM_INFINITY)
    return {"value": value}, pixels


def _address_space() -> int:
    """Return the bytes of this process's address space; 0 where the system does not report it."""
    try:
        with open("/proc/self/statm", "rb") as pages:  # noqa: PTH123 - no path object for each photo
            return int(pages.read().split()[0]) * mmap.PAGESIZE
    except OSError:
        return 0


def _limit_memory(limit: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY and (limit == resource.RLIM_INFINITY or limit > hard):
        limit = hard
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _is_limited(baseline: int, limits: PhotoLimits) -> bool:
    """Try to exceed the limit on memory: macOS accepts it and ignores it."""
    if not baseline:
        return False
    _limit_memory(baseline + limits.memory_bytes)
    try:
        mmap.mmap(-1, 2 * limits.memory_bytes).close()
    except OSError:
        return True
    finally:
        _limit_memory(resource.RLIM_INFINITY)
    return False


if __name__ == "__main__":
    main(*sys.argv[1:])
