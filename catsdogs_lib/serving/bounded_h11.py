"""HTTP/1.1 parsing with bounded cost: limits on header lines and on tiny body chunks."""

import h11

MAX_HEADERS = 128
"""Maximum header lines of a request; browsers and load balancers send about 30."""
FREE_PIECES = 256
"""Number of pieces of a body that may be of any size."""
MIN_PIECE_BYTES = 256
"""Minimum average size of further pieces: h11 and uvicorn take about 10 µs for each, however small."""


class BoundedH11Connection(h11.Connection):
    """A server's h11 connection that refuses requests whose parsing would block the event loop.

    h11 limits the bytes of a head, but neither its lines nor the number of chunks: parsing 256 KiB of one-byte
    chunks, as much as one read delivers, takes 0.4 s.

    Attributes
    ----------
    refusal
        The reason why the last request was refused; None if it was not.
    """

    refusal: str | None = None
    _pieces = 0
    _bytes = 0

    def __init__(self, max_incomplete_event_size: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Parse the next event; raises `h11.RemoteProtocolError` if the request is over a limit."""
        if self.their_state is h11.IDLE:
            self._pieces = self._bytes = 0
            head = self.trailing_data[0].partition(b"\r\n\r\n")[0]
            if head.count(b"\n") > MAX_HEADERS:
                raise self._refuse(f"the request has more than {MAX_HEADERS} headers; send fewer")
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > FREE_PIECES + self._bytes // MIN_PIECE_BYTES:
                raise self._refuse(
                    f"the body arrives in pieces of less than {MIN_PIECE_BYTES} bytes on average; send larger chunks"
                )
        return event

    def _refuse(self, reason: str) -> h11.RemoteProtocolError:
        self.refusal = reason
        return h11.RemoteProtocolError(reason)
