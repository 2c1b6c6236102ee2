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
from PIL import Image

from catsdogs_lib.imaging.decoding import PhotoError
from catsdogs_lib.imaging.preprocessing import model_input, normalise
from catsdogs_lib.imaging.statistics import ImageStatistics, read_with_statistics
from catsdogs_lib.inference.bundle import Bundle, BundleCorruptError

# Read when ONNX Runtime is imported: without it, it reports to its makers and writes below the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

INPUT, LOGITS, PROBABILITIES = "image", "logits", "probabilities"
UNFAMILIARITY, ACTIVATION_MAP = "unfamiliarity", "activation_map"
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
    unfamiliarity
        Cosine distance of the photo's features to what the model has learned from, 0..2.
    confident
        Whether the answer may be relied on: the photo is familiar, and `confidence` reaches the bundle's threshold.
    reason
        Why it may not, one sentence; None where it may.
    """

    prediction: str
    confidence: float
    probabilities: dict[str, float]
    unfamiliarity: float
    confident: bool
    reason: str | None


class Outputs(NamedTuple):
    """What the graph gives for N photos, all float32.

    `logits` and `probabilities` (N, classes), `unfamiliarity` (N,), and `activation_map` (N, classes, h, w), whose
    mean over h and w is the logit without its bias; None where the network has none.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    unfamiliarity: NDArray[np.float32]
    activation_map: NDArray[np.float32] | None


class PreparedImage(NamedTuple):
    """A photo as the model sees it: `square` is RGB, `input` float32 (3, size, size) made of it."""

    square: Image.Image
    input: NDArray[np.float32]
    measures: ImageStatistics


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
    graph
        The bytes of the graph where they are not yet in the bundle's folder.

    Raises
    ------
    BundleCorruptError
        The graph is not what the contract says, or ONNX Runtime cannot load it.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, graph: bytes | None = None) -> None:
        self.bundle = bundle
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        # Spinning threads burn the CPU share of the neighbours between two photos.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Weights outside of the arena of blocks for what is computed, which never gives any back by itself.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        options.log_severity_level = 3
        # By path: ONNX Runtime would keep a copy of bytes for as long as the session lives.
        source = str(bundle.graph_file) if graph is None else graph
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # ONNX Runtime has a class of exception for each failure and no common base but Exception.
            raise BundleCorruptError(f"bundle {bundle.folder}: ONNX Runtime cannot load the graph: {error}") from None
        # The first run ends with an arena of what a run needs, without what making the session needed: 20 MB less.
        self._first: ort.RunOptions | None = ort.RunOptions()
        self._first.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        inputs = [node.name for node in self._session.get_inputs()]
        outputs = [node.name for node in self._session.get_outputs()]
        self._outputs = [LOGITS, PROBABILITIES, UNFAMILIARITY]
        if bundle.description.explanation == "activation map":
            self._outputs.append(ACTIVATION_MAP)
        if inputs != [INPUT] or not set(self._outputs) <= set(outputs):
            raise BundleCorruptError(f"bundle {bundle.folder}: the graph has inputs {inputs} and outputs {outputs}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the outputs."""
        return self.bundle.description.classes

    def look(self, source: bytes | Path) -> PreparedImage:
        """Read one photo and measure it; raises `PhotoError` where it cannot be used."""
        preprocessing = self.bundle.description.preprocessing
        square, measures = read_with_statistics(source, preprocessing)
        return PreparedImage(square, normalise(square, preprocessing), measures)

    def load(self, source: bytes | Path) -> NDArray[np.float32]:
        """Read one photo as model input, shape (3, size, size); raises `PhotoError` where it cannot be used."""
        return model_input(source, self.bundle.description.preprocessing)

    def run(self, inputs: Sequence[NDArray[np.float32]]) -> Outputs:
        """Run the graph on N inputs."""
        options, self._first = self._first, None
        found = self._session.run(self._outputs, {INPUT: np.stack(inputs)}, options)
        logits, probabilities, unfamiliarity, *maps = found
        return Outputs(logits, probabilities, unfamiliarity, maps[0] if maps else None)

    def predict(self, source: bytes | Path) -> Prediction:
        """Answer for one photo, given as bytes or as a path.

        Raises
        ------
        PhotoError
            One of its children, when the photo cannot be used.
        """
        return self.judge(self.run([self.load(source)]))

    def observe(self, source: bytes | Path) -> tuple[Prediction, ImageStatistics]:
        """Answer for one photo, and measure it; raises as `predict`."""
        seen = self.look(source)
        return self.judge(self.run([seen.input])), seen.measures

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
            return Answer(path, self.judge(self.run([loaded.result()])), None)
        except PhotoError as error:
            return Answer(path, None, str(error))
        except MemoryError:
            return Answer(path, None, TOO_LITTLE_MEMORY)

    def judge(self, outputs: Outputs) -> Prediction:
        """Turn what the graph gave for one photo into an answer."""
        probabilities, unfamiliarity = outputs.probabilities[0], float(outputs.unfamiliarity[0])
        best = int(np.argmax(probabilities))
        named = {name: float(p) for name, p in zip(self.classes, probabilities, strict=True)}
        confidence, reason = float(probabilities[best]), self._doubt(probabilities, unfamiliarity)
        return Prediction(self.classes[best], confidence, named, unfamiliarity, reason is None, reason)

    def _doubt(self, probabilities: NDArray[np.float32], unfamiliarity: float) -> str | None:
        """Say why an answer is not one to rely on; None where it is."""
        thresholds = self.bundle.description.thresholds
        # Not 'more than': what is no number is not familiar.
        if not unfamiliarity <= thresholds.unfamiliar:
            return (
                f"the photo is unlike those that the model has learned from (unfamiliarity {unfamiliarity:.3f}, "
                f"usual is up to {thresholds.unfamiliar:.3f})"
            )
        second, best = np.argsort(probabilities)[-2:]
        confidence = float(probabilities[best])
        if confidence >= thresholds.confident:
            return None
        return (
            f"it may be {self.classes[best]} or {self.classes[second]}: the probability {confidence:.3f} is below the "
            f"threshold {thresholds.confident:.3f}"
        )


def golden_difference(classifier: Classifier, most: int | None = None) -> float:
    """Largest difference between a bundle's golden answers and what it answers here.

    Parameters
    ----------
    classifier
        What answers.
    most
        Look at so many alone, the least confident first: those tell other arithmetic soonest.
    """
    worst = 0.0
    for golden in sorted(classifier.bundle.description.golden, key=lambda one: max(one.probabilities.values()))[:most]:
        answer = classifier.predict(golden.data).probabilities
        worst = max(worst, *(abs(answer[name] - expected) for name, expected in golden.probabilities.items()))
    return worst
