"""torchvision's reference loop on the same network and photos: the body of a process of `training.py`. Prints JSON.

    python torchvision_training.py RAW_FOLDER EPOCHS RATE

As references/classification/train.py does by default: SGD with momentum 0.9, weight decay 1e-4, random resized crops
and flips, a head for the classes; the rate of fine-tuning is given. The schedule is its cosine.
"""

import json
import sys
import time
from pathlib import Path

import torch
import torchvision.transforms.v2 as transforms
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

sys.path.insert(0, str(Path(__file__).parents[2]))
from catsdogs_lib.training.models import build

raw, epochs, rate = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
torch.manual_seed(0)
began = time.perf_counter()
built = build("efficientnet_lite0", 2)
network = torch.nn.Sequential(built.network.backbone, built.network.head)
shape = built.preprocessing
end = [transforms.ToImage(), transforms.ToDtype(torch.float32, scale=True), transforms.Normalize(shape.mean, shape.std)]
train = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *end])
plain = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *end])
photos = ImageFolder(raw / "train", train)
loader = DataLoader(photos, 32, shuffle=True, num_workers=2)
optimiser = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=1e-4)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * len(loader))
for _ in range(epochs):
    network.train()
    for images, labels in loader:
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
seconds = time.perf_counter() - began
network.eval()
losses, right, count = 0.0, 0, 0
with torch.inference_mode():
    for images, labels in DataLoader(ImageFolder(raw / "test", plain), 32, num_workers=2):
        logits = network(images)
        losses += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(1) == labels).sum())
        count += len(labels)
print(json.dumps({"seconds": seconds, "accuracy": right / count, "log_loss": losses / count}))
