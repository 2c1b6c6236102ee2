"""Memory in C: have glibc return large blocks to the system, and tell a failed allocation by errno."""

import ctypes
from collections.abc import Callable
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def return_large_blocks(min_bytes: int = 2**20) -> None:
    """Map each block of at least `min_bytes` separately, so that freeing it returns it to the system.

    By default glibc raises this threshold, up to 32 MB, when such a block is freed; later blocks then come from a heap
    that fragments and never shrinks (mallopt(3), M_MMAP_THRESHOLD). Does nothing without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, min_bytes)
        mallopt(_M_TRIM_THRESHOLD, min_bytes)


def c_errno() -> ctypes.c_int:
    """Return this thread's C errno, as set by the libraries that Python calls; without glibc, a variable nothing sets.

    Successful calls leave it unchanged.
    """
    location = _errno_location()
    return location().contents if location is not None else ctypes.c_int()


@cache
def _errno_location() -> Callable[[], "ctypes._Pointer[ctypes.c_int]"] | None:
    location = getattr(ctypes.CDLL(None), "__errno_location", None)
    if location is not None:
        location.restype = ctypes.POINTER(ctypes.c_int)
    return location
