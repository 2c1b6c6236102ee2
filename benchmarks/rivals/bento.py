"""BentoML, as its documentation has it for an image: a service whose method takes a Pillow image."""

import os

import bentoml
from network import answer
from PIL import Image


@bentoml.service(workers=int(os.environ.get("WORKERS", "1")), traffic={"timeout": 30})
class Pets:
    @bentoml.api
    def predict(self, file: Image.Image) -> dict[str, object]:
        return answer(file.convert("RGB"))
