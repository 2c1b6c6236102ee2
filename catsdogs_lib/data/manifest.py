"""The manifest: one row a file that says what it is, where it belongs, and why it is left out if it is.

Nothing is ever deleted from the raw folder; the manifest alone decides what is used.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.data import splits
from catsdogs_lib.data.checks import CheckedPhoto, Reason, check_photos
from catsdogs_lib.data.duplicates import components, near_duplicates
from catsdogs_lib.data.exclusions import read_exclusions, relabelled
from catsdogs_lib.data.folders import FoundPhoto, find_photos
from catsdogs_lib.data.settings import PrepareSettings

COLUMNS = {
    "path": "str",
    "label": "str",
    "split": "str",
    "excluded": "str",
    "warning": "str",
    "group": "str",
    "sha256": "str",
    "bytes": "int64",
    "format": "str",
    "width": "int64",
    "height": "int64",
    "mode": "str",
    "orientation": "int64",
    "phash": "str",
    "brightness": "float64",
    "sharpness": "float64",
    "grayscale": "bool",
}
"""The columns in their order, and the dtype of each. `checks.CheckedPhoto` says what they mean."""


class ManifestError(CatsdogsError):
    """A manifest cannot be read.

    Parameters
    ----------
    path
        The file.
    problem
        What is wrong with it, to follow a colon.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"manifest {path}: {problem}; prepare the data again")
        self.path = path
        self.problem = problem


class EmptyClassError(CatsdogsError):
    """A class has no photo that could be used, or none in one of the splits.

    Parameters
    ----------
    label
        The class.
    split
        The split that has none; empty where no split has any.
    files, usable
        How many files the class has, and how many of them are used.
    reason
        The commonest reason for leaving one out; empty where none was.
    """

    def __init__(self, label: str, split: str, files: int, usable: int, reason: str) -> None:
        where = f"no photo in {split}" if split else "no photo that can be used"
        why = f", most others are left out as '{reason}'" if reason else ""
        super().__init__(f"class '{label}' has {where}: {usable} of its {files} files are usable{why}; add photos")
        self.label, self.split, self.files, self.usable, self.reason = label, split, files, usable, reason


def split_key(settings: PrepareSettings) -> str:
    """Digest what decides the split, 12 hexadecimal digits: an earlier manifest counts only under the same."""
    return files.digest([float(settings.validation), float(settings.test), settings.seed])[:12]


def build_manifest(
    raw: Path, settings: PrepareSettings, previous: pd.DataFrame | None = None, workers: int | None = None
) -> pd.DataFrame:
    """Check every file below `raw`, find duplicates, and give every usable photo a split.

    Parameters
    ----------
    raw
        ``<class>/<file>`` or ``train|val|test/<class>/<file>``; a split that is there is kept.
    settings
        See `PrepareSettings`.
    previous
        The manifest of an earlier run with the same `split_key`: its photos, known by their bytes, keep their split.
    workers
        Number of threads; None takes one for each core.

    Returns
    -------
    pandas.DataFrame
        With `COLUMNS`, sorted by path.

    Raises
    ------
    LayoutError
        The folder does not hold two classes of photos.
    EmptyClassError
        A class ends up without a photo, or without one in a split.
    SettingsError
        The exclusions cannot be read.
    """
    by_hand = read_exclusions(settings.exclusions)
    found, labels = find_photos(raw)
    checked = check_photos([one.path for one in found], settings.min_side, workers)
    decided = [by_hand.get(one.name) or by_hand.get(check.sha256) for one, check in zip(found, checked, strict=True)]
    found = [relabelled(one, decision, labels) for one, decision in zip(found, decided, strict=True)]
    excluded = [
        f"{Reason.BY_HAND}: {decision.reason}" if decision and not decision.label else check.excluded
        for decision, check in zip(decided, checked, strict=True)
    ]
    ledger, kept_before = _ledger(previous)
    given = {one.split for one in found if one.split}
    shares = _shares(settings, given)
    open_split = {
        index: "" if one.split == "train" and len(shares) > 1 else one.split for index, one in enumerate(found)
    }

    photos = _without_copies(found, checked, excluded, kept_before)
    pairs = _pairs(found, checked, photos)
    _exclude_two_labels(found, photos, pairs, excluded)

    # Of one group now all have the same label; who gets no split any more takes no part.
    number = {index: at for at, index in enumerate(i for i in photos if not excluded[i])}
    members = []
    for index in number:
        sha256 = checked[index].sha256
        remembered = ledger.get(sha256, "")
        split = open_split[index] or (remembered if remembered in shares else "")
        members.append(splits.Member(sha256, found[index].label, found[index].name, split))
    inner = [(number[a], number[b]) for a, b in pairs if a in number and b in number]
    places = splits.assign(members, inner, shares, settings.seed)
    split_of = [""] * len(found)
    for index, place in zip(number, places, strict=True):
        split_of[index], excluded[index] = place.split, place.excluded

    table = pd.DataFrame([vars(check) for check in checked]).rename(columns={"size": "bytes"})
    table = table.assign(
        path=[one.name for one in found],
        label=[one.label for one in found],
        split=split_of,
        excluded=excluded,
        group=_groups(checked, pairs, excluded),
    )[list(COLUMNS)].astype(COLUMNS)
    table = table.sort_values("path", ignore_index=True)
    _refuse_empty(table, labels)
    return table


def _ledger(previous: pd.DataFrame | None) -> tuple[dict[str, str], set[str]]:
    """Split by SHA-256, and the paths that were used."""
    if previous is None:
        return {}, set()
    rows = used(previous)
    return dict(zip(rows["sha256"], rows["split"], strict=True)), set(rows["path"])


def _shares(settings: PrepareSettings, given: set[str]) -> dict[str, float]:
    """Give the share of each split that is open to photos which the folders do not place."""
    shares = {"val": settings.validation, "test": settings.test}
    cut = {split: share for split, share in shares.items() if split not in given}
    return {"train": 1 - sum(cut.values()), **cut}


def _without_copies(
    found: Sequence[FoundPhoto], checked: Sequence[CheckedPhoto], excluded: list[str], kept_before: set[str]
) -> list[int]:
    """Exclude all but one of the same bytes under the same label; list the others."""
    copies: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, one in enumerate(found):
        if not excluded[index]:
            copies[checked[index].sha256, one.label].append(index)

    def preference(index: int) -> tuple[int, bool, str]:
        one = found[index]
        return -splits.SPLITS.index(one.split or "train"), one.name not in kept_before, one.name

    kept = []
    for same in copies.values():
        best, *others = sorted(same, key=preference)
        kept.append(best)
        for index in others:
            excluded[index] = f"{Reason.EXACT_DUPLICATE} of {found[best].name}"
    return sorted(kept)


def _pairs(
    found: Sequence[FoundPhoto], checked: Sequence[CheckedPhoto], photos: Sequence[int]
) -> list[tuple[int, int]]:
    """Pair near-duplicates among `photos`, and the same bytes under two labels."""
    if not photos:
        return []
    hashes = np.array([int(checked[index].phash, 16) for index in photos], dtype=np.uint64)
    thumbnails = np.stack([np.frombuffer(checked[index].thumbnail, dtype=np.uint8) for index in photos])
    near = near_duplicates(hashes, thumbnails, [found[index].label for index in photos])
    pairs = [(photos[first], photos[second]) for first, second in near.tolist()]
    first_with: dict[str, int] = {}
    for index in photos:
        # A flat picture has no near-duplicates, so the bytes have to be looked at, too.
        other = first_with.setdefault(checked[index].sha256, index)
        if other != index:
            pairs.append((other, index))
    return pairs


def _exclude_two_labels(
    found: Sequence[FoundPhoto], photos: Sequence[int], pairs: Sequence[tuple[int, int]], excluded: list[str]
) -> None:
    roots = components(len(found), pairs)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in photos:
        groups[roots[index]].append(index)
    for group in groups.values():
        if len({found[index].label for index in group}) > 1:
            for index in group:
                other = next(i for i in group if found[i].label != found[index].label)
                excluded[index] = f"{Reason.TWO_LABELS}: also {found[other].name}"


def _groups(checked: Sequence[CheckedPhoto], pairs: Sequence[tuple[int, int]], excluded: Sequence[str]) -> list[str]:
    """Name each group by its smallest SHA-256; who was excluded as a near-duplicate links nobody."""
    first_with: dict[str, int] = {}
    same = [(first_with.setdefault(check.sha256, index), index) for index, check in enumerate(checked)]
    near = [pair for pair in pairs if not any(excluded[i].startswith(Reason.NEAR_DUPLICATE) for i in pair)]
    roots = components(len(checked), [*same, *near])
    smallest: dict[int, str] = {}
    for index, root in enumerate(roots):
        smallest[root] = min(checked[index].sha256, smallest.get(root, "g"))
    return [smallest[root][:12] for root in roots]


def _refuse_empty(table: pd.DataFrame, labels: Sequence[str]) -> None:
    for label in labels:
        rows = table[table["label"] == label]
        usable = used(rows)
        reasons = Counter(Reason.of(text) or text for text in rows["excluded"] if text)
        commonest = str(reasons.most_common(1)[0][0]) if reasons else ""
        missing = [split for split in splits.SPLITS if not (usable["split"] == split).any()]
        if missing:
            raise EmptyClassError(label, missing[0] if len(usable) else "", len(rows), len(usable), commonest)


def write_manifest(table: pd.DataFrame, path: Path) -> None:
    """Write a manifest as CSV, sorted by path, as a whole or not at all; the same table gives the same bytes."""
    rows = table[list(COLUMNS)].sort_values("path")
    files.write_text(path, rows.to_csv(index=False, lineterminator="\n"))


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest with exactly the dtypes of `COLUMNS`.

    Raises
    ------
    ManifestError
        Missing, or not a manifest.
    """
    # Fractions are read as text first: not every version of pandas reads them back to the last bit.
    fractions = [name for name, dtype in COLUMNS.items() if dtype == "float64"]
    try:
        table = pd.read_csv(path, dtype=COLUMNS | dict.fromkeys(fractions, "str"), keep_default_na=False)
        if list(table.columns) == list(COLUMNS):
            table[fractions] = table[fractions].replace("", "nan").astype("float64")
    except FileNotFoundError:
        raise ManifestError(path, "there is no such file") from None
    except OSError as error:
        raise ManifestError(path, f"it cannot be read ({error.strerror})") from None
    except (ValueError, TypeError):  # covers pandas' parser errors, wrong dtypes and wrong encoding
        raise ManifestError(path, "its content is not that of a manifest") from None
    if list(table.columns) != list(COLUMNS):
        wrong = sorted(set(COLUMNS) ^ set(map(str, table.columns)))
        raise ManifestError(path, f"its columns are not those of a manifest (see {', '.join(wrong) or 'their order'})")
    return table


def used(table: pd.DataFrame, split: str | None = None) -> pd.DataFrame:
    """Give the rows that are not excluded, of one split or of all."""
    rows = table[table["excluded"] == ""]
    return rows if split is None else rows[rows["split"] == split]


def classes(table: pd.DataFrame) -> tuple[str, ...]:
    """Name the classes of a manifest, sorted."""
    return tuple(sorted(set(table["label"])))


def data_hash(table: pd.DataFrame) -> str:
    """SHA-256 over bytes, label and split of every used photo: the same data set, whatever the files are called."""
    rows = used(table)
    return files.digest(sorted(map(list, zip(rows["sha256"], rows["label"], rows["split"], strict=True))))
