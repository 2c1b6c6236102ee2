"""The Lambda function that CodeDeploy calls to test a release before it gets traffic.

Same image as `handler`, another command. It runs the smoke tests against the new version, with the events that a
Function URL would send, and reports the result to CodeDeploy.
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
from catsdogs_lib.client.lambda_events import FUNCTION_FAILED, Arrival, function_url_event, response_of
from catsdogs_lib.client.messages import HttpRequest, HttpResponse
from catsdogs_lib.client.smoke import SmokeCheck
from catsdogs_lib.inference.bundle import Bundle, BundleError, locate
from catsdogs_lib.serving.settings import ServiceSettings

WAIT_SECONDS = 30.0
"""Time limit for the new version to become ready."""
CHECKS_WITHOUT_KEY = frozenset({"health", "ready", "version"})

logger = Logger(service=os.environ.get("POWERTOOLS_SERVICE_NAME", "catsdogs"), location=None)


class Version:
    """A version of a function, invoked as its URL would invoke it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._client = _client("lambda")

    def ask(self, request: HttpRequest) -> HttpResponse:
        """Invoke the version with a request; raises `UnreachableError` if the call fails."""
        event = json.dumps(function_url_event(request, Arrival.now()))
        try:
            response = self._client.invoke(FunctionName=self._name, Payload=event)
            payload: bytes = response["Payload"].read()
        except (BotoCoreError, ClientError) as error:
            raise UnreachableError(f"{self._name} cannot be called ({error}); check the role of this hook") from None
        return FUNCTION_FAILED if "FunctionError" in response else response_of(payload)


def checks(name: str) -> list[SmokeCheck]:
    """Run the smoke tests against a version; being unable to run them is a failed check."""
    settings = ServiceSettings.from_environment()
    try:
        results = list(smoke.run_smoke_tests(Version(name), Bundle.load(locate()), WAIT_SECONDS))
    except (UnreachableError, BundleError) as error:
        return [SmokeCheck("reach", False, str(error))]
    if settings.key_sha256 and settings.key_covers == "all":
        # The hook has no key. The model is ready only after it has reproduced a golden answer.
        return [check for check in results if check.name in CHECKS_WITHOUT_KEY]
    return results


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: Any) -> None:  # noqa: ARG001 - the decorator reads it
    """Tell CodeDeploy whether a release may proceed.

    Parameters
    ----------
    event
        CodeDeploy's: ``DeploymentId`` and ``LifecycleEventHookExecutionId``.
    context
        Lambda's; Powertools reads it.
    """
    results = checks(os.environ["CATSDOGS_RELEASED"])
    for check in results:
        (logger.info if check.passed else logger.error)(check.name, extra={"detail": check.detail})
    _client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"],
        lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status="Succeeded" if all(check.passed for check in results) else "Failed",
    )


def _client(service: str) -> Any:
    return Session().create_client(service, config=Config(read_timeout=30, retries={"mode": "standard"}))
