"""glibc's allocator, set to return the memory of large photos to the system."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGE_BLOCK_BYTES = 2**20


def return_large_blocks() -> None:
    """Map each block of a megabyte or more separately, so that freeing it returns it to the system.

    By default glibc raises this threshold, up to 32 MB, when such a block is freed; later blocks then come from a heap
    that fragments and never shrinks (mallopt(3), M_MMAP_THRESHOLD). Does nothing without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, LARGE_BLOCK_BYTES)
