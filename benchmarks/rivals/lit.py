"""LitServe, as its documentation has it for a file of a form: decode, predict, encode; two workers of one thread."""

import os

import litserve
from network import answer, decode
from PIL import Image


class Pets(litserve.LitAPI):
    def setup(self, device: str) -> None:
        pass  # the network is loaded with its module, in each worker

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe takes a type for a query parameter
        return decode(request["file"].file.read())

    def predict(self, x: Image.Image) -> dict[str, object]:
        return answer(x)

    def encode_response(self, output: dict[str, object]) -> dict[str, object]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Pets(), accelerator="cpu", workers_per_device=int(os.environ["WORKERS"]))
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", generate_client_file=False)
