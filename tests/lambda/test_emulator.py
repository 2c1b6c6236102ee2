"""The handler under AWS's runtime emulator, as Lambda runs it: good photos, hostile ones, events, logs, figures."""

import base64
import io
import json
import shutil
import time
from itertools import islice
from pathlib import Path

import pytest

from catsdogs_lib.client.lambda_events import response_of
from catsdogs_lib.client.messages import HttpRequest
from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.serving.problems import KINDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "models" / "reference"
SLOWEST = 1.0
"""Seconds that any answer may take."""
MUTATIONS = 2000
ANSWER = {
    "prediction",
    "confidence",
    "probabilities",
    "latency_seconds",
    "confident",
    "reason",
    "model_version",
    "prediction_id",
}
NOT_SERVED = {
    "torch",
    "torchvision",
    "timm",
    "mlflow",
    "pandas",
    "matplotlib",
    "scipy",
    "sklearn",
    "pyarrow",
    "onnx",
    "botocore",
}
METRICS = {"Requests", "Latency", "Problems", "UnhandledError", "Confidence", "WarmUps", "UnknownEvents"}
EVENTS = {
    "function_url_bare": 200,
    "function_url_multipart": 200,
    "http_api_bare": 200,
    "http_api_multipart": 200,
    "rest_bare": 200,
    "rest_multipart": 200,
    "function_url_text_file": 415,
    "function_url_cut_off": 422,
    "function_url_no_photo": 400,
    "get_page": 200,
    "get_information": 200,
    "get_health": 200,
    "get_ready": 200,
    "get_nothing": 404,
    "warm_up": None,
    "warm_up_schedule": None,
    "map-batch": 400,
    "sqs-s3-batch": 400,
}


def judge(response):
    """What every answer must be: a prediction, or a problem document that is no 500."""
    if response.status == 200:
        answer = json.loads(response.body)
        assert set(answer) == ANSWER
        assert abs(sum(answer["probabilities"].values()) - 1) < 1e-3
        return answer
    assert response.header("content-type") == "application/problem+json", response
    problem = json.loads(response.body)
    assert set(problem) == {"type", "title", "status", "detail", "request_id"}
    assert problem["status"] == response.status
    kind = KINDS[problem["type"].removeprefix("/problems/")]
    assert kind.status == response.status
    assert kind.name != "internal-error", problem
    assert 10 < len(problem["detail"]) < 500
    assert problem["request_id"] == response.header("x-request-id")
    return problem


class Clock:
    """Asks, judges, and remembers the slowest answer."""

    def __init__(self, emulator):
        self.emulator, self.slowest, self.statuses = emulator, (0.0, ""), {}

    def ask(self, name, request):
        began = time.perf_counter()
        response = self.emulator.ask(request)
        self.slowest = max(self.slowest, (time.perf_counter() - began, name))
        self.statuses[response.status] = self.statuses.get(response.status, 0) + 1
        try:
            return judge(response)
        except (AssertionError, KeyError, ValueError) as error:
            raise AssertionError(f"{name}: {response.status} {response.body[:300]!r}") from error


def jpeg(kind, seed, size=(320, 240), **settings):
    stream = io.BytesIO()
    draw(kind, seed, size).save(stream, "JPEG", **settings)
    return stream.getvalue()


def test_the_golden_answers_come_back(emulator, hostile):
    for golden in Bundle.load(REFERENCE).description.golden:
        for request in (hostile.bare(golden.data, "image/png"), hostile.multipart(golden.data)):
            answer = judge(emulator.ask(request))
            assert answer["probabilities"] == pytest.approx(golden.probabilities, abs=1e-3)


@pytest.mark.parametrize("path", sorted((ROOT / "lambda" / "events").glob("*.json")), ids=lambda path: path.stem)
def test_each_sample_event_is_answered(emulator, path):
    payload = emulator.invoke(json.loads(path.read_text()))
    expected = EVENTS[path.stem]
    if expected is None:
        assert json.loads(payload) == {"warm": True, "model_version": Bundle.load(REFERENCE).version}
        return
    response = response_of(payload)
    assert response.status == expected
    if expected != 200 or path.stem.endswith(("bare", "multipart")):
        judge(response)


def test_an_event_of_another_service_is_a_problem_not_a_crash(emulator):
    pid = emulator.runtime_pid
    for event in ({"Records": [{"s3": {}}]}, {}, [], "text", None, {"requestContext": {}}, {"requestContext": None}):
        payload = json.loads(emulator.invoke(event))
        assert payload.get("statusCode") == 400, (event, payload)
    assert emulator.runtime_pid == pid


def test_every_edge_file_is_answered_or_refused_with_a_sentence(emulator, hostile, edge):
    pid, clock = emulator.runtime_pid, Clock(emulator)
    for path in sorted(path for path in edge.rglob("*") if path.is_file()):
        data = path.read_bytes()
        bare = clock.ask(f"{path.name} bare", hostile.bare(data))
        form = clock.ask(f"{path.name} multipart", hostile.multipart(data, path.name))
        assert bare.get("prediction") == form.get("prediction")
    print(f"edge: {clock.statuses}, slowest {clock.slowest[0]:.3f} s ({clock.slowest[1]})")
    assert emulator.runtime_pid == pid
    assert clock.slowest[0] < SLOWEST, clock.slowest


def test_mutated_photos_never_break_it(emulator, hostile, request):
    pid, clock = emulator.runtime_pid, Clock(emulator)
    for name, question in hostile.mutations(_photos(hostile, request), MUTATIONS):
        clock.ask(name, question)
    print(f"{MUTATIONS} mutations: {clock.statuses}, slowest {clock.slowest[0]:.3f} s ({clock.slowest[1]})")
    assert emulator.runtime_pid == pid
    assert clock.slowest[0] < SLOWEST, clock.slowest
    assert {200, 400, 415, 422} <= set(clock.statuses)


def _photos(hostile, request):
    """Real photos, drawn ones where there are none, and some in every other format."""
    try:
        folder = request.getfixturevalue("pets") / "test"
        photos = [path.read_bytes() for path in islice(sorted(folder.glob("*/*.jpg")), 0, None, 30)]
    except pytest.skip.Exception:
        photos = [jpeg(kind, seed) for kind in ("cat", "dog") for seed in range(20)]
    return photos + [other for photo in photos[:4] for other in hostile.in_other_formats(photo)] * 2


def test_bombs_are_refused_at_once(emulator, hostile, edge):
    bombs = [*sorted((edge / "bombs").iterdir()), edge / "pillow_suite" / "decompression_bomb.gif"]
    emulator.ask(hostile.bare(jpeg("cat", 1)))  # starts the handler
    for path in bombs:
        emulator.tree.reset_peaks()
        before = sum(emulator.tree.resident().values())
        began = time.perf_counter()
        response = emulator.ask(hostile.bare(path.read_bytes(), "image/png"))
        seconds, growth = time.perf_counter() - began, sum(emulator.tree.peaks().values()) - before
        print(f"{path.name}: {response.status} in {seconds * 1e3:.0f} ms, {growth / 1e6:.0f} MB")
        assert judge(response)["status"] in (413, 415, 422)
        assert seconds < 0.2
        assert growth < 100e6


def test_an_ordinary_photo_takes_little_memory(emulator, hostile):
    """12 megapixels of a phone: decoded at a fraction, never whole."""
    photo = jpeg("cat", 5, (400, 300))
    large = io.BytesIO()
    from PIL import Image

    with Image.open(io.BytesIO(photo)) as image:
        image.resize((4000, 3000)).save(large, "JPEG", quality=85)
    emulator.ask(hostile.bare(photo))
    emulator.tree.reset_peaks()
    before = sum(emulator.tree.resident().values())
    assert "prediction" in judge(emulator.ask(hostile.bare(large.getvalue())))
    assert sum(emulator.tree.peaks().values()) - before < 60e6


def test_the_log_is_json_and_holds_no_photo(emulator, hostile):
    secret = b"nobody may read this in a log 0123456789"
    photo = jpeg("dog", 3, comment=secret)
    assert secret in photo
    request = HttpRequest(
        "POST",
        "/predict",
        headers=(("content-type", "image/jpeg"), ("authorization", "Bearer hidden-token")),
        body=photo,
    )
    answer = judge(emulator.ask(request))
    judge(emulator.ask(hostile.multipart(secret * 10, "secret.jpg")))
    lines = list(emulator.lines())
    entries = [json.loads(line) for line in lines]  # every line is JSON
    text = "\n".join(lines)
    for shift in range(3):
        assert base64.b64encode(secret[shift:])[:40].decode() not in text
    assert secret.decode() not in text
    assert "hidden-token" not in text
    assert max(map(len, lines)) < 5000
    (line,) = [entry for entry in entries if entry.get("prediction_id") == answer["prediction_id"] and "level" in entry]
    assert {"timestamp", "request_id", "prediction", "confidence", "latency_seconds", "model_version"} <= set(line)
    assert line["prediction"] == answer["prediction"]
    assert not [entry for entry in entries if entry.get("level") == "ERROR"]


def test_a_file_name_is_logged_as_it_is(emulator, hostile):
    for name in ("100 %.jpg", "%(message)s %(levelno)0999999d", "{0}.jpg", "\u732b.jpg"):
        answer = judge(emulator.ask(hostile.multipart(jpeg("cat", 6), name)))
        (line,) = [line for line in emulator.lines() if answer["prediction_id"] in line and '"level"' in line]
        assert json.loads(line)["filename"] == name


def test_figures_have_few_dimensions(emulator, hostile):
    judge(emulator.ask(hostile.multipart(jpeg("dog", 4))))
    judge(emulator.ask(hostile.bare(b"no photo")))
    emulator.ask(HttpRequest("GET", "/nothing/at/all"))
    emulator.ask(HttpRequest("GET", "/problems/no-photo"))
    blobs = [entry for entry in map(json.loads, emulator.lines()) if "_aws" in entry]
    assert sum("ColdStart" in blob for blob in blobs) == 1
    version, seen = Bundle.load(REFERENCE).version, set()
    for blob in blobs:
        (described,) = blob["_aws"]["CloudWatchMetrics"]
        dimensions = {frozenset(named) for named in described["Dimensions"]}
        names = {metric["Name"] for metric in described["Metrics"]}
        assert described["Namespace"] == "Catsdogs"
        assert names.union(*dimensions) <= set(blob)
        seen |= names
        if names == {"ColdStart"}:
            assert dimensions == {frozenset({"service", "function_name"})}  # Powertools' own
        elif names == {"PredictionsByClass"}:
            assert dimensions == {frozenset({"service", "class_name"})}
            assert blob["class_name"] in ("cat", "dog")
        elif names == {"ProblemsByType"}:
            assert dimensions == {frozenset({"service", "problem"})}
            assert blob["problem"] in KINDS
        elif "Confidence" in names:
            assert names == {"Confidence", "ClassPosition", "Unsure"}
            assert dimensions == {frozenset({"service"}), frozenset({"service", "function_version"})}
        elif "Requests" in names:
            assert dimensions == {frozenset({"service", "route", "model_version"})}
            assert names <= METRICS
            assert blob["model_version"] == version
        else:
            assert names <= {"WarmUps", "UnknownEvents"}
            assert dimensions <= {frozenset({"service"})}
    assert {"PredictionsByClass", "ProblemsByType", "Confidence", "Requests"} <= seen
    routes = {blob["route"] for blob in blobs if "route" in blob}
    assert routes <= {"/predict", "/", "/ready", "/health", "/problems/{name}", "unmatched", "/static"}


def test_a_broken_bundle_is_a_sentence_and_no_crash(runtime, hostile, tmp_path):
    broken = tmp_path / "bundle"
    shutil.copytree(REFERENCE, broken)
    graph = bytearray((broken / "model.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (broken / "model.onnx").write_bytes(graph)
    with runtime(broken, "broken") as running:
        for request in (
            hostile.multipart(jpeg("cat", 1)),
            HttpRequest("GET", "/ready"),
            HttpRequest("GET", "/version"),
        ):
            problem = judge(running.ask(request))
            assert (problem["status"], problem["type"]) == (503, "/problems/not-ready")
            assert "log of the service" in problem["detail"]
        assert running.ask(HttpRequest("GET", "/health")).status == 200
        (error,) = (entry for entry in map(json.loads, running.lines()) if entry.get("level") == "ERROR")
        assert "altered" in error["reason"]


def test_what_is_served_is_small_and_holds_no_training_tool(served):
    sizes = {path.name: _bytes(path) for path in served.iterdir()}
    sizes["the bundle"] = _bytes(REFERENCE)
    total = sum(sizes.values())
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
    print(f"{total / 1e6:.0f} MB:", ", ".join(f"{name} {size / 1e6:.0f}" for name, size in largest))
    assert {name.lower() for name in sizes}.isdisjoint(NOT_SERVED)
    assert total <= 260e6, largest


def _bytes(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())
