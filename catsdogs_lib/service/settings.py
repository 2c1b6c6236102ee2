"""What the application allows a sender."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServiceSettings:
    """Limits of the application.

    Parameters
    ----------
    max_body_bytes
        A larger request body is refused.
    body_seconds
        A body that has not arrived whole by then is ended.
    max_held_bytes
        What the bodies of all requests that are arriving, waiting or being looked at may hold in memory; beyond it
        a request is told to come again. Parsing a form holds a second copy for a moment.
    max_waiting
        Photos that may wait for their turn; beyond it a request is told to come again.
    concurrency
        Photos that are decoded and looked at at once. Each may need 250 MB for a moment.
    """

    max_body_bytes: int = 24 * 2**20
    body_seconds: float = 30.0
    max_held_bytes: int = 96 * 2**20
    max_waiting: int = 64
    concurrency: int = 1
