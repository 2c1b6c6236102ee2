"""The handler beside torch ones of the same network, under AWS's runtime emulator, alternating in one run.

    python benchmarks/on_lambda.py [--bundle DIR] [--rounds 5] [--requests 20] [--small PHOTO] [--large PHOTO]

Each has the lock's packages (ours: lambda/requirements.txt alone; theirs: the environment that runs this, where torch
may be built with CUDA) and one thread, as Lambda gives it at 1 769 MB; at 3 538 MB two. Theirs are FastAPI and Mangum
around torch at module level, as AWS's template has it: eager, eager with Pillow's draft, and a traced and frozen graph.
Without photos drawn ones are taken.
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
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import weights
from comparison import Part, Ratio
from package_sizes import closure, size_of, size_without
from PIL import Image

from catsdogs_lib.client.lambda_events import Arrival, function_url_event
from catsdogs_lib.client.messages import HttpRequest
from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.inference.bundle import Bundle

ROOT = Path(__file__).parents[1]
RIVALS = ROOT / "benchmarks" / "rivals"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "lambda"), str(ROOT / "scripts")]

import costs  # noqa: E402
from emulator import RuntimeEmulator, copy_runtime, find_binary  # noqa: E402
from mutations import multipart  # noqa: E402

EAGER = "torch eager"
SIDES: dict[str, dict[str, str]] = {
    "catsdogs": {},
    EAGER: {},
    "torch eager, draft": {"DRAFT": "1"},
    "torch, traced": {"RIVAL": "script"},
}
BARS = {"first answer": 6.0, "small photo": 2.5, "12 megapixels": 4.0, "peak memory": 6.0}
"""Against torch eager."""
UNITS = {"first answer": "ms", "small photo": "ms", "2 megapixels": "ms", "12 megapixels": "ms", "peak memory": "MB"}
CUDA = re.compile(r"cuda|cudnn|cublas|cusparse|cusolver|cufft|curand|nvrtc|nvJitLink|nvshmem|nvjpeg|nccl|cupti|triton")
"""Files of torch's usual wheel that the one for CPUs lacks."""
PHASES = """
import importlib, json, sys, time
began = time.perf_counter()
for name in sys.argv[2:]:
    importlib.import_module(name)
imported = time.perf_counter()
import handler
loaded = time.perf_counter()
class Context:
    function_name = "f"; memory_limit_in_mb = 1769; aws_request_id = "r"; function_version = "1"
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:f"
    def get_remaining_time_in_millis(self): return 30000
event = json.load(open(sys.argv[1]))
answer = handler.handler(event, Context())
ended = time.perf_counter()
assert answer["statusCode"] == 200, answer
print("PHASES", json.dumps([imported - began, loaded - imported, ended - loaded]))
"""
IMPORTS = {
    "catsdogs": ("mangum", "aws_lambda_powertools", "catsdogs_lib.serving.app"),
    EAGER: ("fastapi", "mangum", "PIL.Image", "torch", "torchvision.transforms.v2", "timm"),
}


def lay_down(folder: Path) -> None:
    """Lay down what Lambda serves: the locked requirements, the library and the handler, compiled as in the image."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(folder)]
    subprocess.run([*pip, "-r", ROOT / "lambda" / "requirements.txt"], check=True, stderr=subprocess.DEVNULL)
    shutil.copytree(ROOT / "catsdogs_lib", folder / "catsdogs_lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "lambda" / "handler.py", folder)
    compiling = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(folder)]
    subprocess.run(compiling, check=True)


def photo(given: Path | None, size: tuple[int, int]) -> bytes:
    """A photo's bytes: as given, scaled up where it is too small; else drawn."""
    image = draw("cat", 5, (size[0] // 2, size[1] // 2)) if given is None else Image.open(given)
    if given is not None and image.width * image.height > 0.9 * size[0] * size[1]:
        return given.read_bytes()
    stream = io.BytesIO()
    image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def one_process(emulator: RuntimeEmulator, requests: Mapping[str, HttpRequest], count: int) -> dict[str, Any]:
    """Start a process, ask, and say what it took: seconds of each request, bytes, CPU seconds, and its answers."""
    run: dict[str, Any] = {"answers": {}}
    began = time.perf_counter()
    with emulator as running:
        first = next(iter(requests.values()))
        _ask(running, first)
        run["first answer"] = time.perf_counter() - began
        process = psutil.Process(running.runtime_pid)
        for name, request in requests.items():
            before, seconds = process.cpu_times(), []
            for _ in range(count):
                begin = time.perf_counter()
                response = _ask(running, request)
                seconds.append(time.perf_counter() - begin)
            after = process.cpu_times()
            run[name] = seconds
            run[f"CPU {name}"] = (after.user + after.system - before.user - before.system) / count
            run["answers"][name] = json.loads(response.body)["probabilities"]
        run["peak memory"] = running.memory()
        run["without CUDA"] = run["peak memory"] - mapped(running.runtime_pid, CUDA)
    return run


def _ask(running: RuntimeEmulator, request: HttpRequest) -> Any:
    response = running.ask(request)
    if response.status != 200:
        raise SystemExit(f"{response.status} {response.body[:300]!r}; see {running.log}")
    return response


def mapped(pid: int, names: re.Pattern[str]) -> int:
    """Bytes in memory of the files that a process has mapped and whose names match."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = bool(names.search(line.rpartition("/")[2])) if "/" in line else False
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def phases(
    python: Path, folder: Path, event: Path, names: tuple[str, ...], environment: Mapping[str, str]
) -> list[float]:
    """Milliseconds of a fresh process for imports, the rest of its start, and the first event."""
    command = [python, "-c", PHASES, event, *names]
    done = subprocess.run(command, env={"PYTHONPATH": str(folder), **environment}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("PHASES")]
    return [1e3 * value for value in json.loads(line[6:])]


def overhead(bundle: Bundle, served: Path, python: Path, event: Path, photo: Path) -> dict[str, float]:
    """Milliseconds around decoding and network, in the handler's own process: medians of 200."""
    code = (ROOT / "benchmarks" / "overhead.py").read_text()
    environment = {"PYTHONPATH": str(served), "CATSDOGS_BUNDLE": str(bundle.folder.resolve()), **LAMBDA}
    done = subprocess.run([python, "-c", code, event, photo], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    medians: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return medians


LAMBDA = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769", "AWS_LAMBDA_FUNCTION_NAME": "f", "POWERTOOLS_TRACE_DISABLED": "1"}


def percentiles(runs: Mapping[str, list[dict[str, Any]]], photos: list[str]) -> list[dict[str, Any]]:
    """Milliseconds at p50, p95 and p99 of all requests."""
    rows = []
    for name in photos:
        for side, side_runs in runs.items():
            values = 1e3 * np.concatenate([run[name] for run in side_runs])
            p50, p95, p99 = (float(value) for value in np.quantile(values, (0.5, 0.95, 0.99)))
            cpu = 1e3 * statistics.median(run[f"CPU {name}"] for run in side_runs)
            rows.append(
                {"photo": f"{name}, {side}", "p50, ms": p50, "p95, ms": p95, "p99, ms": p99, "CPU, s a thousand": cpu}
            )
    return rows


def main() -> None:
    """Run all; ends with 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "reference")
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of each")
    parser.add_argument("--requests", type=int, default=20, help="of each photo and process")
    parser.add_argument("--small", type=Path, help="a photo of about 500 pixels")
    parser.add_argument("--large", type=Path, help="a photo of 12 megapixels; a smaller one is scaled up")
    options = parser.parse_args()
    photos = {
        "small photo": photo(options.small, (500, 375)),
        "2 megapixels": photo(None, (1632, 1224)),
        "12 megapixels": photo(options.large, (4000, 3000)),
    }
    requests = {name: multipart(data) for name, data in photos.items()}
    bundle = Bundle.load(options.bundle)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    apart: dict[str, list[list[float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        weights.write(bundle, folder)
        lay_down(folder / "served")
        copy_runtime(folder / "var")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "python"], check=True)
        binary, python = find_binary(), folder / "python" / "bin" / "python"
        own = {"PYTHONPATH": str(folder / "var"), "CATSDOGS_BUNDLE": str(bundle.folder.resolve())}

        def emulator(side: str, megabytes: int = 1769) -> RuntimeEmulator:
            more = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(megabytes)}
            if side == "catsdogs":
                return RuntimeEmulator(binary, python, folder / "served", folder / "ours.log", {**own, **more})
            with_weights = {"WEIGHTS": str(folder), **SIDES[side], **more}
            return RuntimeEmulator(binary, Path(sys.executable), RIVALS, folder / "theirs.log", with_weights)

        event = folder / "event.json"
        event.write_text(json.dumps(_event(requests["small photo"])))
        (folder / "small.jpg").write_bytes(photos["small photo"])
        for number in range(-1, options.rounds):  # the first round only fills the disk cache
            for side in SIDES:
                run = one_process(emulator(side), requests, options.requests)
                if number >= 0:
                    runs[side].append(run)
            for side, modules in IMPORTS.items():
                where, interpreter = (
                    (folder / "served", python) if side == "catsdogs" else (RIVALS, Path(sys.executable))
                )
                took = phases(
                    interpreter,
                    where,
                    event,
                    modules,
                    {**LAMBDA, **own, "PYTHONPATH": str(where), "WEIGHTS": str(folder)},
                )
                if number >= 0:
                    apart[side].append(took)
        double = {
            side: [one_process(emulator(side, 3538), requests, options.requests) for _ in range(2)]
            for side in (EAGER, "catsdogs")
        }
        around = overhead(bundle, folder / "served", python, event, folder / "small.jpg")
        served_bytes = size_of(folder / "served")
    part = _part(runs, apart, double, around, served_bytes, bundle)
    if not part.keep():
        raise SystemExit(1)


def _costs(
    runs: Mapping[str, list[dict[str, Any]]], double: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """US dollars of a million small photos by memory size; a side needs what it took at most, and a fifth more.

    Below a core (1 769 MB) Lambda gives a share of one, and time grows as the share falls; at two cores both are as
    measured. Prices are those of `scripts/costs.py`.
    """
    rows = []
    for megabytes in (256, 512, 1024, 1769, 3538):
        row: dict[str, Any] = {"memory, MB": str(megabytes)}
        for side in ("catsdogs", EAGER):
            side_runs = double[side] if megabytes > 1769 else runs[side]
            seconds = statistics.median(float(np.median(run["small photo"])) for run in side_runs)
            seconds *= max(1.0, 1769 / megabytes)
            needs = 1.2e-6 * max(run["peak memory"] for run in runs[side])
            gigabyte_seconds = seconds * megabytes / 1024
            dollars = 1e6 * (costs.price("lambda_request") + gigabyte_seconds * costs.price("lambda_gb_second"))
            row[f"{side}, ms"] = f"{1e3 * seconds:.0f}" if needs <= megabytes else "too small"
            row[f"{side}, $"] = f"{dollars:.2f}" if needs <= megabytes else ""
        rows.append(row)
    return rows


def _event(request: HttpRequest) -> dict[str, Any]:
    return function_url_event(request, Arrival.now())


def _ratios(runs: Mapping[str, list[dict[str, Any]]]) -> list[Ratio]:
    ratios = []
    for what, unit in UNITS.items():
        for side in SIDES:
            if side == "catsdogs":
                continue
            scale = 1e3 if unit == "ms" else 1e-6
            values = [[scale * float(np.median(run[what])) for run in runs[name]] for name in ("catsdogs", side)]
            ratios.append(Ratio(what, unit, side, *values, bar=BARS.get(what) if side == EAGER else None))
    pairs = [[1e-6 * run["without CUDA"] for run in runs[name]] for name in ("catsdogs", EAGER)]
    ratios.append(Ratio("peak memory", "MB", "torch eager without CUDA's files", *pairs))
    return ratios


def _part(
    runs: Mapping[str, list[dict[str, Any]]],
    apart: Mapping[str, list[list[float]]],
    double: Mapping[str, list[dict[str, Any]]],
    around: Mapping[str, float],
    served: int,
    bundle: Bundle,
) -> Part:
    ratios = _ratios(runs)
    others = closure(["torch", "torchvision", "timm", "fastapi", "mangum", "pillow", "python-multipart"])
    torch_bytes = sum(others.values())
    cpu_bytes = sum(
        size_without("torch", CUDA) if name == "torch" else size
        for name, size in others.items()
        if not name.startswith(("nvidia", "cuda", "triton"))
    )
    ratios.append(Ratio("environment", "MB", "torch of PyPI", [served / 1e6], [torch_bytes / 1e6], bar=10))
    ratios.append(Ratio("environment", "MB", "torch for CPUs", [served / 1e6], [cpu_bytes / 1e6], bar=3))
    differences = {
        name: max(abs(runs["catsdogs"][0]["answers"][name][label] - value) for label, value in answer.items())
        for name, answer in runs[EAGER][0]["answers"].items()
    }
    start = [
        {
            "process": side,
            **{
                what: statistics.median(run[phase] for run in side_runs)
                for phase, what in enumerate(("imports, ms", "load and warm up, ms", "first event, ms"))
            },
        }
        for side, side_runs in apart.items()
    ]
    return Part(
        "lambda",
        f"On Lambda: bundle {bundle.version}, {bundle.description.preprocessing.size} pixels, one thread",
        f"{len(runs[EAGER])} fresh processes of each under the runtime emulator, alternating; "
        f"{len(runs[EAGER][0]['small photo'])} requests of each photo. Each scales photos down in its way, so that a "
        f"probability differs by {', '.join(f'{value:.1e} ({name})' for name, value in differences.items())}. "
        "Torch for CPUs cannot be installed from PyPI: its size is that of torch's files without those for CUDA; the "
        "wheel that download.pytorch.org/whl/cpu publishes has about 200 MB, packed.",
        ratios,
        {
            "A fresh process, medians": start,
            "Around decoding and network, medians": [{"step": name, "ms": value} for name, value in around.items()],
            "A million small photos, US dollars": _costs(runs, double),
            "Warm, one thread": percentiles(runs, list(runs[EAGER][0]["answers"])),
            "Warm, two threads (3 538 MB)": percentiles(double, list(runs[EAGER][0]["answers"])),
        },
    )


if __name__ == "__main__":
    main()
