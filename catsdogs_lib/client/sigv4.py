"""AWS Signature Version 4, for Function URLs with ``AWS_IAM``. Needs botocore (the extra ``aws``)."""

import hashlib
import logging
import os
import re
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from catsdogs_lib.common.errors import CatsdogsError

SERVICE = "lambda"
_FUNCTION_URL = re.compile(r"[a-z0-9]+\.lambda-url\.([a-z0-9-]+)\.on\.aws")


class SigningError(CatsdogsError):
    """A request cannot be signed; ``str()`` says what is missing."""


class Signer:
    """Signer with the credentials that AWS's own tools would use: environment, profile, role.

    Parameters
    ----------
    url
        Function URL, whose host names the region.
    region
        Overrides the URL's region; without either, the environment's or the profile's.
    profile
        Profile of ``~/.aws``; None takes ``AWS_PROFILE`` or the default one.

    Raises
    ------
    SigningError
        There is no region, no such profile, or no credentials.
    """

    def __init__(self, url: str, region: str | None = None, profile: str | None = None) -> None:
        # botocore logs a traceback for what it also raises.
        logging.getLogger("botocore.credentials").setLevel(logging.CRITICAL)
        try:
            session = Session(profile=profile)
            match = _FUNCTION_URL.fullmatch(urlsplit(url).hostname or "")
            self.region: str = (
                region
                or (match.group(1) if match else None)
                or os.environ.get("AWS_REGION")
                or session.get_config_variable("region")
                or ""
            )
            self._credentials: Any = session.get_credentials()
        except (BotoCoreError, ClientError) as error:
            raise SigningError(_sentence(error)) from None
        if not self.region:
            raise SigningError(f"{url} names no AWS region; name it with --region or AWS_REGION")
        if self._credentials is None:
            raise SigningError(
                "no AWS credentials found; sign in ('aws sso login', 'aws configure'), or name a profile with --profile"
            )
        self._current_credentials()

    def sign(self, method: str, url: str, body: bytes) -> dict[str, str]:
        """Sign a request.

        Parameters
        ----------
        method, body
            Method and body of the request.
        url
            Its URL, in the form of `catsdogs_lib.client.http.canonical_target`.

        Returns
        -------
        dict of str
            Headers to add. No other header is signed, so that intermediaries may change them.

        Raises
        ------
        SigningError
            The credentials have expired and cannot be renewed.
        """
        request = AWSRequest(method, url, {"X-Amz-Content-SHA256": hashlib.sha256(body).hexdigest()}, body)
        SigV4Auth(self._current_credentials(), SERVICE, self.region).add_auth(request)
        return dict(request.headers.items())

    def _current_credentials(self) -> Any:
        try:
            return self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise SigningError(_sentence(error)) from None


def _sentence(error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    return f"AWS credentials cannot be used ({reason}); sign in again, or name another profile with --profile"
