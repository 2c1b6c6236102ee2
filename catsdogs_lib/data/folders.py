"""Which files of a raw folder are photos of which class: ``<class>/<file>`` or ``train|val|test/<class>/<file>``."""

import os
from dataclasses import dataclass
from pathlib import Path

from catsdogs_lib.common.class_names import canonical_class, canonical_classes
from catsdogs_lib.common.errors import CatsdogsError

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Names of folders that say a split, and which."""


class LayoutError(CatsdogsError):
    """A folder does not hold photos the way they are expected.

    Parameters
    ----------
    folder
        Where.
    problem
        What is wrong there and what to do, to follow a colon.
    """

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(f"{folder}: {problem}")
        self.folder = folder
        self.problem = problem


@dataclass(frozen=True)
class FoundPhoto:
    """A file below a class.

    `name` is its path relative to the raw folder, with slashes; `split` is empty where the folders say none.
    """

    path: Path
    name: str
    label: str
    split: str


def find_photos(raw: Path) -> tuple[list[FoundPhoto], tuple[str, ...]]:
    """List every file of every class, sorted by name, whatever its ending; hidden ones are left out.

    Parameters
    ----------
    raw
        The folder.

    Returns
    -------
    list of Found
    tuple of str
        The classes that have a folder, sorted; one may be empty. Folders of cats and dogs alone, whatever their
        names, are the classes ``cat`` and ``dog``.

    Raises
    ------
    LayoutError
        No folder, none that can be listed, no photos, fewer than two classes.
    """
    folders = _folders(raw)
    if "train" in folders and _folders(folders["train"]):
        strange = sorted(set(folders) - set(SPLIT_FOLDERS))
        if strange:
            raise LayoutError(raw, f"'{strange[0]}' lies beside 'train' but is none of train, val, test; move it away")
        tops = [(SPLIT_FOLDERS[name], _folders(folder)) for name, folder in folders.items()]
    else:
        tops = [("", folders)]
    classes = sorted({label for _, labels in tops for label in labels})
    if not classes:
        raise LayoutError(
            raw, "there is no folder of photos in it; put the photos of each class in a folder of its own"
        )
    if len(classes) == 1:
        raise LayoutError(
            raw, f"'{classes[0]}' is the only class; put the photos of a second one in a folder beside it"
        )
    found = [
        FoundPhoto(path, _name(path.relative_to(raw)), canonical_class(label, classes), split)
        for split, labels in tops
        for label, folder in labels.items()
        for path in _files(folder)
    ]
    if not found:
        raise LayoutError(raw, f"the folders of its {len(classes)} classes hold no files; add photos")
    return sorted(found, key=lambda one: one.name), tuple(sorted(canonical_classes(classes)))


def _name(path: Path) -> str:
    # A name that is not UTF-8 cannot be written to the manifest as it is.
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def _folders(folder: Path) -> dict[str, Path]:
    try:
        below = sorted(folder.iterdir())
        return {_name(Path(path.name)): path for path in below if path.is_dir() and not path.name.startswith(".")}
    except FileNotFoundError:
        raise LayoutError(folder, "there is no such folder; check the path") from None
    except NotADirectoryError:
        raise LayoutError(folder, "this is a file; name the folder that holds a folder of photos a class") from None
    except OSError as error:
        raise LayoutError(folder, f"it cannot be listed ({error.strerror}); check its permissions") from None


def _files(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise LayoutError(folder, f"it cannot be listed ({error.strerror}); check its permissions") from None

    paths = []
    for where, inner, names in os.walk(folder, onerror=refuse):
        inner[:] = [name for name in inner if not name.startswith(".")]
        paths += [Path(where, name) for name in names if not name.startswith(".")]
    return paths
