"""The same service as AWS's own SAM template for PyTorch images would have it: FastAPI, Mangum, torch eager.

The model is loaded at module level, the photo is decoded whole by Pillow and prepared by torchvision. The network
and its weights are those of the bundle; see `against_torch_eager.py`, which writes the files named by WEIGHTS.
"""

import io
import json
import os
from pathlib import Path
from typing import Annotated

import timm
import torch
import torchvision.transforms.v2 as transforms
from fastapi import FastAPI, File, HTTPException, UploadFile
from mangum import Mangum
from PIL import Image, ImageOps

FOLDER = Path(os.environ["WEIGHTS"])
settings = json.loads((FOLDER / "settings.json").read_text())
torch.set_num_threads(max(1, round(int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]) / 1769)))

prepare = transforms.Compose(
    [
        transforms.Resize(settings["size"], transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(settings["size"]),
        transforms.ToImage(),
        transforms.ToDtype(torch.float32, scale=True),
        transforms.Normalize(settings["mean"], settings["std"]),
    ]
)
model = timm.create_model(settings["network"], num_classes=len(settings["classes"]))
model.load_state_dict(torch.load(FOLDER / "weights.pt", weights_only=True))
model.eval()

app = FastAPI()


@app.get("/ready")
def ready() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/predict")
def predict(file: Annotated[UploadFile, File()]) -> dict[str, object]:
    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(file.file.read()))).convert("RGB")
    except OSError as error:
        raise HTTPException(400, "not an image") from error
    with torch.inference_mode():
        logits = model(prepare(image).unsqueeze(0)) / settings["temperature"]
        probabilities = torch.softmax(logits, dim=1)[0].tolist()
    named = dict(zip(settings["classes"], probabilities, strict=True))
    best = max(named, key=named.__getitem__)
    return {"prediction": best, "confidence": named[best], "probabilities": named}


handler = Mangum(app, lifespan="off")
