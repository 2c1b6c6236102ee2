"""A bundle and a photo give a prediction. ONNX Runtime, Pillow and numpy; no torch."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catsdogs_lib.bundle import Bundle, BundleCorruptError
from catsdogs_lib.images import PhotoError, model_input

# Read when ONNX Runtime is imported: without it, it reports to its makers and writes below the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

INPUT, LOGITS, PROBABILITIES = "image", "logits", "probabilities"
"""Names in the graph; the bundle's contract."""
TOO_LITTLE_MEMORY = "there is too little memory to decode the photo; scale it down"


@dataclass(frozen=True)
class Prediction:
    """The answer for one photo.

    Attributes
    ----------
    prediction
        The most probable class.
    confidence
        Its calibrated probability, 0..1.
    probabilities
        For each class, in the bundle's order; they sum to 1.
    confident
        Whether the answer may be relied on: `confidence` reaches the bundle's threshold.
    reason
        Why it may not, one sentence; None where it may.
    """

    prediction: str
    confidence: float
    probabilities: dict[str, float]
    confident: bool
    reason: str | None


class Answer(NamedTuple):
    """A photo's prediction, or the sentence why there is none."""

    path: Path
    prediction: Prediction | None
    error: str | None


class Classifier:
    """A bundle, ready to answer.

    Parameters
    ----------
    bundle
        Verified by `Bundle.load`.
    threads
        Threads for one inference; None takes every core that this process may use.

    Raises
    ------
    BundleCorruptError
        The graph is not what the contract says, or ONNX Runtime cannot load it.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.bundle = bundle
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        # Spinning threads burn the CPU share of the neighbours between two photos.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(bundle.graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # ONNX Runtime has a class of exception for each failure and no common base but Exception.
            raise BundleCorruptError(f"bundle {bundle.folder}: ONNX Runtime cannot load the graph: {error}") from None
        inputs = [node.name for node in self._session.get_inputs()]
        outputs = [node.name for node in self._session.get_outputs()]
        if inputs != [INPUT] or not {LOGITS, PROBABILITIES} <= set(outputs):
            raise BundleCorruptError(f"bundle {bundle.folder}: the graph has inputs {inputs} and outputs {outputs}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the outputs."""
        return self.bundle.description.classes

    def load(self, source: bytes | Path) -> NDArray[np.float32]:
        """Read one photo as model input, shape (3, size, size); raises `PhotoError` where it cannot be used."""
        return model_input(source, self.bundle.description.preprocessing)

    def run(self, inputs: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph on N inputs.

        Returns
        -------
        logits, probabilities
            Two float32 arrays of shape (N, classes).
        """
        logits, probabilities = self._session.run([LOGITS, PROBABILITIES], {INPUT: np.stack(inputs)})
        return logits, probabilities

    def predict(self, source: bytes | Path) -> Prediction:
        """Answer for one photo, given as bytes or as a path.

        Raises
        ------
        PhotoError
            One of its children, when the photo cannot be used.
        """
        _, probabilities = self.run([self.load(source)])
        return self.judge(probabilities[0])

    def predict_many(self, paths: Iterable[Path]) -> Iterator[Answer]:
        """Answer for photos in their order; a photo that cannot be used has its error as its answer.

        The next photos are decoded in threads while one is looked at; memory does not grow with their number.
        """
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            waiting: deque[tuple[Path, Future[NDArray[np.float32]]]] = deque()
            for path in paths:
                waiting.append((path, pool.submit(self.load, path)))
                if len(waiting) > 2 * len(os.sched_getaffinity(0)):
                    yield self._answer(*waiting.popleft())
            while waiting:
                yield self._answer(*waiting.popleft())

    def _answer(self, path: Path, loaded: "Future[NDArray[np.float32]]") -> Answer:
        try:
            return Answer(path, self.judge(self.run([loaded.result()])[1][0]), None)
        except PhotoError as error:
            return Answer(path, None, str(error))
        except MemoryError:
            return Answer(path, None, TOO_LITTLE_MEMORY)

    def judge(self, probabilities: NDArray[np.float32]) -> Prediction:
        """Turn the probabilities of one photo, shape (classes,), into an answer."""
        best = int(np.argmax(probabilities))
        confidence = float(probabilities[best])
        threshold = self.bundle.description.thresholds.confident
        confident = confidence >= threshold
        reason = None if confident else f"the probability {confidence:.3f} is below the threshold {threshold:.3f}"
        named = {name: float(p) for name, p in zip(self.classes, probabilities, strict=True)}
        return Prediction(self.classes[best], confidence, named, confident, reason)


def golden_difference(classifier: Classifier) -> float:
    """Largest difference between a bundle's golden answers and what it answers here."""
    worst = 0.0
    for golden in classifier.bundle.description.golden:
        answer = classifier.predict(golden.data).probabilities
        worst = max(worst, *(abs(answer[name] - expected) for name, expected in golden.probabilities.items()))
    return worst
