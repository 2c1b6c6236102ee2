"""What answers: a classifier that has proven itself once, or the sentence why there is none."""

import os
from pathlib import Path

from catsdogs_lib.inference.bundle import Bundle, BundleCorruptError, locate
from catsdogs_lib.inference.classifier import Classifier, golden_difference
from catsdogs_lib.serving.malloc import give_back_large_blocks

LAMBDA_MEGABYTES_PER_CORE = 1769
"""Lambda gives a whole core for that much memory (AWS Lambda documentation, "Configure memory")."""


class Model:
    """Holds the classifier of a service.

    Attributes
    ----------
    classifier
        None where there is none.
    reason
        Why not, one sentence.
    """

    def __init__(self, classifier: Classifier | None = None, reason: str = "") -> None:
        self.classifier = classifier
        self.reason = reason

    @classmethod
    def load(cls, folder: Path | None = None, threads: int | None = None) -> "Model":
        """Load a bundle and run it once on its own golden pictures, so that the first sender does not wait.

        Parameters
        ----------
        folder
            See `catsdogs_lib.inference.bundle.locate`.
        threads
            For one inference; None takes what `available_threads` says.

        Raises
        ------
        BundleError
            The bundle cannot be used, or does not give its own golden answers here.
        """
        give_back_large_blocks()
        classifier = Classifier(Bundle.load(locate(folder)), threads or available_threads())
        difference = golden_difference(classifier, most=1)
        if difference > classifier.bundle.description.graph.tolerance:
            raise BundleCorruptError(
                f"bundle {classifier.bundle.folder}: answers differ from its golden answers by {difference:.4f} "
                "on this machine; package the model again, or use the locked dependencies"
            )
        return cls(classifier)


def available_threads() -> int:
    """Cores that this process may use: Lambda's share by memory, else the cores it is bound to."""
    if megabytes := os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"):
        return max(1, round(int(megabytes) / LAMBDA_MEGABYTES_PER_CORE))
    return len(os.sched_getaffinity(0))
