"""The handler beside a torch-eager one of the same network, under the same emulator, alternating in one run.

    python benchmarks/against_torch_eager.py [--rounds 5] [--requests 15] [--small PHOTO] [--large PHOTO]

Both run with the lock's packages for what they need (ours: lambda/requirements.txt alone; theirs: the environment
that runs this, where torch may be built with CUDA) and one thread, as Lambda gives it at 1 769 MB. Without photos
drawn ones are taken.
"""

import argparse
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import timm
import torch
from onnx import numpy_helper
from PIL import Image
from rich.console import Console
from rich.table import Table

from catsdogs_lib.bundle import Bundle
from catsdogs_lib.classifier import Classifier
from catsdogs_lib.data.drawing import draw
from catsdogs_lib.doors.events import HttpRequest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "lambda")]

from emulator import RuntimeEmulator, copy_runtime, find_binary  # noqa: E402
from mutations import multipart  # noqa: E402

NETWORK = "tf_efficientnet_lite0"
SAME = 1e-3
"""On the same input both networks may differ by so much in a probability."""


class Bar(NamedTuple):
    """What is measured, how to show it, and how many times less of it the handler must need."""

    name: str
    unit: str
    scale: float
    times: float


BARS = (
    Bar("first answer", "ms", 1e3, 4.0),
    Bar("small photo", "ms", 1e3, 2.0),
    Bar("12 megapixels", "ms", 1e3, 3.0),
    Bar("peak memory", "MB", 1e-6, 4.0),
    Bar("peak memory without CUDA's files", "MB", 1e-6, 4.0),
)
CUDA = re.compile(r"cuda|cudnn|cublas|cusparse|cusolver|cufft|curand|nvrtc|nvJitLink|nvshmem|nvjpeg|nccl|cupti|triton")
"""Files of torch's usual wheel that the one for CPUs lacks."""


def write_weights(bundle: Bundle, folder: Path) -> None:
    """Take the weights out of a bundle's graph: a state file for timm's network, and the settings beside it."""
    graph = onnx.load_from_string(bundle.graph).graph
    stored = {tensor.name.removesuffix(".fp16"): numpy_helper.to_array(tensor) for tensor in graph.initializer}
    description = bundle.description
    network: Any = timm.create_model(NETWORK, num_classes=len(description.classes))
    state = {}
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = value
            continue
        inside = (
            f"network.{name.replace('classifier.', 'head.') if name.startswith('classifier.') else f'backbone.{name}'}"
        )
        state[name] = torch.from_numpy(np.array(stored[inside], dtype=np.float32))
    network.load_state_dict(state)
    _check(network.eval(), bundle)
    torch.save(state, folder / "weights.pt")
    shape = description.preprocessing
    settings = {
        "network": NETWORK, "classes": description.classes, "temperature": description.temperature,
        "size": shape.size, "mean": shape.mean, "std": shape.std,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))


def _check(network: torch.nn.Module, bundle: Bundle) -> None:
    classifier, worst = Classifier(bundle), 0.0
    for golden in bundle.description.golden:
        with torch.inference_mode():
            logits = network(torch.from_numpy(classifier.load(golden.data))[None]) / bundle.description.temperature
            found = torch.softmax(logits, dim=1)[0].tolist()
        worst = max(worst, *(abs(a - b) for a, b in zip(found, golden.probabilities.values(), strict=True)))
    print(f"the same network: on the same input a probability differs by at most {worst:.1e}")
    if worst > SAME:
        raise SystemExit("it is not the same network")


def served(folder: Path) -> None:
    """Lay down what Lambda serves: the locked requirements, the library and the handler, compiled as in the image."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(folder)]
    subprocess.run([*pip, "-r", ROOT / "lambda" / "requirements.txt"], check=True)
    shutil.copytree(ROOT / "catsdogs_lib", folder / "catsdogs_lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "lambda" / "handler.py", folder)
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", folder], check=True
    )


def photo(given: Path | None, size: tuple[int, int]) -> bytes:
    """A photo's bytes: as given, scaled up where it is too small; else drawn."""
    image = draw("cat", 5, (size[0] // 2, size[1] // 2)) if given is None else Image.open(given)
    if given is not None and image.width * image.height > 0.9 * size[0] * size[1]:
        return given.read_bytes()
    stream = io.BytesIO()
    image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def one_process(emulator: RuntimeEmulator, requests: Mapping[str, HttpRequest], count: int) -> dict[str, Any]:
    """Start a process, ask, and say what it took: seconds, bytes, and its answer for each photo."""
    found: dict[str, Any] = {"answers": {}}
    began = time.perf_counter()
    with emulator as running:
        (small_name, small), *others = requests.items()
        if running.ask(small).status != 200:
            raise SystemExit(f"no answer; see {running.log}")
        found["first answer"] = time.perf_counter() - began
        for name, request in ((small_name, small), *others):
            seconds = []
            for _ in range(count):
                begin = time.perf_counter()
                response = running.ask(request)
                seconds.append(time.perf_counter() - begin)
                if response.status != 200:
                    raise SystemExit(f"{response.status} {response.body[:300]!r}; see {running.log}")
            found[name] = statistics.median(seconds)
            found["answers"][name] = json.loads(response.body)["probabilities"]
        found["peak memory"] = running.memory()
        found["peak memory without CUDA's files"] = found["peak memory"] - mapped(running.runtime_pid, CUDA)
    return found


def mapped(pid: int, names: re.Pattern[str]) -> int:
    """Bytes in memory of the files that a process has mapped and whose names match."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = bool(names.search(line.rpartition("/")[2])) if "/" in line else False
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def show(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> bool:
    """Print medians and ratios; whether every bar is reached."""
    table = Table(title=f"medians of {len(ours)} processes each, alternating", title_justify="left")
    table.add_column("")
    for name in ("catsdogs", "torch eager", "ratio", "bar"):
        table.add_column(name, justify="right")
    reached = True
    for bar in BARS:
        own, other = (statistics.median(run[bar.name] for run in runs) for runs in (ours, theirs))
        ratio = other / own
        reached &= ratio >= bar.times
        colour = "green" if ratio >= bar.times else "red"
        numbers = (f"{value * bar.scale:.1f} {bar.unit}" for value in (own, other))
        table.add_row(bar.name, *numbers, f"[{colour}]{ratio:.2f}[/]", f"{bar.times:g}")
    Console().print(table)
    return reached


def main() -> None:
    """Run both; ends with 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of each")
    parser.add_argument("--requests", type=int, default=15, help="of each photo and process")
    parser.add_argument("--small", type=Path, help="a photo of about 500 pixels")
    parser.add_argument("--large", type=Path, help="a photo of 12 megapixels; a smaller one is scaled up")
    options = parser.parse_args()
    requests = {
        "small photo": multipart(photo(options.small, (500, 375))),
        "12 megapixels": multipart(photo(options.large, (4000, 3000))),
    }
    bundle = Bundle.load(ROOT / "models" / "reference")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        write_weights(bundle, folder)
        served(folder / "served")
        copy_runtime(folder / "var")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "python"], check=True)
        environment = {"PYTHONPATH": str(folder / "var"), "CATSDOGS_BUNDLE": str(bundle.folder)}
        binary, python = find_binary(), folder / "python" / "bin" / "python"
        runs: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
        for number in range(-1, options.rounds):  # the first pair only fills the disk cache
            ours = RuntimeEmulator(binary, python, folder / "served", folder / "ours.log", environment)
            theirs = RuntimeEmulator(
                binary, Path(sys.executable), ROOT / "benchmarks" / "torch_eager", folder / "theirs.log",
                {"WEIGHTS": str(folder)},
            )  # fmt: skip
            pair = [one_process(running, requests, options.requests) for running in (ours, theirs)]
            if number >= 0:
                for kept, run in zip(runs, pair, strict=True):
                    kept.append(run)
        for what, answer in runs[1][0]["answers"].items():
            own = runs[0][0]["answers"][what]
            worst = max(abs(own[label] - value) for label, value in answer.items())
            print(f"{what}: each scales it down in its way, a probability differs by {worst:.1e}")
        if not show(*runs):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
