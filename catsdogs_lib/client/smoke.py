"""Whether an endpoint answers as its bundle says: a handful of requests, one line each."""

import json
import time
import uuid
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from catsdogs_lib.client.http import UnreachableError
from catsdogs_lib.client.lambda_events import HttpRequest, HttpResponse, Pairs
from catsdogs_lib.inference.bundle import Bundle, Golden

SUM_TOLERANCE = 1e-3
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
    """One thing that was looked at."""

    name: str
    passed: bool
    detail: str


class Endpoint(Protocol):
    """What is looked at: a URL (`catsdogs_lib.client.http.Upstream`), or a function that is called."""

    def ask(self, request: HttpRequest) -> HttpResponse:
        """Answer a request; raises `UnreachableError` where nobody does."""


class _Wrong(Exception):  # noqa: N818 - it ends one check, and is no error
    """What the endpoint answered instead."""


def run_smoke_tests(upstream: Endpoint, bundle: Bundle, wait_seconds: float = 0.0) -> Iterator[SmokeCheck]:
    """Look at an endpoint.

    Parameters
    ----------
    upstream
        The endpoint.
    bundle
        What it should answer with.
    wait_seconds
        So long it may take to become ready.

    Yields
    ------
    SmokeCheck
        One result after the other.

    Raises
    ------
    UnreachableError
        There is no endpoint.
    """
    wait_until_ready(upstream, wait_seconds)
    yield _check("health", _health, upstream)
    yield _check("ready", _ready, upstream)
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
    """Ask until the endpoint is ready, or the time is over.

    Raises
    ------
    UnreachableError
        The time is over and nobody answers.
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


def _check(name: str, look: Any, *arguments: Any) -> SmokeCheck:
    try:
        return SmokeCheck(name, True, look(*arguments))
    except (_Wrong, UnreachableError) as error:
        return SmokeCheck(name, False, str(error))


def _json(answer: HttpResponse, status: int = HTTPStatus.OK) -> dict[str, Any]:
    try:
        content = json.loads(answer.body)
    except ValueError:
        content = None
    if answer.status != status or not isinstance(content, dict):
        said = content.get("detail") or content.get("Message") if isinstance(content, dict) else None
        shown = said or " ".join(answer.body[:120].decode(errors="replace").split())
        wanted = "" if answer.status == status else f" instead of {int(status)}"
        raise _Wrong(f"status {answer.status}{wanted}: {shown or 'no content'}")
    return content


def _health(upstream: Endpoint) -> str:
    status = _json(upstream.ask(HttpRequest("GET", "/health"))).get("status")
    if status != "alive":
        raise _Wrong(f"status is {status!r}, not 'alive'")
    return "alive"


def _ready(upstream: Endpoint) -> str:
    content = _json(upstream.ask(HttpRequest("GET", "/ready")))
    if content.get("status") != "ready":
        raise _Wrong(f"status is {content.get('status')!r}, not 'ready'")
    return f"model {content.get('model_version')}"


def _version(upstream: Endpoint, bundle: Bundle) -> str:
    content = _json(upstream.ask(HttpRequest("GET", "/version")))
    found = content.get("model_version")
    if found != bundle.version:
        raise _Wrong(
            f"model {found} answers, the bundle in {bundle.folder} is {bundle.version}; "
            "deploy it, or name the other with --bundle"
        )
    return f"service {content.get('service_version')}, model {found} as in {bundle.folder}"


def _golden(upstream: Endpoint, golden: Golden, multipart: bool, tolerance: float, answers: list[Any]) -> str:
    headers, body = _form(golden.data, f"{golden.name}.png", "image/png")
    if not multipart:
        headers, body = (("content-type", "image/png"),), golden.data
    began = time.perf_counter()
    answer = _json(upstream.ask(HttpRequest("POST", "/predict", headers=headers, body=body)))
    seconds = time.perf_counter() - began
    answers.append(answer)
    found, wanted = answer.get("probabilities"), golden.probabilities
    if not isinstance(found, dict) or set(found) != set(wanted) or not all(_is_number(p) for p in found.values()):
        raise _Wrong(f"probabilities of {sorted(found) if isinstance(found, dict) else found}, not of {sorted(wanted)}")
    difference = max(abs(found[name] - wanted[name]) for name in wanted)
    if not difference <= tolerance:
        raise _Wrong(f"differs by {difference:.4f} from the bundle's answer, more than {tolerance:g}")
    return f"{answer.get('prediction')}, differs by {difference:.1e}, {seconds * 1000:.0f} ms"


def _shape(answers: list[Any], bundle: Bundle) -> str:
    if not answers:
        raise _Wrong("there was no answer to look at")
    for answer in answers:
        if missing := ANSWER_FIELDS - set(answer):
            raise _Wrong(f"an answer lacks {', '.join(sorted(missing))}")
        found = answer["probabilities"]
        if not isinstance(found, dict) or not found or not all(_is_number(p) for p in found.values()):
            raise _Wrong("the probabilities are no numbers by class")
        if abs(sum(found.values()) - 1) > SUM_TOLERANCE:
            raise _Wrong(f"probabilities sum to {sum(found.values()):.4f}, not to 1")
        best = max(found, key=lambda name: found[name])
        if answer["prediction"] != best or answer["confidence"] != found[best]:
            raise _Wrong(f"prediction {answer['prediction']!r} is not the most probable class, {best!r}")
        if not isinstance(answer["confident"], bool) or answer["confident"] != (answer["reason"] is None):
            raise _Wrong("an answer is not confident without a reason, or confident with one")
        if not _is_number(answer["latency_seconds"]) or not answer["prediction_id"]:
            raise _Wrong("an answer has no latency or no id")
        if answer["model_version"] != bundle.version:
            raise _Wrong(f"an answer comes from model {answer['model_version']}, not {bundle.version}")
    return f"{len(ANSWER_FIELDS)} fields in each of {len(answers)} answers, probabilities sum to 1"


def _refused(upstream: Endpoint, sent: tuple[Pairs, bytes], status: int, name: str) -> str:
    headers, body = sent
    answer = upstream.ask(HttpRequest("POST", "/predict", headers=headers, body=body))
    content = _json(answer, status)
    if not answer.header("content-type").startswith("application/problem+json"):
        raise _Wrong(f"refused with {status}, but as {answer.header('content-type')}, not as a problem document")
    if missing := PROBLEM_FIELDS - set(content):
        raise _Wrong(f"the problem document lacks {', '.join(sorted(missing))}")
    if content["type"] != f"/problems/{name}" or content["status"] != status:
        raise _Wrong(f"the problem is {content['type']}, not /problems/{name}")
    return f"refused with {int(status)} {name}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _form(data: bytes, filename: str, media_type: str) -> tuple[Pairs, bytes]:
    boundary = f"catsdogs-{uuid.uuid4().hex}"
    head = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{filename}"\r\n'
        f"content-type: {media_type}\r\n\r\n"
    )
    body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
    return (("content-type", f"multipart/form-data; boundary={boundary}"),), body
