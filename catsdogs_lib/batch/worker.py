"""The process that looks at photos: one thread for one core, photos in, rows out."""

import contextlib
import sys
import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from catsdogs_lib.batch.photos import Photo
from catsdogs_lib.batch.rows import score_photo
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.inference.bundle import Bundle, BundleCorruptError
from catsdogs_lib.inference.classifier import Classifier

MAX_PREFETCHED = 8
"""Photos that a worker has at hand, and remote ones that it fetches at once."""


def load(folder: Path, digest: str) -> Classifier:
    """Load the bundle that the run has begun with, for one core.

    Raises
    ------
    BundleError
        It cannot be used, or is another by now.
    """
    bundle = Bundle.load(folder)
    if bundle.description.digest != digest:
        raise BundleCorruptError(f"bundle {folder} has been replaced while it answered; run it again into a new folder")
    return Classifier(bundle, threads=1)


def answer(connection: Connection, classifier: Classifier) -> None:
    """Answer the photos that come in, each in its turn, until the other side closes."""
    waiting: deque[tuple[Photo, Future[bytes | Path] | None]] = deque()
    with ThreadPoolExecutor(MAX_PREFETCHED) as fetching:
        try:
            while True:
                while not waiting or connection.poll():
                    photo: Photo = connection.recv()
                    waiting.append((photo, fetching.submit(photo.read) if photo.remote else None))
                photo, fetched = waiting.popleft()
                connection.send(score_photo(classifier, photo.path, fetched.result if fetched else photo.read))
        finally:
            fetching.shutdown(wait=False, cancel_futures=True)


def main() -> None:
    """Run as ``python -m catsdogs_lib.batch.worker DESCRIPTOR BUNDLE DIGEST``; `workers` starts it."""
    warnings.filterwarnings("ignore", module="PIL")  # Pillow's advice is for programmers; the row says what matters
    connection = Connection(int(sys.argv[1]))
    try:
        classifier = load(Path(sys.argv[2]), sys.argv[3])
    except CatsdogsError as error:
        connection.send(str(error))
        return
    # The run is over, or its process is gone.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send("")
        answer(connection, classifier)


if __name__ == "__main__":
    main()
