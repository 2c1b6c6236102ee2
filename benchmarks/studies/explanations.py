"""Check that saliency maps point at the evidence, and measure what they and the familiarity check cost.

    python benchmarks/studies/explanations.py PHOTOS [--bundle DIR] [--count 200]

PHOTOS is a folder; photos are taken evenly from it. The deletion test says by how much more the logit falls when the
most important tenth is covered than a random patch of the same area. Times are medians of alternating requests to the
application in one process, one thread: /explain by /predict, and the graph with all outputs by the same graph without
unfamiliarity and map.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.utils
import onnxruntime as ort
from starlette.testclient import TestClient

from catsdogs_lib.evaluation.saliency_check import deletion_test
from catsdogs_lib.imaging import decoding
from catsdogs_lib.inference.bundle import Bundle, locate
from catsdogs_lib.inference.classifier import INPUT, LOGITS, PROBABILITIES, Classifier
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry
from catsdogs_lib.serving.model import Model


def seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratio(name: str, first, other, rounds: int) -> None:
    """Print the ratio of medians of two pieces of work that take turns."""
    pairs = np.array([[seconds(first), seconds(other)] for _ in range(rounds)][rounds // 10 :])
    ours, theirs = np.median(pairs, axis=0) * 1000
    spread = np.quantile(pairs[:, 0] / pairs[:, 1], [0.25, 0.75])
    between = f"half of the pairs {spread[0]:.3f} to {spread[1]:.3f}"
    print(f"{name}: {ours:.2f} by {theirs:.2f} ms = {ours / theirs:.3f} ({between})")


def plain_session(bundle: Bundle) -> ort.InferenceSession:
    """The same graph without what doubt and maps need."""
    graph = onnx.load_model_from_string(bundle.graph)
    for output in [output for output in graph.graph.output if output.name not in (LOGITS, PROBABILITIES)]:
        graph.graph.output.remove(output)
    return session(graph.SerializeToString())  # the runtime drops what no output needs


def session(data: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--count", type=int, default=200)
    given = parser.parse_args()
    bundle = Bundle.load(locate(given.bundle))
    paths = sorted(path for path in given.photos.rglob("*") if path.suffix.lower() in decoding.SUFFIXES)
    photos = paths[:: max(1, len(paths) // given.count)][: given.count]
    classifier = Classifier(bundle, threads=1)
    more = deletion_test(classifier, photos)
    print(
        f"{bundle.description.model}, {bundle.description.explanation}, {len(photos)} photos: the logit falls by "
        f"{more.value:.3f} more ({more.low:.3f} to {more.high:.3f})"
    )
    client = TestClient(create_app(Model(classifier), ServerTelemetry()))
    data = photos[0].read_bytes()
    head = {"content-type": "image/jpeg"}
    ratio(
        "/explain by /predict",
        lambda: client.post("/explain", content=data, headers=head),
        lambda: client.post("/predict", content=data, headers=head),
        200,
    )
    whole, bare, photo = session(bundle.graph), plain_session(bundle), {INPUT: np.stack([classifier.load(data)])}
    ratio("graph with doubt and map by without", lambda: whole.run(None, photo), lambda: bare.run(None, photo), 400)


if __name__ == "__main__":
    main()
