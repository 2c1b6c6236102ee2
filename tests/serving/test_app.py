"""What the application answers, and what it refuses."""

import asyncio
import io
import logging
import re
import threading

import pytest
from PIL import Image
from starlette.testclient import TestClient

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.inference.bundle import Bundle, BundleCorruptError
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.serving import problems
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.routes.pages import prefers_html
from catsdogs_lib.serving.settings import ServiceSettings
from catsdogs_lib.serving.telemetry import RequestRecord


def encoded(picture, name, **options):
    stream = io.BytesIO()
    picture.save(stream, name, **options)
    return stream.getvalue()


def refusal(response, name):
    """Check a problem document and give its sentence."""
    kind = problems.KINDS[name]
    document = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, document["status"]) == (kind.status, kind.status)
    assert document["type"] == f"/problems/{name}"
    assert document["title"] == kind.title
    assert document["request_id"] == response.headers["x-request-id"]
    assert len(document["detail"]) > 20
    return document["detail"]


def test_each_golden_picture_gets_its_golden_answer_either_way(ask, model):
    for golden in model.classifier.bundle.description.golden:
        bare = ask.post("/predict", content=golden.data, headers={"content-type": "image/png"}).json()
        form = ask.post("/predict", files={"file": ("a.png", golden.data)}).json()
        for answer in (bare, form):
            assert answer["probabilities"] == pytest.approx(golden.probabilities, abs=1e-3)
            assert answer["prediction"] == max(golden.probabilities, key=golden.probabilities.get)
            assert answer["confidence"] == max(answer["probabilities"].values())
        assert bare["prediction_id"] != form["prediction_id"]


def test_an_answer_has_the_fields_of_the_contract(ask, photo, model):
    answer = ask.post("/predict", files={"file": ("a.png", photo)}).json()
    names = "prediction confidence probabilities latency_seconds confident reason model_version prediction_id"
    assert list(answer) == names.split()
    assert answer["model_version"] == model.classifier.bundle.version
    assert 0 < answer["latency_seconds"] < 5


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats_are_read_by_content_whatever_the_content_type_says(ask, photo, name):
    body = encoded(Image.open(io.BytesIO(photo)), name)
    response = ask.post("/predict", content=body, headers={"content-type": "image/x-odd"})
    assert response.status_code == 200
    assert response.json()["prediction"] == "cat"


def test_an_unsure_answer_says_why(ask, model):
    grey = io.BytesIO()
    Image.new("RGB", (300, 300), (128, 128, 128)).save(grey, "PNG")
    answer = ask.post("/predict", content=grey.getvalue(), headers={"content-type": "image/png"}).json()
    assert answer["confident"] is False
    assert answer["reason"].startswith("the photo is unlike those that the model has learned from")


@pytest.mark.parametrize(
    ("request_", "name", "says"),
    [
        ({"content": b""}, "no-photo", "curl -F file=@photo.jpg"),
        ({"content": b"", "headers": {"content-type": "image/jpeg"}}, "no-photo", "empty"),
        ({"files": {"file": ("a.jpg", b"")}}, "no-photo", "is empty"),
        ({"files": {"photo": ("a.jpg", b"x")}}, "no-photo", "no field 'file'"),
        ({"files": [("file", ("a.jpg", b"x")), ("file", ("b.jpg", b"y"))]}, "no-photo", "2 fields 'file'"),
        ({"files": {"other": ("o", b"x")}, "data": {"file": "text"}}, "no-photo", "is text, not a file"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "malformed-request", "boundary"),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            "malformed-request",
            "form",
        ),
        ({"content": b"x" * 99, "headers": {"content-type": "text/plain"}}, "not-a-photo", "'text/plain' is not read"),
        ({"content": b"x" * 99}, "not-a-photo", "no content type"),
        ({"files": {"file": ("a.jpg", b"this is text")}}, "not-a-photo", "use one of JPEG, PNG"),
        ({"files": {"file": ("a.avif", b"\0\0\0\x18ftypavif" + bytes(99))}}, "not-a-photo", "AVIF is not read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_photo_gets_a_sentence(ask, request_, name, says):
    assert says in refusal(ask.post("/predict", **request_), name)


def test_a_service_can_narrow_the_formats(model, telemetry, photo):
    # The golden pictures are PNG: they are checked all the same.
    client = TestClient(create_app(Model.load(model.classifier.bundle.folder, formats=("JPEG", "WEBP")), telemetry))
    for path in ("/predict", "/explain"):
        detail = refusal(client.post(path, files={"file": ("a.png", photo)}), "not-a-photo")
        assert detail == "PNG is not read; use one of JPEG, WebP"
    stream = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(stream, "WEBP")
    assert client.post("/predict", files={"file": ("a.webp", stream.getvalue())}).status_code == 200


def test_a_damaged_photo_is_undecodable(ask, photo):
    detail = refusal(ask.post("/predict", files={"file": ("a.png", photo[: len(photo) // 2])}), "undecodable")
    assert "send it again whole" in detail


def test_a_photo_of_too_many_pixels_is_too_large(ask):
    stream = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, "PNG")
    detail = refusal(ask.post("/predict", files={"file": ("bomb.png", stream.getvalue())}), "too-large")
    assert "scale it down" in detail


def test_a_12_megapixel_photo_of_any_format_and_a_50_megapixel_jpeg_are_answered(ask):
    picture = draw("cat", 5)
    for name, size, options in (("PNG", (4096, 3072), {"compress_level": 1}), ("JPEG", (8160, 6120), {"quality": 60})):
        response = ask.post("/predict", files={"file": ("large", encoded(picture.resize(size), name, **options))})
        assert response.status_code == 200, name


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_too_large(model, telemetry, declared):
    small = TestClient(create_app(model, telemetry, ServiceSettings(max_body_bytes=1000)))
    body = bytes(1001) if declared else (bytes(500) for _ in range(3))
    response = small.post("/predict", content=body, headers={"content-type": "image/png"})
    assert "larger than" in refusal(response, "too-large")
    assert response.headers["connection"] == "close"


def test_bodies_hold_no_more_memory_than_allowed(model, telemetry, photo):
    settings = ServiceSettings(max_held_bytes=len(photo) - 1)
    response = TestClient(create_app(model, telemetry, settings)).post("/predict", files={"file": ("a.png", photo)})
    refusal(response, "busy")
    assert response.headers["retry-after"] == "1"


def test_what_bodies_held_is_given_back(model, telemetry, photo):
    client = TestClient(create_app(model, telemetry, ServiceSettings(max_held_bytes=2 * len(photo))))
    assert {client.post("/predict", files={"file": ("a.png", photo)}).status_code for _ in range(4)} == {200}
    assert client.post("/predict", content=photo[:99], headers={"content-type": "image/png"}).status_code == 422
    assert client.post("/predict", files={"file": ("a.png", photo)}).status_code == 200


def test_head_is_answered_like_get_without_a_body(ask):
    for path in ("/", "/health", "/ready", "/static/page.js"):
        head, get = ask.head(path), ask.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"]
    assert ask.head("/predict").status_code == 405


def test_a_slash_too_many_is_no_redirect_to_where_the_sender_says(ask):
    for path in ("/health/", "/static", "/predict/"):
        refusal(ask.get(path, headers={"host": "evil.example"}, follow_redirects=False), "not-found")


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7", "utf-16", "nonsense"])
def test_the_charset_of_a_form_is_not_the_senders_choice(ask, photo, charset, caplog):
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="\\ud800.jpg"\r\n\r\n'
    headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
    with caplog.at_level("INFO", "catsdogs"):
        assert ask.post("/predict", content=head + photo + b"\r\n--b--\r\n", headers=headers).status_code == 200
    assert caplog.records[-1].fields["filename"] == "\\ud800.jpg"


def test_nothing_is_at_other_paths(ask):
    assert "/nowhere" in refusal(ask.get("/nowhere"), "not-found")
    refusal(ask.get("/static/nothing.js"), "not-found")
    refusal(ask.get("/static/../app.py"), "not-found")
    refusal(ask.get("/problems/unknown"), "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("GET", "/predict", "POST"), ("POST", "/health", "GET"), ("PUT", "/", "GET")]
)
def test_other_methods_are_named_with_the_right_ones(ask, method, path, allowed):
    response = ask.request(method, path)
    assert allowed in refusal(response, "method-not-allowed")
    assert allowed in response.headers["allow"]


def test_without_a_model_it_is_alive_and_not_ready(telemetry, photo):
    client = TestClient(create_app(Model(reason="no bundle here; train one"), telemetry))
    assert client.get("/health").json() == {"status": "alive"}
    for response in (
        client.get("/ready"),
        client.get("/version"),
        client.post("/predict", files={"file": ("a", photo)}),
    ):
        assert refusal(response, "not-ready") == "no bundle here; train one"
        assert response.headers["retry-after"]
    assert client.get("/").json()["classes"] == []


def test_ready_and_version_name_the_bundle(ask, model):
    bundle = model.classifier.bundle
    assert ask.get("/ready").json() == {"status": "ready", "model_version": bundle.version}
    version = ask.get("/version").json()
    assert version["git_commit"] == bundle.description.git_commit
    assert version["data_sha256"] == bundle.description.data.sha256
    assert version["mlflow_run"] == bundle.description.mlflow_run
    assert version["classes"] == list(bundle.description.classes)


def test_a_bundle_that_answers_otherwise_than_it_says_is_not_loaded(tmp_path, model):
    bundle = model.classifier.bundle
    wrong = [
        golden.model_copy(update={"probabilities": {name: 1 - p for name, p in golden.probabilities.items()}})
        for golden in bundle.description.golden
    ]
    Bundle.write(tmp_path / "b", bundle.description.model_copy(update={"golden": tuple(wrong)}), bundle.graph)
    with pytest.raises(BundleCorruptError, match="golden answers"):
        Model.load(tmp_path / "b")


def with_golden(bundle, folder, changes, weights="fp16"):
    """The bundle anew, with changed probabilities at places of its golden answers, the least confident first."""
    ranked = sorted(bundle.description.golden, key=lambda one: max(one.probabilities.values()))
    golden = []
    for place, one in enumerate(ranked):
        changed = {name: changes.get(place, float)(p) for name, p in one.probabilities.items()}
        golden.append(one.model_copy(update={"probabilities": changed}))
    graph = bundle.description.graph.model_copy(update={"weights": weights})
    described = bundle.description.model_copy(update={"golden": tuple(golden), "graph": graph})
    return Bundle.write(folder, described, bundle.graph).folder


def turned(p):
    return 1 - p


def off_by(difference):
    return lambda p: abs(p - difference)


def test_the_start_looks_at_the_least_confident_golden_answer_alone(tmp_path, model):
    bundle = model.classifier.bundle
    assert Model.load(with_golden(bundle, tmp_path / "late", {1: turned, 3: turned})).classifier is not None
    with pytest.raises(BundleCorruptError, match="golden answers"):
        Model.load(with_golden(bundle, tmp_path / "first", {0: turned}))


def test_rounded_values_may_differ_by_more_from_machine_to_machine(tmp_path, model):
    bundle = model.classifier.bundle
    assert Model.load(with_golden(bundle, tmp_path / "int8", {0: off_by(0.01)}, "int8")).classifier is not None
    with pytest.raises(BundleCorruptError, match="golden answers"):
        Model.load(with_golden(bundle, tmp_path / "fp16", {0: off_by(0.01)}))
    with pytest.raises(BundleCorruptError, match="golden answers"):
        Model.load(with_golden(bundle, tmp_path / "far", {0: off_by(0.05)}, "int8"))


@pytest.mark.parametrize("alone", [True, False])
def test_who_is_alone_is_looked_at_without_another_thread(model, telemetry, photo, monkeypatch, alone):
    names = []
    observe = Classifier.predict_with_statistics

    def seen(self, source):
        names.append(threading.current_thread().name)
        return observe(self, source)

    monkeypatch.setattr(Classifier, "predict_with_statistics", seen)
    client = TestClient(create_app(model, telemetry, ServiceSettings(alone=alone)))
    assert client.post("/predict", content=photo, headers={"content-type": "image/png"}).status_code == 200
    assert [name.startswith("photo") for name in names] == [not alone]


class Broken(Model):
    """Fails in a way that nobody foresaw."""

    @property
    def classifier(self):
        raise RuntimeError("secret /etc/passwd")

    @classifier.setter
    def classifier(self, value):
        pass


def test_the_unforeseen_is_a_problem_document_counted_and_logged_without_a_trace(telemetry, photo, caplog):
    client = TestClient(create_app(Broken(), telemetry), raise_server_exceptions=False)
    response = client.post("/predict", files={"file": ("a.png", photo)})
    assert response.headers["x-request-id"] in refusal(response, "internal-error")
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert telemetry.registry.get_sample_value("unhandled_errors_total") == 1
    assert "secret /etc/passwd" in caplog.text


def test_a_mistake_in_the_middle_of_an_answer_is_logged_as_an_error():
    assert RequestRecord("id", status=200, error=RuntimeError(), problem="internal-error").level == logging.ERROR
    assert RequestRecord("id", status=415, problem="not-a-photo").level == logging.WARNING


def test_every_answer_is_named_and_safe(ask):
    for path in ("/", "/health", "/nowhere", "/docs"):
        headers = ask.get(path, headers={"accept": "text/html"}).headers
        assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


ORIGIN = {"origin": "https://a.example"}


def test_pages_elsewhere_may_call_only_if_they_are_named(ask, model, telemetry, photo):
    assert "access-control-allow-origin" not in ask.get("/health", headers=ORIGIN).headers
    settings = ServiceSettings(cors_origins=("https://a.example",))
    client = TestClient(create_app(model, telemetry, settings), raise_server_exceptions=False)
    requested = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-api-key"}
    preflight = client.options("/predict", headers={**ORIGIN, **requested})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://a.example"
    answer = client.post("/predict", files={"file": ("a.png", photo)}, headers=ORIGIN)
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    other = {"origin": "https://b.example"}
    assert client.options("/predict", headers={**other, **requested}).status_code == 400
    assert "access-control-allow-origin" not in client.get("/health", headers=other).headers


def test_pages_elsewhere_can_read_every_refusal(telemetry, photo):
    app = create_app(Broken(), telemetry, ServiceSettings(cors_origins=("*",)))
    client = TestClient(app, raise_server_exceptions=False)
    for response in (client.get("/nowhere", headers=ORIGIN), client.get("/ready", headers=ORIGIN)):
        assert response.status_code in (404, 500)
        assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("sent", "recorded"), [("Root=1-abc", "Root=1-abc"), ("<script>", None), ("a" * 129, None), ("", None)]
)
def test_a_client_s_request_id_is_recorded_beside_ours_if_it_is_harmless(ask, telemetry, monkeypatch, sent, recorded):
    records = []
    monkeypatch.setattr(telemetry, "record", records.append)
    response = ask.get("/nowhere", headers={"x-request-id": sent})
    (record,) = records
    assert re.fullmatch("[0-9a-f]{32}", record.request_id)
    assert response.headers["x-request-id"] == response.json()["request_id"] == record.request_id
    assert record.client_request_id == record.fields().get("client_request_id") == recorded


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("application/json", False),
        ("*/*", False),
        ("", False),
        ("text/html;q=0.5, application/json", False),
        ("text/html;q=bad", False),
        ("application/json;q=0.2, TEXT/HTML", True),
    ],
)
def test_browsers_get_the_page_and_programs_json(ask, accept, page):
    assert prefers_html(accept) is page
    response = ask.get("/", headers={"accept": accept})
    assert response.headers["content-type"].startswith("text/html" if page else "application/json")
    assert response.headers["vary"] == "accept"


def test_parts_of_the_page_are_asked_for_anew_each_time(ask):
    first = ask.get("/static/page.js")
    assert first.headers["cache-control"] == "no-cache"
    again = ask.get("/static/page.js", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.headers["cache-control"] == "no-cache"


def test_metrics_count_by_their_names(ask, photo, telemetry):
    ask.post("/predict", files={"file": ("a.png", photo)})
    ask.post("/predict", content=b"x", headers={"content-type": "image/png"})
    ask.get("/health")
    text = ask.get("/metrics").text
    assert 'prediction_requests_total{status="200"} 1.0' in text
    assert 'prediction_requests_total{status="415"} 1.0' in text
    assert 'predictions_by_class_total{class_name="cat"} 1.0' in text
    assert "prediction_latency_seconds_count 1.0" in text
    assert 'problems_total{problem="not-a-photo"} 1.0' in text


def test_the_openapi_document_tells_of_every_answer(ask):
    document = ask.get("/openapi.json").json()
    predict = document["paths"]["/predict"]["post"]
    assert set(predict["responses"]) == {"200", "400", "408", "413", "415", "422", "500", "503"}
    assert set(predict["requestBody"]["content"]) == {"multipart/form-data", "image/*"}
    for status, response in predict["responses"].items():
        assert list(response["content"]) == ["application/json" if status == "200" else "application/problem+json"]
    assert set(document["paths"]["/"]["get"]["responses"]["200"]["content"]) == {"application/json", "text/html"}
    for operations in document["paths"].values():
        assert all("500" in operation["responses"] for operation in operations.values())


def test_photos_that_wait_count_as_held(model, telemetry, photo):
    import httpx

    async def many():
        settings = ServiceSettings(max_held_bytes=3 * len(photo), concurrency=1)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(model, telemetry, settings)), base_url="http://test"
        ) as client:
            asked = (client.post("/predict", content=photo, headers={"content-type": "image/png"}) for _ in range(12))
            first = [response.status_code for response in await asyncio.gather(*asked)]
            return first, (
                await client.post("/predict", content=photo, headers={"content-type": "image/png"})
            ).status_code

    first, later = asyncio.run(many())
    assert first.count(200) == 3
    assert first.count(503) == 9
    assert later == 200


def test_waiting_photos_are_bounded(model, telemetry, photo):
    import httpx

    async def many():
        app = create_app(model, telemetry, ServiceSettings(max_waiting=1, concurrency=1))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            asked = (client.post("/predict", files={"file": ("a.png", photo)}) for _ in range(8))
            return await asyncio.gather(*asked)

    responses = asyncio.run(many())
    statuses = [response.status_code for response in responses]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 2
    refusal(next(response for response in responses if response.status_code == 503), "busy")


def test_log_lines_are_json_with_the_names_of_the_contract(model, photo, capsys):
    import json
    import logging

    from catsdogs_lib.serving.metrics_prometheus import log_to_stdout

    loggers = [logging.getLogger(name) for name in ("catsdogs", "uvicorn", "python_multipart")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    try:
        log_to_stdout()
        client = TestClient(create_app(model, ServerTelemetry()))
        client.post("/predict", files={"file": ('odd"\nname.png', photo)}, headers={"x-request-id": "r-1"})
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
    (line,) = capsys.readouterr().out.splitlines()
    logged = json.loads(line)
    assert logged["client_request_id"] == "r-1"
    assert re.fullmatch("[0-9a-f]{32}", logged["request_id"])
    assert logged["prediction"] == "cat"
    assert {"timestamp", "confidence", "latency_seconds", "model_version"} <= set(logged)
    assert "name.png" in logged["filename"]
    assert len(line) < 1000


def test_a_model_without_a_finite_answer_is_a_problem_of_the_service(nan_bundle, photo, caplog):
    telemetry = ServerTelemetry()
    broken = Model(Classifier(Bundle.load(nan_bundle.folder)))
    client = TestClient(create_app(broken, telemetry), raise_server_exceptions=False)
    with caplog.at_level("INFO", "catsdogs"):
        for path in ("/predict", "/explain"):
            response = client.post(path, content=photo, headers={"content-type": "image/png"})
            assert "no usable answer" in refusal(response, "no-answer")
            fields = caplog.records[-1].fields
            assert (fields["problem"], "finite" in fields["cause"]) == ("no-answer", True)
            assert "prediction" not in fields
    assert telemetry.registry.get_sample_value("problems_total", {"problem": "no-answer"}) == 2


def test_a_model_without_a_finite_answer_is_not_loaded(nan_bundle):
    with pytest.raises(BundleCorruptError, match="'logits' is not a finite number"):
        Model.load(nan_bundle.folder)


def test_a_difference_that_is_no_number_is_not_within_the_tolerance(bundle_folder, monkeypatch):
    monkeypatch.setattr("catsdogs_lib.serving.model.golden_difference", lambda *_, **__: float("nan"))
    with pytest.raises(BundleCorruptError, match="differ from its golden answers by nan"):
        Model.load(bundle_folder)
