"""The model in service: a classifier that has reproduced a golden answer, or the reason why there is none."""

import os
from collections.abc import Collection
from pathlib import Path

from catsdogs_lib.common.malloc import return_large_blocks
from catsdogs_lib.imaging.decoding import FORMATS
from catsdogs_lib.inference.bundle import Bundle, BundleCorruptError, locate
from catsdogs_lib.inference.classifier import Classifier, decoder_pool, golden_difference

LAMBDA_MEGABYTES_PER_CORE = 1769
"""Memory for which Lambda allots one core (AWS Lambda documentation, "Configure memory")."""


class Model:
    """The classifier of a service, if it has one.

    Attributes
    ----------
    classifier
        None if no bundle could be loaded.
    reason
        One sentence that says why not.
    """

    def __init__(self, classifier: Classifier | None = None, reason: str = "") -> None:
        self.classifier = classifier
        self.reason = reason

    @classmethod
    def load(
        cls,
        folder: Path | None = None,
        threads: int | None = None,
        concurrency: int = 1,
        formats: Collection[str] = FORMATS,
    ) -> "Model":
        """Load a bundle, and check its least confident golden answer, which also warms the model up.

        Parameters
        ----------
        folder
            See `catsdogs_lib.inference.bundle.locate`.
        threads
            Threads for one inference; None takes `available_threads`.
        concurrency
            Number of photos decoded at the same time.
        formats
            The members of `FORMATS` to accept.

        Raises
        ------
        BundleError
            The bundle cannot be used, or does not reproduce its golden answer on this machine.
        """
        return_large_blocks()
        decoders = decoder_pool(concurrency)  # first: forked before anything starts a thread
        classifier = Classifier(Bundle.load(locate(folder)), threads or available_threads(), decoders=decoders)
        difference = golden_difference(classifier, count=1)
        # Not `>`, which is False for NaN.
        if not difference <= classifier.bundle.description.graph.tolerance:
            raise BundleCorruptError(
                f"bundle {classifier.bundle.folder}: answers differ from its golden answers by {difference:.4f} "
                "on this machine; package the model again, or use the locked dependencies"
            )
        # Only now: the golden pictures may be in a format that is turned off.
        classifier.formats = formats
        return cls(classifier)


def available_threads() -> int:
    """Count the cores available to this process: on Lambda by its memory, elsewhere by its CPU affinity."""
    if megabytes := os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"):
        return max(1, round(int(megabytes) / LAMBDA_MEGABYTES_PER_CORE))
    return len(os.sched_getaffinity(0))
