"""Knowledge distillation: a teacher with a larger input size gives the probabilities that a student learns.

Hinton et al., 2015, https://arxiv.org/abs/1503.02531. Teacher and student see the same augmented crop (Beyer et al.,
2022, https://arxiv.org/abs/2106.05237).
"""

import torch
from torch import Tensor, nn


class Teacher:
    """A trained network that turns images into soft targets for a student.

    Parameters
    ----------
    network
        Trained; (N, 3, T, T) -> logits (N, C).
    size
        Height and width of the student's input, pixels, at most T.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        self.network, self.size = network.eval().requires_grad_(False), size

    def to(self, device: torch.device) -> "Teacher":
        """Move the teacher to a device."""
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def soft_targets(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scale images (N, 3, T, T) to the student's (N, 3, size, size), and give their probabilities, (N, C)."""
        with torch.no_grad():
            target = self.network(images).float().softmax(dim=1)
            smaller = nn.functional.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        return smaller.contiguous(memory_format=torch.channels_last), target
