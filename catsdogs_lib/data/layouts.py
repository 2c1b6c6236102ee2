"""Layouts of photo folders: the class and split of each photo, from the names of folders and files.

`scan` walks a folder once; `recognise` then decides on names alone.
"""

import os
import re
import stat
import unicodedata
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.imaging import decoding

SPLITS = ("train", "val", "test")
"""The splits of a dataset, in order."""

MAX_DEPTH = 32
"""Depth from which nested folders are taken for a mistake or a loop."""
MAX_NAME_BYTES = 200
"""Length to which file names are cut: file systems allow 255 bytes, and temporary names need some of them."""

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "train_set": "train",
    "training_set": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "val_set": "val",
    "validation_set": "val",
    "test": "test",
    "testing": "test",
    "test_set": "test",
    "test1": "test",
}
_PETIMAGES = {"Cat": "cat", "Dog": "dog"}
_LABELLED = re.compile(r"(cat|dog)[._-]\d+\.", re.IGNORECASE)
"""Names of photos in Kaggle's competition: ``cat.123.jpg``."""
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".7z", ".rar")
_JUNK = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir"}


class SourceError(CatsdogsError):
    """The photos of a source cannot be used.

    Parameters
    ----------
    source
        The source as the user named it, or the file or folder in it that is at fault.
    problem
        The fault and its remedy.
    """

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"photos from '{source}': {problem}")


@dataclass(frozen=True)
class Folder:
    """A scanned folder: files that may be photos, subfolders, and archives that are still packed."""

    path: Path
    photos: list[Path] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @cached_property
    def all_photos(self) -> list[Path]:
        """Files that may be photos, in this folder and below it."""
        return [*self.photos, *(photo for folder in self.folders for photo in folder.all_photos)]


@dataclass(frozen=True)
class Layout:
    """The photos of a source, with the class and split of each.

    Parameters
    ----------
    photos
        Pairs of the file and the parts of its path in the copy: ``("train", "cats", "1.jpg")`` or
        ``("cats", "1.jpg")``.
    classes
        Sorted names of the class folders.
    splits
        Those of `SPLITS` that the source comes with; empty where it has none.
    """

    photos: list[tuple[Path, tuple[str, ...]]]
    classes: tuple[str, ...]
    splits: tuple[str, ...]


def is_junk(name: str) -> bool:
    """Tell whether a name is that of a hidden or system file or folder, which is never a photo."""
    return name.startswith(".") or name.casefold() in _JUNK


def is_photo(name: str) -> bool:
    """Tell whether a file may be a photo, by its name; the content is checked later."""
    return not is_junk(name) and os.path.splitext(name)[1].lower() in decoding.SUFFIXES  # noqa: PTH122 - only a name


def is_packed(name: str) -> bool:
    """Tell whether a file is an archive that may hold photos, by its name."""
    return not is_junk(name) and name.lower().endswith(_ARCHIVE_SUFFIXES)


def scan(path: Path, above: tuple[str, ...] = ()) -> Folder:
    """Walk a folder once, in sorted order; links are followed, loops are not.

    `above` are the real paths of the folders that it lies in, as far as they are being walked.

    Raises
    ------
    SourceError
        Folders are nested deeper than `MAX_DEPTH`.
    OSError
        A folder or file cannot be read.
    """
    if len(above) > MAX_DEPTH:
        raise SourceError(str(path), f"folders are nested more than {MAX_DEPTH} deep; name a folder further down")
    above = (*above, os.path.realpath(path))
    folder = Folder(path)
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_junk(entry.name):
                continue
            if entry.is_dir():
                if os.path.realpath(entry.path) not in above:
                    folder.folders.append(scan(path / entry.name, above))
            # A pipe or a device with a photo's name would block; a dangling link is an error here already.
            elif is_photo(entry.name):
                if stat.S_ISREG(entry.stat().st_mode):
                    folder.photos.append(path / entry.name)
            elif is_packed(entry.name):
                folder.archives.append(entry.name)
    return folder


def recognise(root: Folder, source: str) -> Layout:
    """Recognise classes and splits from the names of folders and files.

    Known layouts: one folder for each class; ``train``, ``val`` and ``test`` with such folders;
    ``PetImages/{Cat,Dog}``; and the competition's ``train/cat.123.jpg``. Any of these may lie in an enclosing folder.

    Parameters
    ----------
    root
        From `scan`.
    source
        The source as the user named it, for messages.

    Raises
    ------
    SourceError
        No layout matches; the message says what is missing.
    """
    if not root.all_photos:
        raise _no_photos(root, source)
    folder = _inner(root)
    parts = _splits(folder, source)
    sets = {split: _classes(part, source) for split, part in parts.items()} or {"": _classes(folder, source)}
    first, labels = next((split, sorted(classes)) for split, classes in sets.items())
    for split, classes in sets.items():
        if sorted(classes) != labels:
            raise SourceError(
                source,
                f"'{first}' has the classes {', '.join(labels)} but '{split}' has {', '.join(sorted(classes))}; "
                "give each part the same class folders",
            )
    splits = tuple(split for split in SPLITS if split in sets) if len(sets) > 1 else ()
    copies: list[tuple[Path, tuple[str, ...]]] = [
        (photo, (split, label, name) if splits else (label, name))
        for split, classes in sets.items()
        for label, photos in classes.items()
        for photo, name in photos
    ]
    return Layout(copies, tuple(labels), splits)


def _no_photos(root: Folder, source: str) -> SourceError:
    if root.archives:
        problem = f"there are no photos, only an archive ({root.archives[0]}); name that, or unpack it"
    elif len(root.folders) > 1:
        names = ", ".join(folder.name for folder in root.folders[:5])
        problem = f"its folders ({names}) hold no photos; put each class's photos into its folder"
    else:
        problem = f"it holds no photos ({', '.join(sorted(decoding.SUFFIXES))}); name a folder with photos"
    return SourceError(source, problem)


def _labelled_by_name(folder: Folder) -> bool:
    """Tell whether the photos lie flat and most of their names begin with the class."""
    return sum(bool(_LABELLED.match(photo.name)) for photo in folder.photos) * 2 > len(folder.photos) > 0


def _inner(folder: Folder) -> Folder:
    """Descend through single folders, but not into a single class."""
    while not folder.photos and len(folder.folders) == 1:
        child = folder.folders[0]
        if child.photos and not _labelled_by_name(child):
            break
        folder = child
    return folder


def _labelled(folder: Folder) -> bool:
    inner = _inner(folder)
    return _labelled_by_name(inner) or (not inner.photos and bool(inner.all_photos))


def _splits(folder: Folder, source: str) -> dict[str, Folder]:
    """Find train, val and test among the folders; empty if the folders are classes."""
    named: dict[str, Folder] = {}
    for child in folder.folders:
        split = _SPLIT_NAMES.get(child.name.casefold())
        if split in named:
            raise SourceError(source, f"'{named[split].name}' and '{child.name}' mean the same part; keep one of them")
        if split:
            named[split] = child
    labelled = {split: named[split] for split in SPLITS if split in named and _labelled(named[split])}
    others = [child.name for child in folder.folders if child not in named.values() and child.all_photos]
    if not labelled or (len(named) == 1 and others) or ("train" not in labelled and len(labelled) == 1):
        return {}
    if others:
        raise SourceError(source, f"'{others[0]}' stands beside '{named[next(iter(named))].name}'; move it away")
    for split, child in named.items():
        # The competition's test photos carry no label: nothing can be learnt or measured from them.
        if split not in labelled and not (split == "test" and child.all_photos):
            raise SourceError(source, f"'{child.name}' has no class folders with photos; add them or remove it")
    return labelled


def _classes(folder: Folder, source: str) -> dict[str, list[tuple[Path, str]]]:
    folder = _inner(folder)
    if _labelled_by_name(folder):
        return _from_names(folder, source)
    if not folder.folders:
        raise SourceError(
            source,
            f"{len(folder.photos)} photos lie flat in '{folder.name}' and nothing says what they show; "
            "put them into one folder a class, e.g. cats and dogs",
        )
    if len(folder.folders) == 1:
        raise SourceError(
            source, f"there is only one class folder, '{folder.folders[0].name}'; put another class beside it"
        )
    petimages = folder.name.casefold() == "petimages" and {child.name for child in folder.folders} == set(_PETIMAGES)
    photos: dict[str, list[tuple[Path, str]]] = {}
    for child in folder.folders:
        label = _PETIMAGES[child.name] if petimages else safe_name(child.name)
        if not child.all_photos:
            hint = f"unpack {child.archives[0]} there" if child.archives else "add some or remove it"
            raise SourceError(source, f"the class folder '{child.name}' holds no photos; {hint}")
        twin = next((other for other in photos if _comparable(other) == _comparable(label)), None)
        if twin is not None:
            raise SourceError(
                source, f"the class folders '{twin}' and '{label}' are one name to many systems; join them"
            )
        photos[label] = _flatten(child)
    return photos


def _from_names(folder: Folder, source: str) -> dict[str, list[tuple[Path, str]]]:
    photos: dict[str, list[tuple[Path, str]]] = {}
    taken: set[str] = set()
    for photo in folder.photos:
        match = _LABELLED.match(photo.name)
        if match is None:
            raise SourceError(
                source,
                f"'{photo.name}' in '{folder.name}' does not say what it shows, as cat.1.jpg does; rename or remove it",
            )
        photos.setdefault(match[1].lower(), []).append((photo, _unique(photo.name, taken)))
    if len(photos) < len(_PETIMAGES):
        raise SourceError(source, f"there is only one class, '{next(iter(photos))}'; add photos of the other")
    return photos


def _flatten(folder: Folder) -> list[tuple[Path, str]]:
    taken: set[str] = set()
    # Photos directly in the class folder come first and keep their names.
    return [(photo, _unique("__".join(photo.relative_to(folder.path).parts), taken)) for photo in folder.all_photos]


def _comparable(name: str) -> str:
    """Fold case and Unicode forms, in which names on some file systems do not differ."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def safe_name(name: str) -> str:
    """Make a name that any system can write: no control or undecodable characters, at most `MAX_NAME_BYTES`."""
    safe = "".join("_" if unicodedata.category(char) in ("Cc", "Cs") else char for char in name)
    if len(safe.encode()) <= MAX_NAME_BYTES:
        return safe
    stem, suffix = os.path.splitext(safe)  # noqa: PTH122 - only a name
    mark = "-" + sha256(os.fsencode(name)).hexdigest()[:12] + suffix
    return stem.encode()[: MAX_NAME_BYTES - len(mark.encode())].decode(errors="ignore") + mark


def _unique(name: str, taken: set[str]) -> str:
    name = safe_name(name)
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - only a name
    number = 1
    while _comparable(name) in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(_comparable(name))
    return name
