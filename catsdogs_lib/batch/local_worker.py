"""Worker process of the local engine: receives photos over a pipe, sends back rows, uses one core."""

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
from catsdogs_lib.inference.classifier import Classifier, decoder_pool

MAX_QUEUED = 8
"""Photos queued at a worker, which is also how many remote ones it fetches at once."""


def load_classifier(folder: Path, digest: str) -> Classifier:
    """Load the bundle that the run started with, for one core.

    Raises
    ------
    BundleError
        The bundle cannot be used, or has been replaced since.
    """
    bundle = Bundle.load(folder)
    if bundle.description.digest != digest:
        raise BundleCorruptError(f"bundle {folder} has been replaced while it answered; run it again into a new folder")
    return Classifier(bundle, threads=1, decoders=decoder_pool(1))


def score_photos(connection: Connection, classifier: Classifier) -> None:
    """Score incoming photos in order until the other side closes the connection."""
    queue: deque[tuple[Photo, Future[bytes | Path] | None]] = deque()
    with ThreadPoolExecutor(MAX_QUEUED) as fetching:
        try:
            while True:
                while not queue or connection.poll():
                    photo: Photo = connection.recv()
                    queue.append((photo, fetching.submit(photo.read) if photo.remote else None))
                photo, fetched = queue.popleft()
                row, _ = score_photo(classifier, photo.path, fetched.result if fetched else photo.read)
                connection.send(row)
        finally:
            fetching.shutdown(wait=False, cancel_futures=True)


def main() -> None:
    """Run as ``python -m catsdogs_lib.batch.local_worker DESCRIPTOR BUNDLE DIGEST``; `local_engine` starts it."""
    warnings.filterwarnings("ignore", module="PIL")  # Pillow's warnings address programmers
    connection = Connection(int(sys.argv[1]))
    try:
        classifier = load_classifier(Path(sys.argv[2]), sys.argv[3])
    except CatsdogsError as error:
        connection.send(str(error))
        return
    # The pipe closes when the run is over or its process is gone.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send("")
        score_photos(connection, classifier)


if __name__ == "__main__":
    main()
