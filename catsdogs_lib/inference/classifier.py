"""Classification of photos with a bundle, in ONNX Runtime."""

import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catsdogs_lib.imaging.decoder_pool import DecoderPool, shared_pool
from catsdogs_lib.imaging.decoding import FORMATS, PhotoError
from catsdogs_lib.imaging.preprocessing import normalise
from catsdogs_lib.imaging.statistics import ImageStatistics, square_with_statistics
from catsdogs_lib.inference.bundle import Bundle, BundleCorruptError, BundleError

INPUT, LOGITS, PROBABILITIES = "image", "logits", "probabilities"
UNFAMILIARITY, ACTIVATION_MAP = "unfamiliarity", "activation_map"
"""Names of the graph's inputs and outputs, as the bundle's contract fixes them."""
Shape = tuple[int | None, ...]
"""Shape of an input or output; None fits any length."""
TOO_LITTLE_MEMORY = "there is too little memory to decode the photo; scale it down"


class InferenceError(BundleError):
    """The graph gives no usable answer to a photo: it cannot be run, or an output is not finite.

    Attributes
    ----------
    kind
        Name of the problem, for programs.
    """

    kind: ClassVar[str] = "no-answer"


class Prediction(NamedTuple):
    """The prediction for one photo.

    Attributes
    ----------
    prediction
        The most probable class.
    confidence
        Its calibrated probability, 0..1.
    probabilities
        Probability of each class, in the bundle's order; they sum to 1.
    unfamiliarity
        Cosine distance of the photo's features to those of the training photos, 0..2.
    confident
        True if the photo is familiar and `confidence` reaches the bundle's threshold.
    reason
        One sentence that says why the prediction is not confident; None if it is.
    """

    prediction: str
    confidence: float
    probabilities: dict[str, float]
    unfamiliarity: float
    confident: bool
    reason: str | None


class Outputs(NamedTuple):
    """Outputs of the graph for N photos, all float32.

    `logits` and `probabilities` (N, classes), `unfamiliarity` (N,), and `activation_map` (N, classes, h, w), whose
    mean over h and w is the logit without its bias; None for a network without one.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    unfamiliarity: NDArray[np.float32]
    activation_map: NDArray[np.float32] | None


class PreparedImage(NamedTuple):
    """A photo ready for the model: its centre square in RGB, and the float32 `input` (3, size, size) made of it."""

    square: Image.Image
    input: NDArray[np.float32]
    statistics: ImageStatistics


class Answer(NamedTuple):
    """The prediction for a file, or the error that prevented it."""

    path: Path
    prediction: Prediction | None
    error: str | None


class Classifier:
    """Classifier that runs a bundle's graph.

    Parameters
    ----------
    bundle
        A verified bundle; see `Bundle.load`.
    threads
        Threads for one inference; None uses every core that is available to this process.
    graph
        The bytes of the graph, if it is not yet in the bundle's folder.
    decoders
        Decode photos; None takes one pool that all classifiers share, with a process for each core.
    formats
        Those of `FORMATS` in which photos are read.

    Raises
    ------
    BundleCorruptError
        The graph breaks the bundle's contract, or ONNX Runtime cannot load it.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        graph: bytes | None = None,
        decoders: DecoderPool | None = None,
        formats: Collection[str] = FORMATS,
    ) -> None:
        self.bundle = bundle
        self.formats = formats
        self.decoders = decoders or decoder_pool(len(os.sched_getaffinity(0)))
        # After the decoders are forked, since it starts threads. By default it sends telemetry to its makers and writes
        # below the home folder.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime as ort  # noqa: PLC0415

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        # Between photos, spinning threads would take CPU time from other processes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Keeps the weights out of the arena for activations, which never shrinks by itself.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        options.log_severity_level = 3
        # By path: given bytes, ONNX Runtime keeps a copy for as long as the session lives.
        source = str(bundle.graph_file) if graph is None else graph
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # ONNX Runtime's exceptions have no common base but Exception.
            raise BundleCorruptError(
                f"bundle {bundle.folder}: ONNX Runtime cannot load the graph; package the model again"
            ) from error
        count = len(bundle.description.classes)
        self._outputs: dict[str, Shape] = {
            LOGITS: (None, count),
            PROBABILITIES: (None, count),
            UNFAMILIARITY: (None,),
        }
        if bundle.description.explanation == "activation map":
            self._outputs[ACTIVATION_MAP] = (None, count, None, None)
        self._check_signature()
        # Shrinks the arena after the first run to what a run needs, without what creating the session took: 20 MB less.
        self._first_run_options: Any = ort.RunOptions()
        self._first_run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def _check_signature(self) -> None:
        """Check names, types and shapes of the graph's inputs and outputs against the description."""
        folder, size = self.bundle.folder, self.bundle.description.preprocessing.size
        inputs = {node.name: node for node in self._session.get_inputs()}
        outputs = {node.name: node for node in self._session.get_outputs()}
        if list(inputs) != [INPUT] or not set(self._outputs) <= set(outputs):
            raise BundleCorruptError(
                f"bundle {folder}: the graph has inputs {list(inputs)} and outputs {list(outputs)}; "
                "package the model again"
            )
        for name, shape in {INPUT: (None, 3, size, size), **self._outputs}.items():
            node = inputs.get(name) or outputs[name]
            if node.type != "tensor(float)" or not _fits(node.shape, shape):
                raise BundleCorruptError(
                    f"bundle {folder}: '{name}' of the graph is a {node.type} of shape {node.shape}, which does not "
                    f"fit {len(self.classes)} classes and {size} x {size} pixels; package the model again"
                )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the outputs."""
        return self.bundle.description.classes

    def prepare(self, source: bytes | Path) -> PreparedImage:
        """Read a photo as model input, with its centre square and statistics; raises `PhotoError` if it is unusable."""
        preprocessing = self.bundle.description.preprocessing
        side = preprocessing.size
        statistics, pixels = self.decoders.call(source, side, list(self.formats))
        square = Image.frombytes("RGB", (side, side), pixels)
        return PreparedImage(square, normalise(square, preprocessing), ImageStatistics(*statistics))

    def load(self, source: bytes | Path) -> NDArray[np.float32]:
        """Read a photo as model input (3, size, size); raises `PhotoError` if it is unusable."""
        return self.prepare(source).input

    def run(self, inputs: Sequence[NDArray[np.float32]]) -> Outputs:
        """Run the graph on N inputs.

        Raises
        ------
        InferenceError
            ONNX Runtime cannot run the graph, or an output has another shape or values that are not finite.
        """
        options, self._first_run_options = self._first_run_options, None
        try:
            outputs = self._session.run(list(self._outputs), {INPUT: np.stack(inputs)}, options)
        except MemoryError:
            raise
        except Exception as error:
            # As above, there is no common base.
            raise InferenceError("the model gives no usable answer: its graph cannot be run") from error
        for (name, shape), values in zip(self._outputs.items(), outputs, strict=True):
            if not _fits(values.shape, (len(inputs), *shape[1:])):
                raise InferenceError(f"the model gives no usable answer: '{name}' has shape {values.shape}")
            if not np.isfinite(values).all():
                raise InferenceError(f"the model gives no usable answer: '{name}' is not a finite number")
        logits, probabilities, unfamiliarity, *maps = outputs
        return Outputs(logits, probabilities, unfamiliarity, maps[0] if maps else None)

    def predict(self, source: bytes | Path) -> Prediction:
        """Classify a photo, given as bytes or as a path; raises `PhotoError` if it is unusable."""
        return self.interpret(self.run([self.load(source)]))

    def predict_with_statistics(self, source: bytes | Path) -> tuple[Prediction, ImageStatistics]:
        """Classify a photo, and compute its statistics; raises as `predict`."""
        image = self.prepare(source)
        return self.interpret(self.run([image.input])), image.statistics

    def predict_many(self, paths: Iterable[Path]) -> Iterator[Answer]:
        """Classify photos in their order; for an unusable photo the answer holds the error.

        Threads decode the next photos while one is classified; memory does not grow with the number of photos.
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
            return Answer(path, self.interpret(self.run([loaded.result()])), None)
        except (PhotoError, InferenceError) as error:
            return Answer(path, None, str(error))
        except MemoryError:
            return Answer(path, None, TOO_LITTLE_MEMORY)

    def interpret(self, outputs: Outputs) -> Prediction:
        """Build the prediction from the graph's outputs for one photo."""
        probabilities, unfamiliarity = outputs.probabilities[0], float(outputs.unfamiliarity[0])
        best = int(np.argmax(probabilities))
        by_class = {name: float(p) for name, p in zip(self.classes, probabilities, strict=True)}
        confidence, reason = float(probabilities[best]), self._reason_for_doubt(probabilities, unfamiliarity)
        return Prediction(self.classes[best], confidence, by_class, unfamiliarity, reason is None, reason)

    def _reason_for_doubt(self, probabilities: NDArray[np.float32], unfamiliarity: float) -> str | None:
        thresholds = self.bundle.description.thresholds
        # Not `>`: NaN counts as unfamiliar.
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


def decoder_pool(count: int) -> DecoderPool:
    """Get this process's pool of `count` processes that decode photos for a `Classifier`."""
    return shared_pool(square_with_statistics, count)


def golden_difference(classifier: Classifier, count: int | None = None) -> float:
    """Compute the largest difference between a bundle's golden answers and its predictions on this machine.

    Parameters
    ----------
    classifier
        Runs the bundle.
    count
        Number of golden answers to compare, the least confident first: rounding shows there first. None compares all.

    Raises
    ------
    BundleCorruptError
        A golden picture cannot be decoded, or the graph gives no usable answer to it.
    """
    differences = []
    answers = sorted(classifier.bundle.description.golden, key=lambda golden: max(golden.probabilities.values()))
    for golden in answers[:count]:
        try:
            probabilities = classifier.predict(golden.data).probabilities
        except (PhotoError, InferenceError) as error:
            raise BundleCorruptError(
                f"bundle {classifier.bundle.folder}: there is no answer to the golden picture {golden.name} ({error}); "
                "package the model again"
            ) from error
        differences += [abs(probabilities[name] - p) for name, p in golden.probabilities.items()]
    # Unlike the built-in max, numpy's gives NaN if any of them is NaN.
    return float(np.max(differences))


def _fits(actual: Sequence[Any], expected: Shape) -> bool:
    """Check a shape; in `actual`, axes that are named or None fit any length."""
    return len(actual) == len(expected) and all(
        length == wanted or wanted is None or not isinstance(length, int)
        for length, wanted in zip(actual, expected, strict=True)
    )
