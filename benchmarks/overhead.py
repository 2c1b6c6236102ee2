"""The body of a process of `on_lambda.py`: an event through the handler beside its parts; JSON, milliseconds."""

import contextlib
import io
import json
import statistics
import sys
import time
from pathlib import Path

import handler
from PIL import Image

event, photo = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]).read_bytes()


class Context:
    function_name, memory_limit_in_mb, aws_request_id, function_version = "f", 1769, "r", "1"
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:f"

    def get_remaining_time_in_millis(self):
        return 30000


classifier = handler.model.classifier
preprocessing = classifier.bundle.description.preprocessing
inputs = [classifier.load(photo)]


def bare():
    Image.open(io.BytesIO(photo)).load()


parts = {
    "an event, from end to end": lambda: handler.handler(event, Context()),
    "decoding, preparing, measuring": lambda: classifier.prepare(photo),
    "decoding and preparing": lambda: classifier.load(photo),
    "Pillow's bare decoding": bare,
    "the network": lambda: classifier.run(inputs),
}
seconds = {name: [] for name in parts}
with contextlib.redirect_stdout(io.StringIO()):
    for _ in range(200):
        for name, part in parts.items():
            began = time.perf_counter()
            part()
            seconds[name].append(time.perf_counter() - began)
medians = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
around = [
    1e3 * (whole - look - network)
    for whole, look, network in zip(
        seconds["an event, from end to end"],
        seconds["decoding, preparing, measuring"],
        seconds["the network"],
        strict=True,
    )
]
medians["around both (bar: 4)"] = statistics.median(around)
medians["decoding and preparing, by bare decoding (bar: 1.2)"] = (
    medians["decoding and preparing"] / medians["Pillow's bare decoding"]
)
print(json.dumps(medians))
