"""The memory of bodies is shared: no client takes it all, and small photos find room."""

import pytest
from starlette.requests import Request

from catsdogs_lib.serving.body_memory import BodyMemory, MemoryReservation, client_of
from catsdogs_lib.serving.problems import ProblemError
from catsdogs_lib.serving.settings import ServiceSettings

MIB = 2**20


@pytest.fixture
def memory():
    return BodyMemory(
        ServiceSettings(max_held_bytes=100, max_client_bytes=60, small_body_bytes=10, small_bodies_bytes=20)
    )


def taken(memory, client, size, piece=5):
    """Take memory piece by piece until it is refused; gives the bytes taken and the reservation."""
    reservation, count = MemoryReservation(memory, client, size), 0
    try:
        for _ in range(size // piece):
            reservation.take(piece)
            count += piece
    except ProblemError:
        pass
    return count, reservation


def test_a_client_takes_its_share_and_leaves_the_rest_to_others(memory):
    assert taken(memory, "a", 100)[0] == 40
    assert taken(memory, "b", 100)[0] == 40
    assert taken(memory, "c", 100)[0] == 0


def test_small_bodies_find_room_beside_large_ones_of_the_same_client(memory):
    taken(memory, "a", 100)
    assert [taken(memory, "a", 10)[0] for _ in range(3)] == [10, 10, 0]


def test_a_body_of_unknown_size_counts_as_large_once_it_is(memory):
    memory.total = 85
    reservation = MemoryReservation(memory, "a")
    reservation.take(10)
    with pytest.raises(ProblemError):
        reservation.take(1)


def test_what_is_released_is_there_for_others(memory):
    for _ in range(3):
        count, reservation = taken(memory, "a", 40)
        assert count == 40
        reservation.release()
    assert (memory.total, memory.by_client) == (0, {})


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1::9", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no:address", "no:address"),
        ("testclient", "testclient"),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(host, client):
    assert client_of(Request({"type": "http", "client": (host, 1)})) == client
    assert client_of(Request({"type": "http", "client": None})) == ""


def test_large_bodies_that_never_end_leave_room_for_a_photo(served, photo):
    """The attacker and the honest sender have the same address."""
    size = 24 * MIB - 100
    connections = [served.connect() for _ in range(5)]
    try:
        for connection in connections:
            connection.settimeout(2)
            try:
                connection.sendall(served.head(size) + bytes(size - 10))
            except OSError:
                continue  # refused
        assert served.post(photo)[0] == 200
    finally:
        for connection in connections:
            connection.close()
