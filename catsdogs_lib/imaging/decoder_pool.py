"""A pool of processes that decode photos, with limits on what each photo may cost."""

import contextlib
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from catsdogs_lib.imaging import decoder_process, decoding
from catsdogs_lib.imaging.decoder_process import Decode, PhotoLimits
from catsdogs_lib.imaging.decoding import PhotoError, PhotoTooLargeError, UndecodableError

DEFAULT_LIMITS = PhotoLimits()
_UNSAFE_TO_FORK = frozenset({"onnxruntime", "torch"})


class DecoderPool:
    """Processes that decode photos, each within limits on its processor time and memory.

    Any number of threads may share a pool; a photo waits until a process is free. Create it before other threads start
    and before ONNX Runtime is imported: its processes are then forked, which takes milliseconds. Otherwise each starts
    in a fresh interpreter, on first use.

    Parameters
    ----------
    decode
        Runs in the processes; a module-level function, see `Decode`. It may raise `PhotoError`.
    count
        Number of processes.
    limits
        Limits on one photo.
    """

    def __init__(self, decode: Decode, count: int, limits: PhotoLimits = DEFAULT_LIMITS) -> None:
        self._idle: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        decoders = [_Decoder(decode, limits) for _ in range(count)]
        may_fork = sys.platform == "linux" and threading.active_count() == 1 and not _UNSAFE_TO_FORK & set(sys.modules)
        for decoder in decoders:
            if may_fork:
                decoder.fork()
            self._idle.put(decoder)
        self._close = weakref.finalize(self, _close_all, decoders)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._close()

    def call(self, source: bytes | Path, *arguments: Any) -> tuple[Any, bytes]:
        """Call ``decode(source, *arguments)`` in one of the processes, and return its result.

        Raises
        ------
        PhotoError
            `decode` raised it, or the photo exceeded a limit or crashed its decoder.
        """
        decoder = self._idle.get()
        try:
            return decoder.call(source, arguments)
        finally:
            self._idle.put(decoder)


@cache
def shared_pool(decode: Decode, count: int) -> DecoderPool:
    """Get the pool of `count` processes for a function, kept until this process exits: starting one is slow."""
    return DecoderPool(decode, count)


def _close_all(decoders: "list[_Decoder]") -> None:
    for decoder in decoders:
        decoder.close()


class _WorkerEndedError(Exception):
    """The worker ended before it answered, by a signal or (0) by itself."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Decoder:
    """A keeper process and the worker that it has forked, one at a time."""

    def __init__(self, decode: Decode, limits: PhotoLimits) -> None:
        self._decode, self._limits = decode, limits
        self._control: socket.socket | None = None
        self._wait: Callable[[], object] = lambda: None
        self._connection: socket.socket | None = None
        self._stream: BinaryIO | None = None

    def call(self, source: bytes | Path, arguments: tuple[Any, ...]) -> tuple[Any, bytes]:
        try:
            return self._call(source, arguments)
        except _WorkerEndedError as ended:
            if ended.number not in (0, signal.SIGKILL):
                raise self._refusal(ended.number) from None
        # Killed from outside, by the OOM killer or before the photo arrived: one more try.
        try:
            return self._call(source, arguments)
        except _WorkerEndedError as ended:
            raise self._refusal(ended.number) from None

    def fork(self) -> None:
        """Fork the keeper; only where no other thread can hold a lock."""
        self._control, theirs = socket.socketpair()
        with warnings.catch_warnings():
            # Python counts the threads of OpenBLAS, which provides for forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            keeper = os.fork()
        if not keeper:
            decoder_process.keep(theirs, self._decode, self._limits)
        theirs.close()
        self._wait = lambda: os.waitpid(keeper, 0)
        self._control.send(b"+")  # the worker gets ready while the parent goes on

    def close(self) -> None:
        """Stop the worker and its keeper; a worker that is decoding finishes its photo first."""
        for channel in (self._connection, self._control):
            if channel is not None:
                _shut_down(channel, socket.SHUT_WR)
        for end in (self._stream, self._connection, self._control):
            if end is not None:
                end.close()
        self._stream = self._connection = self._control = None
        with contextlib.suppress(OSError):
            self._wait()
        self._wait = lambda: None

    def _spawn(self) -> None:
        self._control, theirs = socket.socketpair()
        keeper = subprocess.Popen(  # noqa: S603 - this very Python
            decoder_process.command(self._decode, self._limits, theirs.fileno()),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        theirs.close()
        self._wait = keeper.wait
        self._control.send(b"+")

    def _start(self) -> None:
        """Receive the socket of the next worker."""
        if self._control is None:
            self._spawn()
        assert self._control is not None
        try:
            _, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
            if not descriptors:
                raise EOFError
            self._connection = socket.socket(fileno=descriptors[0])
            self._stream = self._connection.makefile("rb")
            if not decoder_process.receive(self._stream)[0]["limited"]:
                _warn_without_limit()
        except (EOFError, OSError):
            self.close()
            raise _WorkerEndedError(0) from None
        except BaseException:
            self.close()  # an unread greeting would be taken for the reply to the next photo
            raise

    def _call(self, source: bytes | Path, arguments: tuple[Any, ...]) -> tuple[Any, bytes]:
        if self._stream is None:
            self._start()
        assert self._stream is not None
        assert self._connection is not None
        data, path = (source, None) if isinstance(source, bytes) else (b"", os.fsencode(source.absolute()).hex())
        try:
            decoder_process.send(self._connection, {"path": path, "arguments": arguments}, data)
            reply, pixels = decoder_process.receive(self._stream)
        except (EOFError, OSError):
            raise _WorkerEndedError(self._replace()) from None
        except BaseException:
            self._replace()
            raise
        if reply["last"]:
            self._replace()
        if refusal := reply.get("refusal"):
            raise _refusal_of(*refusal)
        if failure := reply.get("failure"):
            raise RuntimeError(f"the decoder process failed:\n{failure}")
        return reply["value"], pixels

    def _replace(self) -> int:
        """Request the next worker; return the signal that ended this one, 0 if there was none."""
        assert self._stream is not None
        assert self._connection is not None
        assert self._control is not None
        _shut_down(self._connection, socket.SHUT_RDWR)
        self._stream.close()
        self._connection.close()
        self._stream = self._connection = None
        try:
            ended = self._control.recv(1)
            self._control.send(b"+")
        except OSError:
            ended = b""
        if not ended:
            self.close()
        return ended[0] if ended else 0

    def _refusal(self, number: int) -> PhotoError:
        if number in (signal.SIGPROF, signal.SIGALRM):
            seconds, kind = (
                (self._limits.cpu_seconds, "processor time")
                if number == signal.SIGPROF
                else (self._limits.wall_seconds, "time")
            )
            return PhotoTooLargeError(
                f"the photo takes more than {seconds:g} s of {kind} to decode; scale it down, or save it as a baseline "
                "JPEG"
            )
        if number in (0, signal.SIGKILL):
            return PhotoTooLargeError("there is too little memory to decode the photo; scale it down")
        name = signal.Signals(number).name
        return UndecodableError(f"the photo crashes its decoder ({name}); save it anew, for example as JPEG")


def _shut_down(end: socket.socket, how: int) -> None:
    # Closing is not enough while a process that was forked from this one, such as a DataLoader's, has the socket, too.
    with contextlib.suppress(OSError):
        end.shutdown(how)


@cache
def _warn_without_limit() -> None:
    logging.getLogger(__name__).warning(
        "this system does not limit the memory that decoding a photo takes; serve untrusted photos from Linux"
    )


def _refusal_of(name: str, message: str) -> PhotoError:
    # Refusals of other packages arrive as PhotoError.
    return getattr(decoding, name, PhotoError)(message)
