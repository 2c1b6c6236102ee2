"""Assignment of photos to splits: stratified, near-duplicates together, and stable when photos are added."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.cluster.hierarchy import DisjointSet

from catsdogs_lib.data.checks import Reason

SPLITS = ("train", "val", "test")
"""The splits, in the order of precedence: of two photos that may not both stay, the one in the earlier split goes."""


class Member(NamedTuple):
    """A photo that needs a split.

    Parameters
    ----------
    sha256
        Of its bytes; unique among the members.
    label
        Its class.
    path
        Its name in reasons.
    split
        The split in which it must stay; empty if it may go anywhere.
    """

    sha256: str
    label: str
    path: str
    split: str = ""


class Assignment(NamedTuple):
    """The split of a photo, or the reason why it is excluded."""

    split: str = ""
    excluded: str = ""


def assign(
    members: Sequence[Member], pairs: Sequence[tuple[int, int]], shares: Mapping[str, float], seed: int
) -> list[Assignment]:
    """Assign every photo to a split.

    Photos with a split keep it; of two near-duplicates in different splits the one in train yields
    to val, and both to test. A new photo goes where its near-duplicates are. All others fill, class by class,
    the split that is furthest below its share, in an order drawn from their bytes: neither names nor the order
    of `members` matter, and a first run is stratified to within one group.

    Parameters
    ----------
    members
        The photos.
    pairs
        Indices of near-duplicates.
    shares
        The splits that are open to photos without one, and their shares, which sum to 1.
    seed
        Of the order in which photos are assigned.

    Returns
    -------
    list of Assignment
        In the order of `members`.
    """
    groups, tags, excluded = _settle(members, pairs, tuple(shares))
    undecided: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    placed: dict[str, Counter[str]] = defaultdict(Counter)
    assignments = [Assignment(excluded=excluded.get(index, "")) for index in range(len(members))]
    for index, member in enumerate(members):
        if index in excluded:
            continue
        root = groups[index]
        if root in tags:
            assignments[index] = Assignment(tags[root])
            placed[member.label][tags[root]] += 1
        else:
            undecided[member.label][root].append(index)
    for label, open_groups in undecided.items():
        split_of = _fill(
            {root: [members[i].sha256 for i in g] for root, g in open_groups.items()}, placed[label], shares, seed
        )
        for root, indices in open_groups.items():
            for index in indices:
                assignments[index] = Assignment(split_of[root])
    return assignments


def _settle(
    members: Sequence[Member], pairs: Sequence[tuple[int, int]], open_splits: tuple[str, ...]
) -> tuple[DisjointSet, dict[int, str], dict[int, str]]:
    """Group near-duplicates; return the groups, the split of those that have one, and excluded members with reasons."""
    neighbours: dict[int, list[int]] = defaultdict(list)
    for first, second in pairs:
        neighbours[first].append(second)
        neighbours[second].append(first)
    groups, tags, excluded = DisjointSet(range(len(members))), dict[int, str](), dict[int, str]()
    # Test first, then val: a photo that comes later and is too close to one already assigned is excluded.
    rank = {"test": 0, "val": 1, "train": 2, "": 3}
    seen: set[int] = set()
    for index in sorted(range(len(members)), key=lambda i: (rank[members[i].split], members[i].sha256)):
        member = members[index]
        beside = {other: groups[other] for other in neighbours[index] if other in seen}
        near: dict[str, str] = {}
        for other, root in beside.items():
            if root in tags:
                near[tags[root]] = min(members[other].path, near.get(tags[root], members[other].path))
        allowed = (member.split,) if member.split else open_splits
        foreign = sorted(set(near) - set(allowed), key=lambda split: rank[split])
        if foreign:
            excluded[index] = f"{Reason.NEAR_DUPLICATE} of {foreign[0]} photo {near[foreign[0]]}"
            continue
        if len(near) > 1:
            excluded[index] = f"{Reason.NEAR_DUPLICATE} of photos in two splits: {' and '.join(sorted(near.values()))}"
            continue
        seen.add(index)
        tag = member.split or next(iter(near), "")
        for other in beside:
            groups.merge(index, other)
        if tag:
            tags[groups[index]] = tag
    return groups, tags, excluded


def _fill(
    groups: Mapping[int, list[str]], placed: Counter[str], shares: Mapping[str, float], seed: int
) -> dict[int, str]:
    """Assign each undecided group of one class, given as its SHA-256 sums, to a split."""
    have = {split: placed[split] for split in shares}
    total = sum(have.values()) + sum(map(len, groups.values()))
    order = sorted(groups, key=lambda root: hashlib.sha256(f"{seed} {min(groups[root])}".encode()).digest())
    split_of = {}
    for done, root in enumerate(order):
        empty = [split for split in shares if not have[split]]
        # The last groups of a small class go to empty splits: a split that lacks a class is of no use.
        choice = empty if empty and len(order) - done <= len(empty) else list(shares)
        split_of[root] = max(choice, key=lambda split: shares[split] * total - have[split])
        have[split_of[root]] += len(groups[root])
    return split_of
