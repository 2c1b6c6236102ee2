import hashlib
import hmac
import http.client
import json
import os
import posixpath
import re
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote_to_bytes

import pytest

from catsdogs_lib.client import asgi
from catsdogs_lib.client.http import Upstream
from catsdogs_lib.client.proxy import Proxy
from catsdogs_lib.client.sigv4 import Signer, SigningError
from catsdogs_lib.common.errors import CatsdogsError

ROOT = Path(__file__).parents[2]
CATSDOGS = Path(sys.executable).parent / "catsdogs"
KEY, SECRET, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-west-1"


def encoded(text):
    return quote(unquote_to_bytes(text), safe="-_.~")


def canonical_forms(handler, body, signed):
    """The canonical request by AWS's documentation: once of what was received, once of what it decodes to."""
    path, _, query = handler.path.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    as_sent = ("/".join(path.split("/")), [(name, value) for name, _, value in pairs])
    decoded = ("/".join(map(encoded, path.split("/"))), [(encoded(name), encoded(value)) for name, _, value in pairs])
    for target, items in (as_sent, decoded):
        normal = posixpath.normpath(re.sub("/+", "/", target)) + "/" * (target.endswith("/") and target != "/")
        headers = "".join(f"{name}:{' '.join(handler.headers.get_all(name)[0].split())}\n" for name in signed)
        yield "\n".join(
            [
                handler.command,
                quote(normal, safe="/-_.~"),  # every service but S3 encodes the path a second time
                "&".join(f"{name}={value}" for name, value in sorted(items)),
                headers,
                ";".join(signed),
                hashlib.sha256(body).hexdigest(),
            ]
        )


def right_signature(handler, body):
    given = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, SignedHeaders=([^,]+), "
        r"Signature=([0-9a-f]{64})",
        handler.headers.get("authorization", ""),
    )
    if not given:
        return False
    key, day, region, service, names, signature = given.groups()
    signed, stamp = names.split(";"), handler.headers["x-amz-date"]
    late = abs(datetime.strptime(stamp, "%Y%m%dT%H%M%S%z") - datetime.now(UTC)) > timedelta(minutes=5)
    if (key, region, service) != (KEY, REGION, "lambda") or late or not {"host", "x-amz-date"} <= set(signed):
        return False
    secret = f"AWS4{SECRET}".encode()
    for part in (day, region, service, "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    for canonical in canonical_forms(handler, body, signed):
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{day}/{region}/{service}/aws4_request\n{hashed}"
        if not hmac.compare_digest(hmac.new(secret, text.encode(), "sha256").hexdigest(), signature):
            return False
    return True


class Endpoint(BaseHTTPRequestHandler):
    """Refuses what is not rightly signed, as AWS does; else says what arrived."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not right_signature(self, body):
            return self.reply(
                403,
                b'{"Message":"The request signature we calculated does not match"}',
                [("x-amzn-ErrorType", "InvalidSignatureException")],
            )
        if self.path == "/hop":
            return self.reply(
                200,
                b"x",
                [
                    ("Keep-Alive", "timeout=5"),
                    ("X-Mine", "1"),
                    ("Connection", "x-mine, close"),
                    ("Set-Cookie", "a=1"),
                    ("Set-Cookie", "b=2"),
                ],
            )
        if self.path == "/moved":
            return self.reply(307, b"", [("Location", f"http://{self.headers['host']}/elsewhere")])
        if self.path == "/forbidden":
            return self.reply(403, b'{"mine": true}')
        if self.path == "/endless":
            return self.reply(200, b"x" * 9_000_000)
        arrived = {
            "target": self.path,
            "method": self.command,
            "headers": self.headers.items(),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        return self.reply(200, json.dumps(arrived).encode())

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = answer  # noqa: N815

    def reply(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(autouse=True)
def credentials(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_REGION": REGION,
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Say nothing of who left before the end of an endless answer."""


@pytest.fixture
def endpoint():
    with Server(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(endpoint, serve):
    return serve(Proxy(Upstream(endpoint, Signer(endpoint))))


def pairs(query):
    return parse_qsl(query, keep_blank_values=True)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/predict",
        "/caf%C3%A9/%e2%82%ac",
        "/a%20b/c%2Fd/%25",
        "/a:b@c;d,e'f(g)!h*i~j",
        "/a//b/./c/",
        "/?q=a%20b&q=a+b&empty=&flag&z=1&a=2",
        "/x?odd=%26%3D%3F%2F%25&plain=/:@!$'()*,;~&%C3%A4=%C3%B6",
        "/x?b=2&a=3&a=1&&c",
        "/x?wrong=%zz",
    ],
)
def test_every_path_and_query_is_signed_rightly_and_keeps_its_meaning(target, proxy, send):
    status, _, body = send(proxy, target=target)
    assert status == 200, body
    arrived = json.loads(body)["target"]
    path, _, query = target.partition("?")
    found_path, _, found_query = arrived.partition("?")
    assert [unquote_to_bytes(part) for part in found_path.split("/")] == [
        unquote_to_bytes(part) for part in path.split("/")
    ]
    assert pairs(found_query) == pairs(query)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_bodies_are_signed_and_arrive(method, proxy, send):
    body = None if method == "GET" else bytes(range(256)) * 20
    headers = [("content-type", "image/jpeg"), ("x-twice", "1"), ("x-twice", "2"), ("x-spaced", "a   b")]
    status, _, text = send(proxy, method, "/predict", body, headers)
    assert status == 200, text
    arrived = json.loads(text)
    assert arrived["method"] == method
    assert arrived["sha256"] == hashlib.sha256(body or b"").hexdigest()
    heard = [(name.lower(), value) for name, value in arrived["headers"]]
    assert [value for name, value in heard if name == "x-twice"] == ["1", "2"]
    assert ("content-type", "image/jpeg") in heard


def test_headers_of_one_connection_and_of_other_signatures_stay_behind(proxy, send):
    headers = [
        ("Connection", "x-private"),
        ("X-Private", "1"),
        ("TE", "trailers"),
        ("Authorization", "Basic x"),
        ("X-Amz-Date", "20200101T000000Z"),
        ("X-Amz-Security-Token", "old"),
        ("X-Amz-Content-SHA256", "no"),
        ("Accept-Encoding", "gzip"),
    ]
    status, _, text = send(proxy, headers=headers)
    assert status == 200, text
    heard = [name.lower() for name, _ in json.loads(text)["headers"]]
    assert {"x-private", "te", "x-amz-security-token", "connection"}.isdisjoint(heard)
    assert "accept-encoding" in heard
    assert all(heard.count(name) == 1 for name in ("host", "authorization", "x-amz-date", "x-amz-content-sha256"))


def test_the_key_is_named_in_the_place_of_the_senders(endpoint, serve, send):
    url = serve(Proxy(Upstream(endpoint, Signer(endpoint), key="right")))
    for headers in ([], [("X-Api-Key", "other")]):
        heard = json.loads(send(url, headers=headers)[2])["headers"]
        assert [value for name, value in heard if name.lower() == "x-api-key"] == ["right"]


def test_without_a_key_the_senders_is_passed_on(proxy, send):
    heard = json.loads(send(proxy, headers=[("X-Api-Key", "mine")])[2])["headers"]
    assert [value for name, value in heard if name.lower() == "x-api-key"] == ["mine"]


@pytest.mark.parametrize("key", ["a\nhost: evil", "with space", "ключ"])
def test_a_key_that_no_header_can_hold_is_a_sentence_without_it(key):
    with pytest.raises(CatsdogsError, match="catsdogs key") as raised:
        Upstream("http://127.0.0.1:1", key=key)
    assert key not in str(raised.value)


def test_answers_come_back_without_the_headers_of_one_connection(proxy, send):
    _, headers, _ = send(proxy, target="/hop")
    names = [name for name, _ in headers]
    assert "keep-alive" not in names
    assert "x-mine" not in names
    assert [value for name, value in headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert dict(send(proxy, target="/moved")[1])["location"] == "/elsewhere"
    assert send(proxy, "HEAD")[0] == 200


def problem(answer, status, name):
    assert answer[0] == status, answer
    assert dict(answer[1])["content-type"] == "application/problem+json"
    content = json.loads(answer[2])
    assert content["type"] == f"/problems/{name}"
    assert content["status"] == status
    return content["detail"]


def test_a_wrong_secret_is_a_sentence_with_what_aws_says(endpoint, serve, send, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    url = serve(Proxy(Upstream(endpoint, Signer(endpoint))))
    assert "does not match" in problem(send(url), 403, "not-admitted")


def test_a_403_of_the_application_itself_is_passed_on(proxy, send):
    assert send(proxy, target="/forbidden")[::2] == (403, b'{"mine": true}')


def test_an_endpoint_that_is_not_there_is_a_problem_document(serve, send):
    url = serve(Proxy(Upstream("http://127.0.0.1:1", Signer("http://127.0.0.1:1"))))
    assert "http://127.0.0.1:1" in problem(send(url), 502, "upstream-unreachable")


def test_an_endless_answer_is_a_problem_document(proxy, send):
    problem(send(proxy, target="/endless"), 502, "upstream-unreachable")


def test_a_body_beyond_six_megabytes_is_a_problem_document(proxy, send):
    assert send(proxy, "POST", "/", b"x" * (6 * 2**20))[0] == 200
    assert "scale" in problem(send(proxy, "POST", "/", b"x" * (6 * 2**20 + 1)), 413, "too-large")


@pytest.mark.parametrize(
    "headers",
    [
        [("Origin", "https://elsewhere.example")],
        [("Origin", "null")],
        [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")],
    ],
)
def test_pages_of_other_sites_are_not_served(headers, proxy, send):
    problem(send(proxy, headers=headers), 403, "foreign-site")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_form_of_another_site_is_not_sent_on(method, proxy, send):
    """A browser that sends no Origin with a form still says that it navigates across sites."""
    headers = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]
    problem(send(proxy, method, "/", b"x", headers=headers), 403, "foreign-site")
    for reading in ("GET", "HEAD"):
        assert send(proxy, reading, "/", headers=headers)[0] == 200


@pytest.mark.parametrize("host", ["rebound.example:80", "[", "[::1", "[x]", "127.0.0.1.rebound.example"])
def test_a_name_that_another_site_points_here_is_not_served(host, proxy, caplog):
    connection = http.client.HTTPConnection(proxy.removeprefix("http://"))
    connection.request("GET", "/", headers={"Host": host})
    answer = connection.getresponse()
    problem((answer.status, answer.getheaders(), answer.read()), 403, "foreign-site")
    connection.close()
    assert caplog.text == ""


def test_another_site_is_refused_before_its_body_is_read(proxy, send_half):
    problem(send_half(proxy, "rebound.example"), 403, "foreign-site")


def test_a_body_that_does_not_arrive_is_a_problem_document(proxy, send_half, send, monkeypatch, caplog):
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.2)
    answer = send_half(proxy)
    assert "0.2 seconds" in problem(answer, 408, "slow-body")
    assert dict(answer[1])["connection"] == "close"
    assert send(proxy)[0] == 200
    assert caplog.text == ""


def test_its_own_page_is_served(proxy, send):
    assert send(proxy, "POST", "/predict", b"x", [("Origin", proxy), ("Sec-Fetch-Site", "same-origin")])[0] == 200
    assert send(proxy, headers=[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")])[0] == 200


def test_the_region_is_the_one_that_the_url_names(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert Signer("https://abc123.lambda-url.eu-central-1.on.aws/").region == "eu-central-1"
    assert Signer("https://abc123.lambda-url.eu-central-1.on.aws/", "us-east-1").region == "us-east-1"
    assert Signer("https://my.example/").region == "us-west-2"
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(SigningError, match="--region"):
        Signer("https://my.example/")


def test_missing_and_half_credentials_are_a_sentence(monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SigningError, match="AWS credentials cannot be used"):
        Signer("https://my.example/")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(SigningError, match="no AWS credentials found"):
        Signer("https://my.example/")
    with pytest.raises(SigningError, match="nobody"):
        Signer("https://my.example/", profile="nobody")


def test_credentials_that_expire_while_the_proxy_runs_are_a_problem_document(
    endpoint, serve, send, tmp_path, monkeypatch, caplog
):
    # A program that gives credentials for a moment, renews them once, and then no more.
    state = tmp_path / "asked"
    program = tmp_path / "credentials.py"
    program.write_text(
        "import json, pathlib, sys, datetime\n"
        f"state = pathlib.Path({str(state)!r})\n"
        "asked = state.read_text() if state.exists() else ''\n"
        "state.write_text(asked + 'x')\n"
        "if asked == 'xx': sys.exit('signed out')\n"
        "end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)\n"
        f"print(json.dumps(dict(Version=1, AccessKeyId={KEY!r}, SecretAccessKey={SECRET!r}, SessionToken='token', "
        "Expiration=end.isoformat())))\n"
    )
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {sys.executable} {program}\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    url = serve(Proxy(Upstream(endpoint, Signer(endpoint))))
    assert "sign in again" in problem(send(url), 502, "not-signed")
    assert caplog.text == "", "no traceback in the terminal"


def test_a_session_token_is_sent_along(proxy, endpoint, serve, send, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-token")
    url = serve(Proxy(Upstream(endpoint, Signer(endpoint))))
    status, _, body = send(url)
    assert status == 200
    assert ["X-Amz-Security-Token", "the-token"] in json.loads(body)["headers"]


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://host/", "https://", "http://host:99999/", "https://u:p@host/", "http://h/?q"]
)
def test_what_is_no_address_is_a_sentence(url):
    with pytest.raises(CatsdogsError, match="no address of a server"):
        Upstream(url)


def test_the_command_signs_and_ends_quietly(endpoint, send):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [CATSDOGS, "proxy", endpoint, "--port", str(port)], stderr=subprocess.PIPE, text=True
    ) as child:
        deadline = time.monotonic() + 30
        while True:
            try:
                assert send(f"http://127.0.0.1:{port}")[0] == 200
                break
            except ConnectionRefusedError:
                assert child.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        child.send_signal(2)
        assert child.communicate(timeout=20)[1].count("\n") == 1, "the address, and no farewell"
        assert child.returncode == 0


def test_the_command_without_credentials_or_botocore_is_one_sentence(endpoint, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    done = subprocess.run([CATSDOGS, "proxy", endpoint], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("catsdogs: no AWS credentials found")
    assert done.stderr.count("\n") == 1
    code = (
        "import sys; sys.modules['botocore'] = None; sys.argv[1:] = ['proxy', 'http://127.0.0.1:1']; "
        "from catsdogs_lib.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'catsdogs[aws]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_smoke_signs_with_the_profile_and_region_that_it_is_given(endpoint, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(f"[mine]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    command = [CATSDOGS, "smoke", endpoint, "--bundle", ROOT / "models" / "reference", "--profile", "mine"]
    done = subprocess.run([*command, "--aws-iam", "--region", REGION], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "FAILED  health: status is None, not 'alive'" in done.stdout, "an answer, so the signature was right"
    done = subprocess.run([*command, "--aws-iam"], capture_output=True, text=True)
    assert "--region" in done.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "add --aws-iam" in done.stderr
