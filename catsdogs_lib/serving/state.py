"""State that the endpoints of one application share."""

from dataclasses import dataclass

from starlette.requests import Request

from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.serving import problems
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.photo_queue import PhotoQueue
from catsdogs_lib.serving.problems import ProblemError
from catsdogs_lib.serving.request_body import BodyReader
from catsdogs_lib.serving.settings import ServiceSettings
from catsdogs_lib.serving.telemetry import Telemetry
from catsdogs_lib.serving.upload_store import UploadStore


@dataclass(frozen=True)
class AppState:
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
        classifier = self.model.classifier
        if classifier is None:
            raise ProblemError(problems.NOT_READY, self.model.reason, {"retry-after": "5"})
        return classifier


def state_of(request: Request) -> AppState:
    """Get the state of the application that a request has reached."""
    state: AppState = request.app.state.catsdogs
    return state
