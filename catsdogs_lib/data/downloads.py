"""Named datasets, downloaded once and kept in a folder."""

import contextlib
import http.client
import io
import os
import socket
import sys
import time
import urllib.error
import zipfile
from collections.abc import Iterator
from pathlib import Path

from catsdogs_lib.common import files
from catsdogs_lib.data.layouts import Layout, SourceError, recognise, scan

KAGGLE = "bhavikjikadara/dog-and-cat-classification-dataset/versions/1"
"""The dataset with its version, so that everybody gets the same photos and a second call needs no network."""
KAGGLE_PAGE = "https://www.kaggle.com/datasets/bhavikjikadara/dog-and-cat-classification-dataset"
PETS_PAGE = "https://www.robots.ox.ac.uk/~vgg/data/pets/"

TIMEOUT_S = 30.0
"""Seconds without an answer after which a download fails; torchvision itself has no limit."""
LINE_EVERY_S = 10.0
"""Shortest time between two lines of a progress bar without a terminal, in seconds."""

_DENIED = (401, 403)
_PETS_CLASSES = {"Cat": "cats", "Dog": "dogs"}
_PETS_SPLITS = {"trainval": "train", "test": "test"}


class DownloadError(SourceError):
    """A named dataset cannot be downloaded; the message says how to get it by hand."""


def kaggle(downloads: Path) -> Layout:
    """Download Kaggle's 25 000 photos of cats and dogs (0.8 GB) below `downloads`, unless they are there.

    The environment variable ``KAGGLEHUB_CACHE`` names another folder.

    Raises
    ------
    DownloadError
        No network, no permission, or a damaged download.
    """
    # Slow to import, and needed only here.
    import kagglehub  # noqa: PLC0415
    import requests  # noqa: PLC0415
    from kagglehub import exceptions  # noqa: PLC0415

    by_hand = f"or download it from {KAGGLE_PAGE} and name the folder or zip"
    with _cache(downloads / "kagglehub") as cache, _quiet_bars():
        try:
            folder = Path(kagglehub.dataset_download(KAGGLE))
        except requests.HTTPError as error:
            status = 0
            if error.response is not None:
                status = error.response.status_code
                error.response.close()  # kagglehub leaves it open
            if status in _DENIED:
                raise DownloadError("kaggle", _credentials(f"Kaggle refuses it ({status})", by_hand)) from None
            raise DownloadError("kaggle", f"Kaggle answers {status}; try again later, {by_hand}") from None
        except (exceptions.UnauthenticatedError, exceptions.CredentialError) as error:
            raise DownloadError("kaggle", _credentials(f"Kaggle refuses it ({error})", by_hand)) from None
        except requests.RequestException as error:
            raise DownloadError(
                "kaggle", f"Kaggle cannot be reached ({type(error).__name__}); check the connection, {by_hand}"
            ) from None
        except (exceptions.DataCorruptionError, zipfile.BadZipFile, ValueError) as error:
            if "credentials" in str(error):
                raise DownloadError("kaggle", _credentials(str(error), by_hand)) from None
            raise DownloadError("kaggle", f"the download is damaged; remove {cache} and try again, {by_hand}") from None
        except (exceptions.BackendError, exceptions.NotFoundError) as error:
            raise DownloadError("kaggle", f"Kaggle has it no more ({error}); try again later, {by_hand}") from None
    return recognise(scan(folder), "kaggle")


def _credentials(problem: str, by_hand: str) -> str:
    return (
        f"{problem}; put kaggle.json from your Kaggle account into ~/.kaggle, or set KAGGLE_USERNAME and KAGGLE_KEY, "
        f"{by_hand}"
    )


def oxford_pets(downloads: Path) -> Layout:
    """Download Oxford's 7 349 photos of 37 breeds (0.8 GB) below `downloads`, unless they are there.

    Its trainval becomes train; its test stays. Photos are named by breed; cat or dog comes from the lists.

    Raises
    ------
    DownloadError
        No network, or a damaged download.
    """
    from torchvision.datasets import OxfordIIITPet  # noqa: PLC0415

    by_hand = f"or download both archives from {PETS_PAGE} into {downloads / 'oxford-iiit-pet'}"
    base = downloads / "oxford-iiit-pet"
    marker = base / ".complete"
    if not marker.exists():
        # torchvision takes half-unpacked folders for whole ones; it checks and keeps whole archives.
        for name in ("images", "annotations"):
            files.remove(base / name)
    photos: list[tuple[Path, tuple[str, ...]]] = []
    try:
        with _timeout(), _quiet_bars():
            for split, name in _PETS_SPLITS.items():
                pets = OxfordIIITPet(downloads, split=split, target_types="binary-category", download=True)
                # The items of the dataset would be decoded photos; only the files are needed.
                for path, target in zip(pets._images, pets._bin_labels, strict=True):
                    photos.append((Path(path), (name, _PETS_CLASSES[pets.bin_classes[target]], Path(path).name)))
    except (RuntimeError, EOFError, http.client.HTTPException) as error:
        raise DownloadError(
            "oxford-pets", f"the download is damaged or incomplete ({error}); try again, {by_hand}"
        ) from None
    except OSError as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        # URLError carries no number; a full disk does and is told by the caller.
        if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
            raise
        raise DownloadError(
            "oxford-pets", f"the server cannot be reached ({error}); check the connection and try again, {by_hand}"
        ) from None
    missing = next((path for path, _ in photos if not path.is_file()), None)
    if missing is not None:
        files.remove(marker)
        raise DownloadError("oxford-pets", f"'{missing.name}' is missing from {base}; try again, {by_hand}")
    marker.touch()
    return Layout(photos, tuple(sorted(_PETS_CLASSES.values())), tuple(_PETS_SPLITS.values()))


@contextlib.contextmanager
def _cache(folder: Path) -> Iterator[Path]:
    """Point kagglehub, which reads only an environment variable, at `folder`."""
    name = "KAGGLEHUB_CACHE"
    if name in os.environ:
        yield Path(os.environ[name])
        return
    os.environ[name] = str(folder)
    try:
        yield folder
    finally:
        del os.environ[name]


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    earlier = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(earlier)


class _SparseStderr(io.TextIOBase):
    """Standard error on which a progress bar prints an occasional line instead of redrawing itself."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def write(self, text: str) -> int:
        now = time.monotonic()
        if text.startswith("\r") and now - self.last >= LINE_EVERY_S:
            self.last = now
            print(text.strip("\r\n"), file=sys.__stderr__, flush=True)
        return len(text)


def _quiet_bars() -> contextlib.AbstractContextManager[object]:
    """Keep the libraries' progress bars from printing a line for every update without a terminal."""
    return contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(_SparseStderr())
