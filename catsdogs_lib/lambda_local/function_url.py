"""A Function URL on this machine: HTTP requests become events for a backend, within AWS's limits."""

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from catsdogs_lib.client import asgi, lambda_events
from catsdogs_lib.client.messages import HttpRequest, HttpResponse
from catsdogs_lib.lambda_local.backends import Backend
from catsdogs_lib.lambda_local.worker import FunctionError


class FunctionUrl:
    """ASGI application that puts a Function URL in front of a backend.

    Parameters
    ----------
    backend
        Answers the events.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._pool = ThreadPoolExecutor(backend.concurrency, thread_name_prefix="function")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        arrival = lambda_events.Arrival.now()
        try:
            # A body over this limit could not fit into an event.
            request = await asgi.read_request(scope, receive, lambda_events.MAX_EVENT_BYTES)
        except ClientDisconnect:
            return
        except asgi.BodyTooLargeError:
            response = lambda_events.REQUEST_TOO_LARGE
        except TimeoutError:
            response = lambda_events.REQUEST_TIMEOUT
        else:
            response = await self._answer(request, arrival)
        added = (("x-amzn-requestid", arrival.request_id), ("x-amzn-trace-id", arrival.trace))
        response = HttpResponse(response.status, (*response.headers, *added), response.body)
        await asgi.send_response(response, scope["method"], send)

    async def _answer(self, request: HttpRequest, arrival: lambda_events.Arrival) -> HttpResponse:
        payload = json.dumps(lambda_events.function_url_event(request, arrival)).encode()
        if len(payload) > lambda_events.MAX_EVENT_BYTES:
            return lambda_events.REQUEST_TOO_LARGE
        loop = asyncio.get_running_loop()
        try:
            result = await loop.run_in_executor(self._pool, self._backend.invoke, payload, arrival.request_id)
        except FunctionError as error:
            _warn(str(error))
            return lambda_events.FUNCTION_FAILED
        response = lambda_events.response_of(result)
        if response is lambda_events.FUNCTION_FAILED:
            _warn(
                f"the function returned {len(result)} bytes: no valid response, or over "
                f"{lambda_events.MAX_RESULT_BYTES}"
            )
        return response


def _warn(sentence: str) -> None:
    logging.getLogger(__name__).warning("%s; the client received 502", sentence)
