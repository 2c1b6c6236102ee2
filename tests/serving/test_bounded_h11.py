"""Requests that are cheap to send and would be expensive to parse."""

import contextlib
import time

import h11
import pytest

from catsdogs_lib.serving.bounded_h11 import FREE_PIECES, MAX_HEADERS, MIN_PIECE_BYTES, BoundedH11Connection

HEALTH_SECONDS = 1.0
"""250 ms on idle cores; other tests may keep them busy."""


def chunked(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


@pytest.mark.parametrize("path", ["/predict", "/health"])
def test_a_body_in_tiny_chunks_is_refused_while_health_is_answered(served, path):
    with served.watched_health() as seconds, served.connect() as connection:
        connection.sendall(served.head(None, path=path))
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < 5:
                connection.sendall(chunked(b"x") * 10_000)
        ended = time.monotonic() - start
        status, document = served.answer(connection) if path == "/predict" else (400, None)
    assert ended < 5
    assert status == 400
    if document is not None:
        assert "pieces of less than 256 bytes" in document["detail"]
    assert max(seconds) < HEALTH_SECONDS


def test_small_chunks_of_an_honest_sender_are_read(served, photo):
    pieces = [photo[at : at + MIN_PIECE_BYTES] for at in range(0, len(photo), MIN_PIECE_BYTES)]
    body = b"".join(map(chunked, pieces)) + b"0\r\n\r\n"
    with served.connect() as connection:
        connection.sendall(served.head(None, more="connection: close\r\n") + body)
        status, document = served.answer(connection)
    assert (status, document.get("prediction")) == (200, "cat")


def test_a_head_of_many_lines_is_refused(served):
    lines = "a:b\r\n" * (MAX_HEADERS + 1)
    with served.connect() as connection:
        connection.sendall(served.head(0, more=lines))
        status, document = served.answer(connection)
    assert (status, document["type"]) == (400, "/problems/malformed-request")
    assert f"more than {MAX_HEADERS} headers" in document["detail"]


def test_pieces_are_counted_for_each_request_on_a_connection():
    head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    connection = BoundedH11Connection(65536)

    def receive(count):
        connection.receive_data(head + chunked(b"x") * count + b"0\r\n\r\n")
        pieces = 0
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            pieces += isinstance(event, h11.Data)
        connection.send(h11.Response(status_code=204, headers=[]))
        connection.send(h11.EndOfMessage())
        connection.start_next_cycle()
        return pieces

    assert [receive(FREE_PIECES), receive(FREE_PIECES)] == [FREE_PIECES] * 2
    with pytest.raises(h11.RemoteProtocolError, match="larger chunks"):
        receive(2 * FREE_PIECES)
    assert "larger chunks" in connection.refusal
