"""Which photos show the same picture: perceptual hashes propose, thumbnails decide.

The limits were set on 4 000 photos of cats and dogs and on changed copies of some. Of their 8 million
pairs the closest two different photos are 10 bits apart and no two correlate above 0.87. A copy that
was scaled, compressed again, made gray, darker or brighter, turned by one degree or cropped by 1 % on each
side lies within 8 bits and above 0.95, and nearly always above 0.97.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

DISTANCE = 8
"""At most this many of the 64 bits of the hashes of near-duplicates differ."""
CORRELATION = 0.96
"""At least so much do the gray thumbnails of near-duplicates correlate."""
DISTANCE_STRICT = 4
"""As `DISTANCE`, where the labels differ: a false pair would cost two photos."""
CORRELATION_STRICT = 0.99
"""As `CORRELATION`, where the labels differ."""
MIN_CONTRAST = 3.0
"""Thumbnails whose standard deviation is below this, of 255, show nothing that could be compared."""

BLOCK = 512
"""Rows of the distance matrix that are held at a time: 100 MB for 25 000 photos."""
CHUNK = 8192
"""Pairs of thumbnails that are compared at a time: 64 MB."""


def near_duplicates(
    hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8], labels: Sequence[str]
) -> NDArray[np.int64]:
    """Find all pairs of near-duplicates; pairs of different labels have to be as good as identical.

    Parameters
    ----------
    hashes
        Perceptual hashes, shape (N,).
    thumbnails
        Luma, shape (N, pixels).
    labels
        The class of each, N of them.

    Returns
    -------
    ndarray of int64, shape (pairs, 2)
        Indices, the smaller one first, sorted.
    """
    deviation = np.array([row.std() for row in thumbnails], dtype=np.float32)
    textured = np.flatnonzero(deviation >= MIN_CONTRAST)
    codes = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)[1]
    pairs = []
    for rows, columns, distance in _candidates(hashes[textured]):
        first, second = textured[rows], textured[columns]
        correlation = _correlation(thumbnails[first], thumbnails[second])
        alike = codes[first] == codes[second]
        limit = np.where(alike, CORRELATION, CORRELATION_STRICT)
        kept = (correlation >= limit) & (alike | (distance <= DISTANCE_STRICT))
        pairs.append(np.stack([first[kept], second[kept]], axis=1))
    return np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64)


def _candidates(
    hashes: NDArray[np.uint64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]]:
    """Yield row, column and distance of the pairs within `DISTANCE`, at most `CHUNK` at a time."""
    for begin in range(0, len(hashes), BLOCK):
        block = hashes[begin : begin + BLOCK]
        distance = np.bitwise_count(block[:, None] ^ hashes[None, begin:])
        rows, columns = np.nonzero(distance <= DISTANCE)
        above = columns > rows  # each pair once, none with itself
        rows, columns = rows[above], columns[above]
        for at in range(0, len(rows), CHUNK):
            some, others = rows[at : at + CHUNK], columns[at : at + CHUNK]
            yield some + begin, others + begin, distance[some, others]


def _correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pearson's correlation of corresponding rows."""
    one, two = first.astype(np.float32), second.astype(np.float32)
    one -= one.mean(axis=1, keepdims=True)
    two -= two.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    product: NDArray[np.float32] = np.einsum("ij,ij->i", one, two) / norms
    return product


def components(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Number the groups that `pairs` connect: for each of `count` items the smallest index in its group."""
    groups = Groups(count)
    for first, second in pairs:
        groups.join(first, second)
    return [groups.root(index) for index in range(count)]


class Groups:
    """Items that are joined into groups one pair at a time; a group is named by its smallest item."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, item: int) -> int:
        """Name the group of `item`."""
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]  # halve the way for the next one
            item = parent[item]
        return item

    def join(self, first: int, second: int) -> int:
        """Make one group of two and name it."""
        small, large = sorted((self.root(first), self.root(second)))
        self._parent[large] = small
        return small
