"""Smoke tests: a few requests that show whether an endpoint answers as its bundle says."""

import math
import time
import uuid
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from catsdogs_lib.client.http import UnreachableError
from catsdogs_lib.client.messages import Headers, HttpRequest, HttpResponse
from catsdogs_lib.common.files import parse_json
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.description import Golden

PROBABILITY_SUM_TOLERANCE = 1e-3
ANSWER_FIELDS = frozenset(
    {
        "prediction",
        "confidence",
        "probabilities",
        "latency_seconds",
        "confident",
        "reason",
        "model_version",
        "prediction_id",
    }
)
PROBLEM_FIELDS = frozenset({"type", "title", "status", "detail", "request_id"})
RETRY_SECONDS = 0.5


class SmokeCheck(NamedTuple):
    """The result of a check."""

    name: str
    passed: bool
    detail: str


class Endpoint(Protocol):
    """The endpoint under test: a URL (`catsdogs_lib.client.http.Upstream`), or a function that is invoked."""

    def ask(self, request: HttpRequest) -> HttpResponse:
        """Answer a request; raises `UnreachableError` if there is no response."""


class _CheckFailed(Exception):  # noqa: N818 - ends one check and never leaves this module
    """A check failed; ``str()`` says how the answer differs."""


def run_smoke_tests(upstream: Endpoint, bundle: Bundle, wait_seconds: float = 0.0) -> Iterator[SmokeCheck]:
    """Run the smoke tests against an endpoint.

    Parameters
    ----------
    upstream
        Endpoint to test.
    bundle
        Bundle that it should serve.
    wait_seconds
        Time that it has to become ready.

    Yields
    ------
    SmokeCheck
        Each result as soon as it is known.

    Raises
    ------
    UnreachableError
        There is no endpoint.
    """
    wait_until_ready(upstream, wait_seconds)
    yield _check("health", _status, upstream, "/health", "alive")
    yield _check("ready", _status, upstream, "/ready", "ready")
    yield _check("version", _version, upstream, bundle)
    answers: list[Any] = []
    for number, golden in enumerate(bundle.description.golden):
        multipart = number % 2 == 0
        name = f"golden {golden.name} ({'multipart' if multipart else 'bare'})"
        yield _check(name, _golden, upstream, golden, multipart, bundle.description.graph.tolerance, answers)
    if not bundle.description.golden:
        yield SmokeCheck("golden", False, f"bundle {bundle.folder} holds no golden answers; package the model again")
    yield _check("shape", _shape, answers, bundle)
    yield _check(
        "text file",
        _refused,
        upstream,
        _form(b"This is no photo.\n", "notes.txt", "text/plain"),
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "not-a-photo",
    )
    yield _check(
        "empty file", _refused, upstream, _form(b"", "empty.jpg", "image/jpeg"), HTTPStatus.BAD_REQUEST, "no-photo"
    )


def wait_until_ready(upstream: Endpoint, seconds: float) -> None:
    """Poll ``/ready`` until the endpoint is ready or the time is up.

    Raises
    ------
    UnreachableError
        The time is up and nothing answers.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            if upstream.ask(HttpRequest("GET", "/ready")).status == HTTPStatus.OK or time.monotonic() >= end:
                return
        except UnreachableError:
            if time.monotonic() >= end:
                raise
        time.sleep(min(RETRY_SECONDS, max(0.0, end - time.monotonic())))


def _check(name: str, check: Callable[..., str], *arguments: Any) -> SmokeCheck:
    try:
        return SmokeCheck(name, True, check(*arguments))
    except (_CheckFailed, UnreachableError) as error:
        return SmokeCheck(name, False, str(error))


def _json(response: HttpResponse, status: int = HTTPStatus.OK) -> dict[str, Any]:
    try:
        content = parse_json(response.body)
    except ValueError:
        content = None
    if response.status != status or not isinstance(content, dict):
        detail = content.get("detail") or content.get("Message") if isinstance(content, dict) else None
        detail = detail or " ".join(response.body[:120].decode(errors="replace").split())
        expected = "" if response.status == status else f" instead of {int(status)}"
        raise _CheckFailed(f"status {response.status}{expected}: {detail or 'no content'}")
    return content


def _status(upstream: Endpoint, path: str, expected: str) -> str:
    content = _json(upstream.ask(HttpRequest("GET", path)))
    if content.get("status") != expected:
        raise _CheckFailed(f"status is {content.get('status')!r}, not {expected!r}")
    return f"model {content['model_version']}" if "model_version" in content else expected


def _version(upstream: Endpoint, bundle: Bundle) -> str:
    content = _json(upstream.ask(HttpRequest("GET", "/version")))
    version = content.get("model_version")
    if version != bundle.version:
        raise _CheckFailed(
            f"model {version} answers, the bundle in {bundle.folder} is {bundle.version}; "
            "deploy it, or name the other with --bundle"
        )
    return f"service {content.get('service_version')}, model {version} as in {bundle.folder}"


def _golden(upstream: Endpoint, golden: Golden, multipart: bool, tolerance: float, answers: list[Any]) -> str:
    headers, body = _form(golden.data, f"{golden.name}.png", "image/png")
    if not multipart:
        headers, body = (("content-type", "image/png"),), golden.data
    start = time.perf_counter()
    answer = _json(upstream.ask(HttpRequest("POST", "/predict", headers=headers, body=body)))
    seconds = time.perf_counter() - start
    answers.append(answer)
    actual, expected = answer.get("probabilities"), golden.probabilities
    if not isinstance(actual, dict) or set(actual) != set(expected) or not all(map(_is_probability, actual.values())):
        classes = sorted(actual) if isinstance(actual, dict) else actual
        raise _CheckFailed(f"probabilities of {classes}, not from 0 to 1 of {sorted(expected)}")
    difference = max(abs(actual[name] - expected[name]) for name in expected)
    if not difference <= tolerance:
        raise _CheckFailed(f"differs by {difference:.4f} from the bundle's answer, more than {tolerance:g}")
    return f"{answer.get('prediction')}, differs by {difference:.1e}, {seconds * 1000:.0f} ms"


def _shape(answers: list[Any], bundle: Bundle) -> str:
    if not answers:
        raise _CheckFailed("there was no answer to check")
    for answer in answers:
        if missing := ANSWER_FIELDS - set(answer):
            raise _CheckFailed(f"an answer lacks {', '.join(sorted(missing))}")
        probabilities = answer["probabilities"]
        if (
            not isinstance(probabilities, dict)
            or not probabilities
            or not all(map(_is_probability, probabilities.values()))
        ):
            raise _CheckFailed("the probabilities are not a number from 0 to 1 for each class")
        if not abs(sum(probabilities.values()) - 1) <= PROBABILITY_SUM_TOLERANCE:
            raise _CheckFailed(f"probabilities sum to {sum(probabilities.values()):.4f}, not to 1")
        best = max(probabilities, key=probabilities.__getitem__)
        if answer["prediction"] != best or answer["confidence"] != probabilities[best]:
            raise _CheckFailed(f"prediction {answer['prediction']!r} is not the most probable class, {best!r}")
        if not isinstance(answer["confident"], bool) or answer["confident"] != (answer["reason"] is None):
            raise _CheckFailed("an answer is not confident without a reason, or confident with one")
        if not _is_number(answer["latency_seconds"]) or not answer["prediction_id"]:
            raise _CheckFailed("an answer has no latency or no id")
        if answer["model_version"] != bundle.version:
            raise _CheckFailed(f"an answer comes from model {answer['model_version']}, not {bundle.version}")
    return f"{len(ANSWER_FIELDS)} fields in each of {len(answers)} answers, probabilities sum to 1"


def _refused(upstream: Endpoint, upload: tuple[Headers, bytes], status: int, name: str) -> str:
    headers, body = upload
    response = upstream.ask(HttpRequest("POST", "/predict", headers=headers, body=body))
    content = _json(response, status)
    if not response.header("content-type").startswith("application/problem+json"):
        raise _CheckFailed(
            f"refused with {status}, but as {response.header('content-type')}, not as a problem document"
        )
    if missing := PROBLEM_FIELDS - set(content):
        raise _CheckFailed(f"the problem document lacks {', '.join(sorted(missing))}")
    if content["type"] != f"/problems/{name}" or content["status"] != status:
        raise _CheckFailed(f"the problem is {content['type']}, not /problems/{name}")
    return f"refused with {int(status)} {name}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


def _is_probability(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _form(data: bytes, filename: str, media_type: str) -> tuple[Headers, bytes]:
    boundary = f"catsdogs-{uuid.uuid4().hex}"
    head = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{filename}"\r\n'
        f"content-type: {media_type}\r\n\r\n"
    )
    body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
    return (("content-type", f"multipart/form-data; boundary={boundary}"),), body
