"""The manifest: one row a file that says what it is, where it belongs, and why it is left out if it is.

Nothing is ever deleted from the raw folder; the manifest alone decides what is used.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from catsdogs_lib.common import errors, files
from catsdogs_lib.data import checks, duplicates, folders, splits
from catsdogs_lib.data.exclusions import read_exclusions, relabelled
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


class ManifestError(errors.CatsdogsError):
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


class EmptyClassError(errors.CatsdogsError):
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
    photos, labels = folders.find_photos(raw)
    table = apply_exclusions(check_files(photos, settings.min_side, workers), settings.exclusions, labels)
    table = exclude_copies(table, previous)
    pairs = find_near_duplicates(table)
    return assign_splits(exclude_two_labels(table, pairs), pairs, settings, previous)


def check_files(photos: Sequence[folders.FoundPhoto], min_side: int, workers: int | None = None) -> pd.DataFrame:
    """Read, decode and measure every file, and say in `excluded` why it cannot be used.

    Returns
    -------
    pandas.DataFrame
        One row for each photo: `path`, `label` and `split` as the folders say, and what `checks.CheckedPhoto` holds.
    """
    checked = checks.check_photos([photo.path for photo in photos], min_side, workers)
    return (
        pd.DataFrame(checked)
        .rename(columns={"size": "bytes"})
        .assign(
            path=[photo.name for photo in photos],
            label=[photo.label for photo in photos],
            split=[photo.split for photo in photos],
        )
    )


def apply_exclusions(table: pd.DataFrame, exclusions: str, labels: Sequence[str]) -> pd.DataFrame:
    """Exclude or relabel the photos that a file of exclusions names; `labels` are the classes that there are.

    Raises
    ------
    SettingsError
        The file cannot be read, or names a class that there is not.
    EmptyClassError
        A class has no file.
    """
    decisions = read_exclusions(exclusions)
    wanted = [
        decisions.get(path) or decisions.get(sha256)
        for path, sha256 in zip(table["path"], table["sha256"], strict=True)
    ]
    table = table.assign(
        label=[
            relabelled(path, label, decision, labels)
            for path, label, decision in zip(table["path"], table["label"], wanted, strict=True)
        ],
        excluded=[
            f"{checks.Reason.BY_HAND}: {decision.reason}" if decision and not decision.label else excluded
            for excluded, decision in zip(table["excluded"], wanted, strict=True)
        ],
    )
    if empty := sorted(set(labels) - set(table["label"])):
        raise EmptyClassError(empty[0], "", 0, 0, "")
    return table


def exclude_copies(table: pd.DataFrame, previous: pd.DataFrame | None = None) -> pd.DataFrame:
    """Exclude all but one of the same bytes under the same label.

    Kept is a test photo rather than a validation photo rather than a train photo, then one that `previous` used.
    """
    used_before = set() if previous is None else set(used(previous)["path"])

    def preference(photo: tuple[int, str, str]) -> tuple[int, bool, str]:
        _, split, path = photo
        return -splits.SPLITS.index(split or "train"), path not in used_before, path

    rows, excluded = used(table), table["excluded"].copy()
    for _, copies in rows[rows.duplicated(["sha256", "label"], keep=False)].groupby(["sha256", "label"]):
        kept, *others = sorted(zip(copies.index, copies["split"], copies["path"], strict=True), key=preference)
        excluded[[index for index, _, _ in others]] = f"{checks.Reason.EXACT_DUPLICATE} of {kept[2]}"
    return table.assign(excluded=excluded)


def find_near_duplicates(table: pd.DataFrame) -> list[tuple[int, int]]:
    """Pair near-duplicates among the usable photos, and the same bytes under two labels; positions in `table`."""
    rows = used(table)
    if rows.empty:
        return []
    hashes = np.array([int(digits, 16) for digits in rows["phash"]], dtype=np.uint64)
    thumbnails = np.stack([np.frombuffer(data, dtype=np.uint8) for data in rows["thumbnail"]])
    near = duplicates.near_duplicates(hashes, thumbnails, rows["label"].tolist())
    pairs = [(first, second) for first, second in rows.index.to_numpy()[near].tolist()]
    # Flat pictures have no near-duplicates, so equal bytes are paired as well.
    return pairs + _same_bytes(rows)


def _same_bytes(rows: pd.DataFrame) -> list[tuple[int, int]]:
    first = rows.index.to_series().groupby(rows["sha256"]).transform("min")
    return [(a, b) for a, b in zip(first.tolist(), rows.index.tolist(), strict=True) if a != b]


def exclude_two_labels(table: pd.DataFrame, pairs: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """Exclude near-duplicates that carry different labels, all of them: nobody knows which label is right."""
    paired, excluded = table.loc[sorted({index for pair in pairs for index in pair})], table["excluded"].copy()
    roots = duplicates.components(len(table), pairs)
    for _, group in paired.groupby([roots[index] for index in paired.index]):
        for index, label in zip(group.index, group["label"], strict=True):
            others = group.loc[group["label"] != label, "path"]
            if len(others):
                excluded[index] = f"{checks.Reason.TWO_LABELS}: also {others.iloc[0]}"
    return table.assign(excluded=excluded)


def assign_splits(
    table: pd.DataFrame,
    pairs: Sequence[tuple[int, int]],
    settings: PrepareSettings,
    previous: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Give every usable photo a split, near-duplicates the same one; the result is a manifest.

    Parameters
    ----------
    table
        From `exclude_two_labels`: near-duplicates have one label.
    pairs
        From `find_near_duplicates`.
    settings, previous
        See `build_manifest`.

    Raises
    ------
    EmptyClassError
        A class ends up without a photo, or without one in a split.
    """
    shares = _shares(settings, set(table["split"]))
    earlier = {} if previous is None else used(previous).set_index("sha256")["split"].to_dict()
    rows = used(table)
    members = []
    for sha256, label, path, given in zip(*(rows[name] for name in ("sha256", "label", "path", "split")), strict=True):
        # A validation set is cut off a given train set.
        fixed = "" if given == "train" and len(shares) > 1 else given
        remembered = earlier.get(sha256, "")
        members.append(splits.Member(sha256, label, path, fixed or (remembered if remembered in shares else "")))
    position = {index: number for number, index in enumerate(rows.index)}
    inner = [(position[a], position[b]) for a, b in pairs if a in position and b in position]
    assigned = splits.assign(members, inner, shares, settings.seed)
    table = table.assign(split="")
    table.loc[rows.index, "split"] = [assignment.split for assignment in assigned]
    table.loc[rows.index, "excluded"] = [assignment.excluded for assignment in assigned]
    table = table.assign(group=_groups(table, pairs))[list(COLUMNS)].astype(COLUMNS)
    _refuse_empty(table)
    return table


def _shares(settings: PrepareSettings, given: set[str]) -> dict[str, float]:
    """Give the share of each split that is open to photos which the folders do not place."""
    shares = {"val": settings.validation, "test": settings.test}
    cut = {split: share for split, share in shares.items() if split not in given}
    return {"train": 1 - sum(cut.values()), **cut}


def _groups(table: pd.DataFrame, pairs: Sequence[tuple[int, int]]) -> "pd.Series[str]":
    """Name each group by its smallest SHA-256; photos excluded as near-duplicates link no others."""
    left_out = set(table.index[table["excluded"].str.startswith(checks.Reason.NEAR_DUPLICATE)])
    near = [pair for pair in pairs if left_out.isdisjoint(pair)]
    roots = duplicates.components(len(table), [*_same_bytes(table), *near])
    return table["sha256"].groupby(roots).transform("min").str[:12]


def _refuse_empty(table: pd.DataFrame) -> None:
    for label in classes(table):
        rows = table[table["label"] == label]
        usable = used(rows)
        reasons = Counter(checks.Reason.of(text) or text for text in rows["excluded"] if text)
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
