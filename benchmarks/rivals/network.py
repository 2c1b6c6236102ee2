"""What the rivals have in common: the bundle's network in torch, and a photo prepared as torchvision's users do.

``WEIGHTS`` names the folder that `benchmarks/weights.py` writes. ``RIVAL`` says how the network runs: ``eager``, or
``script`` for a traced and frozen one. ``DRAFT=1`` lets Pillow decode a large JPEG at a fraction of its size, as ours.
"""

import io
import json
import os
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms.v2 as transforms
from PIL import Image, ImageOps

FOLDER = Path(os.environ["WEIGHTS"])
settings = json.loads((FOLDER / "settings.json").read_text())
torch.set_num_threads(
    int(os.environ.get("THREADS", 0))
    or max(1, round(int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 1769)) / 1769))
)

prepare = transforms.Compose(
    [
        transforms.Resize(settings["size"], transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(settings["size"]),
        transforms.ToImage(),
        transforms.ToDtype(torch.float32, scale=True),
        transforms.Normalize(settings["mean"], settings["std"]),
    ]
)


def load() -> Any:
    """The network, ready to answer."""
    if os.environ.get("RIVAL") == "script":
        return torch.jit.load(FOLDER / "traced.pt")
    import timm

    model = timm.create_model(settings["network"], num_classes=len(settings["classes"]))
    model.load_state_dict(torch.load(FOLDER / "weights.pt", weights_only=True))
    return model.eval()


model = load()


def decode(data: bytes) -> Image.Image:
    """The whole photo, upright, RGB."""
    image = Image.open(io.BytesIO(data))
    if os.environ.get("DRAFT"):
        image.draft("RGB", (settings["size"], settings["size"]))
    return ImageOps.exif_transpose(image).convert("RGB")


def answer(image: Image.Image) -> dict[str, object]:
    """The answer for one photo."""
    with torch.inference_mode():
        logits = model(prepare(image).unsqueeze(0)) / settings["temperature"]
        probabilities = torch.softmax(logits, dim=1)[0].tolist()
    named = dict(zip(settings["classes"], probabilities, strict=True))
    best = max(named, key=named.__getitem__)
    return {"prediction": best, "confidence": named[best], "probabilities": named}
