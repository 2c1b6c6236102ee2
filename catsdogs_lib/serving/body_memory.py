"""Memory held by request bodies, limited in total and per client."""

import ipaddress
from collections import Counter

from starlette.requests import Request

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.settings import ServiceSettings


class BodyMemory:
    """Counts the memory held by request bodies, in total and per client."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.total = 0
        self.by_client: Counter[str] = Counter()


class MemoryReservation:
    """One request's share of the memory.

    Parameters
    ----------
    memory
        The memory that all requests share.
    client
        The request's client, see `client_of`.
    declared
        Content-Length of the request, in bytes; 0 if unknown. It reserves nothing by itself.
    """

    def __init__(self, memory: BodyMemory, client: str, declared: int = 0) -> None:
        self._memory = memory
        self._client = client
        self.declared = declared
        self._bytes = 0

    def take(self, count: int) -> None:
        """Reserve `count` bytes more; raises `ProblemError` (503) if they exceed a limit."""
        memory, settings = self._memory, self._memory.settings
        small = max(self.declared, self._bytes + count) <= settings.small_body_bytes
        kept_free = 0 if small else settings.small_bodies_bytes
        if (
            memory.total + count > settings.max_held_bytes - kept_free
            or memory.by_client[self._client] + count > settings.max_client_bytes - kept_free
        ):
            raise problems.busy()
        memory.total += count
        memory.by_client[self._client] += count
        self._bytes += count

    def release(self) -> None:
        """Release the whole reservation."""
        self._memory.total -= self._bytes
        self._memory.by_client[self._client] -= self._bytes
        if not self._memory.by_client[self._client]:
            del self._memory.by_client[self._client]
        self._bytes = 0


def client_of(request: Request) -> str:
    """Get the address that identifies a request's client, see `network_of`; "" if it is unknown.

    Behind a proxy that uvicorn trusts (``FORWARDED_ALLOW_IPS``) it is the address in ``X-Forwarded-For``.
    """
    return network_of(request.client.host if request.client else "")


def network_of(host: str) -> str:
    """Get the part of an address that identifies a client: all of IPv4, the /64 network of IPv6."""
    if ":" not in host:
        return host
    try:
        # One IPv6 customer typically has a whole /64.
        return str(ipaddress.IPv6Network((host, 64), strict=False))
    except ValueError:
        return host
