"""The ceiling on connections: which one is closed for a new one, and how many files it leaves for other uses."""

import asyncio
import contextlib
import resource
import socket

import pytest

from catsdogs_lib.serving import connections
from catsdogs_lib.serving.connections import ACCEPTS_PER_PASS, ConnectionLimit, Listener, available_connections


class Recorder:
    """A connection that notes that it was closed."""

    def __init__(self):
        self.closed = False

    def abort(self):
        self.closed = True


def opened(limit, client, count):
    """Connections of a client, in order."""
    made = [Recorder() for _ in range(count)]
    for connection in made:
        assert limit.add(connection, client)
    return made


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The clock of the limit, which the test moves."""
    now = [100.0]
    monkeypatch.setattr(connections.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def closed(made):
    return [connection.closed for connection in made]


def test_the_oldest_idle_connection_of_the_client_with_most_makes_room(clock):
    limit = ConnectionLimit(8)
    many, few = opened(limit, "a", 5), opened(limit, "b", 3)
    limit.set_busy(many[0])
    clock(1)
    newcomer = opened(limit, "c", 1)
    assert closed(many) == [False, True, False, False, False]
    assert closed([*few, *newcomer]) == [False] * 4


def test_a_client_above_its_share_makes_room_itself(clock):
    limit = ConnectionLimit(8)
    made = opened(limit, "a", 6)  # three quarters of 8
    clock(1)
    opened(limit, "a", 1)
    assert closed(made) == [True, *[False] * 5]


def test_connections_that_have_just_come_are_left_time_for_their_requests():
    limit = ConnectionLimit(8)
    made = opened(limit, "a", 6)
    surplus = [Recorder() for _ in range(connections.MAX_SURPLUS + 2)]
    assert [limit.add(connection, "a") for connection in surplus] == [False] * len(surplus)
    assert closed(made) == [False] * 6
    # But not without end.
    assert limit.add(Recorder(), "a")
    assert closed(made) == [True, *[False] * 5]


def test_a_client_with_its_share_in_progress_keeps_nobody_else_out():
    limit = ConnectionLimit(8)
    for connection in opened(limit, "a", 6):
        limit.set_busy(connection)
    assert not limit.add(Recorder(), "a")
    assert limit.add(Recorder(), "b")


def test_a_connection_that_is_closed_makes_room_and_is_not_idle_again():
    limit = ConnectionLimit(2)
    (first,) = opened(limit, "a", 1)
    limit.remove(first)
    limit.set_idle(first)
    assert not limit.close_idle()
    opened(limit, "a", 1)


def test_an_interval_has_one_line_with_the_count(clock, caplog):
    limit = ConnectionLimit(4)
    opened(limit, "a", 3)
    for _ in range(46):
        limit.add(Recorder(), "a")
    assert [record.fields["turned_away"] for record in caplog.records] == [1]
    clock(connections.LOG_SECONDS)
    limit.add(Recorder(), "a")
    assert [record.fields["turned_away"] for record in caplog.records] == [1, 46]


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "expected"),
    [
        (256, 256, 256, 96),
        (256, 4096, 1088, 512),
        (1024, 1024, 1024, 480),
        (2**20, 2**20, 2**20, 512),
        (256, resource.RLIM_INFINITY, 1088, 512),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY, 512),
        (40, 40, 40, 10),
    ],
)
def test_the_ceiling_leaves_files_to_others(monkeypatch, soft, hard, raised, expected):
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert available_connections() == expected
    assert limits[-1] == (raised, hard)


def test_a_system_that_refuses_to_raise_the_limit_has_a_lower_ceiling(monkeypatch):
    def refuse(*_):
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert available_connections() == 96


def test_a_pass_of_the_event_loop_accepts_a_few_connections():
    async def accepted(listener):
        counts = []
        for _ in range(3):
            count = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
                    count += 1
            counts.append(count)
            await asyncio.sleep(0)
        return counts

    with contextlib.ExitStack() as opened_sockets:
        listener = opened_sockets.enter_context(
            Listener(ConnectionLimit(), family=socket.AF_INET, type=socket.SOCK_STREAM)
        )
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        listener.setblocking(False)
        for _ in range(2 * ACCEPTS_PER_PASS + 1):
            opened_sockets.enter_context(socket.create_connection(listener.getsockname()))
        assert asyncio.run(accepted(listener)) == [ACCEPTS_PER_PASS, ACCEPTS_PER_PASS, 1]
