"""Sources of photos: the drawn sample, downloads, and your own folders and archives.

Every source is copied into one layout: ``<class>/<file>``, or ``train|val|test/<class>/<file>`` if it comes with
a split.
"""

import contextlib
import errno
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from catsdogs_lib.common import files
from catsdogs_lib.common.class_names import canonical_classes
from catsdogs_lib.common.progress import track
from catsdogs_lib.data.archives import ArchiveError, is_archive, unpack
from catsdogs_lib.data.downloads import DownloadError, kaggle, oxford_pets
from catsdogs_lib.data.layouts import Layout, SourceError, recognise, scan

__all__ = ["ArchiveError", "DownloadError", "Fetched", "SourceError", "fetch", "fingerprint"]

SAMPLE = "sample"
DOWNLOADED: dict[str, Callable[[Path], Layout]] = {
    "kaggle": kaggle,
    "oxford-pets": oxford_pets,
}
"""Named sources that are downloaded; each function takes the folder that keeps downloads."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ARCHIVE_ENDING = re.compile(r"\.(zip|tar|tgz|tbz2?|tar\.gz|tar\.bz2)$", re.IGNORECASE)


@dataclass(frozen=True)
class Fetched:
    """A fetched source.

    Parameters
    ----------
    source
        The source as the user named it: ``"sample"``, ``"kaggle"``, ``"oxford-pets"``, or the path.
    slug
        Short name for registries: a-z, 0-9 and hyphens.
    classes
        Sorted names of the classes; see `catsdogs_lib.common.class_names`.
    splits
        The splits that the source comes with; empty if it has none.
    files
        Number of copied files; some may turn out not to be photos.
    """

    source: str
    slug: str
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    files: int


def fetch(source: str, destination: Path, *, downloads: Path, per_class: int = 300, seed: int = 0) -> Fetched:
    """Copy the photos of a source into `destination`, all of them or none.

    The source is not touched.

    Parameters
    ----------
    source
        ``"sample"``, ``"kaggle"``, ``"oxford-pets"``, or the path of a folder, zip or tar.
    destination
        Folder to create; an existing one is replaced.
    downloads
        Folder that keeps downloads, so that a second call needs no network.
    per_class, seed
        Number of pictures of each kind in the sample, and the seed of its random state.

    Returns
    -------
    Fetched

    Raises
    ------
    SourceError
        Or its children `ArchiveError` and `DownloadError`: the photos cannot be used.
    """
    with _explained(source), files.replacing(destination) as partial:
        if source == SAMPLE:
            from catsdogs_lib.data.synthetic.dataset import write_sample  # noqa: PLC0415 - only where it is asked for

            write_sample(partial, per_class=per_class, seed=seed)
            layout = recognise(scan(partial), source)
        elif source in DOWNLOADED:
            layout = DOWNLOADED[source](downloads)
            _transfer(layout, partial, shutil.copyfile, "copying photos")
        else:
            layout = _own(source, destination, partial)
    classes = tuple(sorted(canonical_classes(layout.classes)))
    return Fetched(source, slug(source), classes, layout.splits, len(layout.photos))


def _own(source: str, destination: Path, partial: Path) -> Layout:
    path = _existing(source)
    ours, theirs = destination.resolve(), path.resolve()
    # Replacing the destination would remove the user's photos; copies inside the source would be photos next time.
    if ours == theirs or ours in theirs.parents or theirs in ours.parents:
        raise SourceError(source, f"it and the destination {destination} lie in one another; choose another place")
    if path.is_dir():
        layout = recognise(scan(path), source)
        _transfer(layout, partial, shutil.copyfile, "copying photos")
        return layout
    if not is_archive(path):
        raise SourceError(source, "neither a folder nor a zip or tar; name one of these")
    unpacked = partial.with_name(f"{partial.name}-unpacked")
    try:
        # Layouts may look at the name of the folder, so it is that of the archive.
        inner = unpacked / (_ARCHIVE_ENDING.sub("", path.name).strip(". ") or "photos")
        unpack(path, inner)
        layout = recognise(scan(inner), source)
        _transfer(layout, partial, os.replace, "sorting photos")
    finally:
        files.remove(unpacked)
    return layout


def _transfer(layout: Layout, folder: Path, transfer: Callable[[Path, Path], object], task: str) -> None:
    for parent in {parts[:-1] for _, parts in layout.photos}:
        folder.joinpath(*parent).mkdir(parents=True)
    for photo, parts in track(layout.photos, task):
        transfer(photo, folder.joinpath(*parts))


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    # An empty name would mean the current folder.
    if not source.strip() or "\0" in source or not path.exists():
        raise SourceError(
            source, f"no such folder or archive; name {SAMPLE}, {', '.join(DOWNLOADED)}, or a folder or zip that exists"
        )
    return path


def slug(source: str) -> str:
    """Make a short name of a source for registries: a-z, 0-9 and hyphens, at most 40 characters."""
    if source == SAMPLE or source in DOWNLOADED:
        return source
    name = _ARCHIVE_ENDING.sub("", Path(source).expanduser().resolve().name)
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "photos"


def fingerprint(source: str) -> str:
    """Digest names, sizes and times of a user's photos: a cheap way to notice that they changed.

    Returns
    -------
    str
        64 hexadecimal digits for a folder or archive; empty for a named source, which never changes.

    Raises
    ------
    SourceError
        There is no such source, or it cannot be read.
    """
    if source == SAMPLE or source in DOWNLOADED:
        return ""
    with _explained(source):
        path = _existing(source)
        photos = _own_folder(path, source) if path.is_dir() else [path]
        root = path if path.is_dir() else path.parent
        stats = [(photo, photo.stat()) for photo in photos]
        return files.digest([[str(photo.relative_to(root)), s.st_size, s.st_mtime_ns] for photo, s in stats])


def _own_folder(path: Path, source: str) -> Sequence[Path]:
    """List the photos of a user's folder after checking that its layout is a known one."""
    folder = scan(path)
    recognise(folder, source)
    return folder.all_photos


@contextlib.contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turn an error of the operating system into a `SourceError` that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        where = f" ('{error.filename}')" if error.filename else ""
        if error.errno in _FULL:
            problem = f"there is no room to write them{where}; free some space, nothing half-copied was left"
        elif isinstance(error, PermissionError):
            problem = f"not allowed{where}; make it readable for you, or choose another place to write"
        else:
            problem = f"{reason}{where}; check that the folder or archive is there and can be read"
        raise SourceError(source, problem) from error
