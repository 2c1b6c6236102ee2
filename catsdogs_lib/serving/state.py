"""State that the endpoints of one application share."""

from typing import NamedTuple

from starlette.requests import Request

from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.serving import problems
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.photo_queue import PhotoQueue
from catsdogs_lib.serving.request_body import BodyReader
from catsdogs_lib.serving.settings import ServiceSettings
from catsdogs_lib.serving.telemetry import Telemetry
from catsdogs_lib.serving.upload_store import UploadStore


class AppState(NamedTuple):
    """State of an application; `upload_store` is None where uploads are off."""

    settings: ServiceSettings
    model: Model
    telemetry: Telemetry
    body_reader: BodyReader
    queue: PhotoQueue
    upload_store: UploadStore | None

    @property
    def classifier(self) -> Classifier:
        """The model's classifier; raises `ProblemError` (503) where no model is loaded."""
        if self.model.classifier is None:
            raise problems.ProblemError(problems.NOT_READY, self.model.reason, {"retry-after": "5"})
        return self.model.classifier


def state_of(request: Request) -> AppState:
    """Get the state of the application that a request has reached."""
    state: AppState = request.app.state.catsdogs
    return state
