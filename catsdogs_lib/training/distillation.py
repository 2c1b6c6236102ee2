"""A teacher: a trained network that sees more of each picture than the one that learns from it.

Knowledge distillation (Hinton et al., 2015, https://arxiv.org/abs/1503.02531), the teacher looking at the very crop
that its pupil gets, however varied (Beyer et al., 2022, https://arxiv.org/abs/2106.05237).
"""

import torch
from torch import Tensor, nn


class Teacher:
    """Gives lessons: pictures of the pupil's size with the probabilities to learn.

    Parameters
    ----------
    network
        Trained; (N, 3, T, T) -> logits (N, C).
    size
        Height and width of the pupil's pictures, pixels, at most T.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        self.network, self.size = network.eval().requires_grad_(False), size

    def to(self, device: torch.device) -> "Teacher":
        """The same teacher on a device."""
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def lesson(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the pupil sees of images (N, 3, T, T): (N, 3, size, size), and what it should say: float32 (N, C)."""
        with torch.no_grad():
            target = self.network(images).float().softmax(dim=1)
            smaller = nn.functional.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        return smaller.contiguous(memory_format=torch.channels_last), target
