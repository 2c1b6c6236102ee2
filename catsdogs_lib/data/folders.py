"""Files of a raw folder by class and split: ``<class>/<file>`` or ``train|val|test/<class>/<file>``."""

import os
from pathlib import Path
from typing import NamedTuple

from catsdogs_lib.common import class_names, errors

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Split of each folder name that stands for one."""


class LayoutError(errors.CatsdogsError):
    """A folder does not have the expected layout.

    Parameters
    ----------
    folder
        The folder.
    problem
        The fault and its remedy, to follow a colon.
    """

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(f"{folder}: {problem}")


class FoundPhoto(NamedTuple):
    """A file of a class.

    `name` is its path relative to the raw folder, with slashes; `split` is empty if no folder names one.
    """

    path: Path
    name: str
    label: str
    split: str


def find_photos(raw: Path) -> tuple[list[FoundPhoto], tuple[str, ...]]:
    """List the files of every class, whatever their endings, sorted by name; hidden files are left out.

    Parameters
    ----------
    raw
        The raw folder.

    Returns
    -------
    list of FoundPhoto
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
        others = sorted(set(folders) - set(SPLIT_FOLDERS))
        if others:
            raise LayoutError(raw, f"'{others[0]}' lies beside 'train' but is none of train, val, test; move it away")
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
    photos = [
        FoundPhoto(path, _name(path.relative_to(raw)), class_names.canonical_class(label, classes), split)
        for split, labels in tops
        for label, folder in labels.items()
        for path in _files(folder)
    ]
    if not photos:
        raise LayoutError(raw, f"the folders of its {len(classes)} classes hold no files; add photos")
    return sorted(photos, key=lambda photo: photo.name), tuple(sorted(class_names.canonical_classes(classes)))


def _name(path: Path) -> str:
    # A name that is not UTF-8 cannot be written to the manifest as it is.
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def _folders(folder: Path) -> dict[str, Path]:
    try:
        children = sorted(folder.iterdir())
        return {_name(Path(path.name)): path for path in children if path.is_dir() and not path.name.startswith(".")}
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
    for parent, subfolders, names in os.walk(folder, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        paths += [Path(parent, name) for name in names if not name.startswith(".")]
    return paths
