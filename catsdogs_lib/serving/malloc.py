"""What a large photo needed goes back to the system once it is answered."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGE_BLOCK_BYTES = 2**20


def give_back_large_blocks() -> None:
    """Have glibc map each block of a megabyte or more by itself, so that freeing it gives it back.

    Left alone it raises that threshold to 32 MB once such a block has been freed; the next ones then come out of a
    heap that fragments and stays at its highest level (mallopt(3), M_MMAP_THRESHOLD). Without glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, LARGE_BLOCK_BYTES)
