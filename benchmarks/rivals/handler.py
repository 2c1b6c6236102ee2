"""The same service as AWS's own SAM template for PyTorch images would have it: FastAPI, Mangum, torch at module level.

Under uvicorn (`handler:app`) it is also the plain FastAPI server that tutorials show.
"""

from typing import Annotated

from fastapi import FastAPI, File, HTTPException, UploadFile
from mangum import Mangum
from network import answer, decode

app = FastAPI()


@app.get("/ready")
def ready() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/predict")
def predict(file: Annotated[UploadFile, File()]) -> dict[str, object]:
    try:
        image = decode(file.file.read())
    except OSError as error:
        raise HTTPException(400, "not an image") from error
    return answer(image)


handler = Mangum(app, lifespan="off")
