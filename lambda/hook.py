"""The Lambda function that CodeDeploy calls before a release takes traffic: whether it gives its golden answers.

Same image as `handler`, another command. It asks the new version as a Function URL would, and tells CodeDeploy.
"""

import json
import os
from typing import Any

from aws_lambda_powertools import Logger
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from catsdogs_lib.client import smoke
from catsdogs_lib.client.http import UnreachableError
from catsdogs_lib.client.lambda_events import (
    FUNCTION_FAILED,
    Arrival,
    HttpRequest,
    HttpResponse,
    function_url_event,
    response_of,
)
from catsdogs_lib.client.smoke import SmokeCheck
from catsdogs_lib.inference.bundle import Bundle, BundleError, locate
from catsdogs_lib.serving.settings import ServiceSettings

WAIT_SECONDS = 30.0
"""So long the new version may take to become ready."""
WITHOUT_KEY = frozenset({"health", "ready", "version"})
"""What can be asked without the key."""

logger = Logger(service=os.environ.get("POWERTOOLS_SERVICE_NAME", "catsdogs"), location=None)


class Version:
    """A version of a function, asked as its URL would ask it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._client = _client("lambda")

    def ask(self, request: HttpRequest) -> HttpResponse:
        """Call it; raises `UnreachableError` where it cannot be called."""
        event = json.dumps(function_url_event(request, Arrival.now()))
        try:
            answer = self._client.invoke(FunctionName=self._name, Payload=event)
            payload: bytes = answer["Payload"].read()
        except (BotoCoreError, ClientError) as error:
            raise UnreachableError(f"{self._name} cannot be called ({error}); check the role of this hook") from None
        return FUNCTION_FAILED if "FunctionError" in answer else response_of(payload)


def checks(name: str) -> list[SmokeCheck]:
    """Look at a version; where it cannot be looked at, that is a check that failed."""
    settings = ServiceSettings.from_environment()
    try:
        found = list(smoke.run_smoke_tests(Version(name), Bundle.load(locate()), WAIT_SECONDS))
    except (UnreachableError, BundleError) as error:
        return [SmokeCheck("reach", False, str(error))]
    if settings.key_sha256 and settings.key_covers == "all":
        # Nobody here has the key. The model says it is ready only after it gave its golden answers to itself.
        return [check for check in found if check.name in WITHOUT_KEY]
    return found


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: Any) -> None:  # noqa: ARG001 - the decorator reads it
    """Say whether a release may go on.

    Parameters
    ----------
    event
        CodeDeploy's: ``DeploymentId`` and ``LifecycleEventHookExecutionId``.
    context
        Lambda's; Powertools reads it.
    """
    found = checks(os.environ["CATSDOGS_RELEASED"])
    for check in found:
        (logger.info if check.passed else logger.error)(check.name, extra={"detail": check.detail})
    _client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"],
        lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status="Succeeded" if all(check.passed for check in found) else "Failed",
    )


def _client(service: str) -> Any:
    return Session().create_client(service, config=Config(read_timeout=30, retries={"mode": "standard"}))
