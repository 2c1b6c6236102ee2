import numpy as np
import pytest
import torch
from torch import nn

from catsdogs_lib.imaging.preprocessing import Preprocessing
from catsdogs_lib.training import loop
from catsdogs_lib.training.dataset import PhotoDataset
from catsdogs_lib.training.distillation import Teacher
from catsdogs_lib.training.models import Network
from catsdogs_lib.training.settings import TrainingSettings


def averaging_network(seed):
    """A network that sees the mean of each colour."""
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(backbone, 8, 2)


def test_soft_targets_are_the_teachers_probabilities_for_the_same_picture_in_its_own_size():
    network = averaging_network(0)
    images = torch.rand(4, 3, 48, 48)
    smaller, target = Teacher(network, 32).soft_targets(images)
    assert smaller.shape == (4, 3, 32, 32)
    assert torch.allclose(smaller.mean((2, 3)), images.mean((2, 3)), atol=0.01)
    assert torch.allclose(target, network(images).softmax(1))
    assert target.dtype == torch.float32
    assert not target.requires_grad


def test_fine_stripes_blur_where_pictures_get_smaller():
    stripes = torch.tensor([0.0, 1.0]).repeat(24).expand(1, 3, 48, 48)
    smaller, _ = Teacher(averaging_network(0), 16).soft_targets(stripes)
    assert torch.all((smaller - 0.5).abs() < 0.1)


@pytest.fixture
def student(monkeypatch):
    """Make a run whose steps follow a teacher, or labels."""
    monkeypatch.setattr(loop, "parameter_groups", lambda network, _: [{"params": network.parameters(), "lr": 1}])

    def make(teacher):
        settings = TrainingSettings(method="finetune", precision="fp32", ema_decay=0)
        return loop.TrainingRun(averaging_network(1), PhotoDataset([], [], Preprocessing()), settings, 100, teacher)

    return make


def test_a_student_learns_what_the_teacher_says_whatever_the_labels_say(student):
    images = torch.rand(8, 3, 48, 48)
    weights = []
    for labels in (torch.zeros(8, dtype=torch.int64), torch.ones(8, dtype=torch.int64)):
        run = student(Teacher(averaging_network(0), 32))
        for _ in range(100):
            loss = run.step(images, labels)
        weights.append(torch.cat([p.detach().flatten() for p in run.network.parameters()]))
    assert torch.equal(*weights)
    _, target = run.teacher.soft_targets(images)
    entropy = -(target * target.log()).sum(1).mean()
    assert float(loss - entropy) == pytest.approx(0, abs=1e-3), "the least loss is the teacher's own doubt"


def test_without_a_teacher_labels_are_learned(student):
    images = torch.rand(8, 3, 48, 48)
    run = student(None)
    for _ in range(100):
        run.step(images, torch.ones(8, dtype=torch.int64))
    assert np.all(run.network(images).argmax(1).numpy() == 1)


def test_a_teacher_is_trained_as_its_student_but_for_size_epochs_and_interpolation():
    settings = TrainingSettings(
        method="finetune", size=96, epochs=9, teacher_size=128, teacher_epochs=3, seed=5, weight_interpolation=0.5
    )
    assert settings.teacher == TrainingSettings(method="finetune", size=128, epochs=3, teacher_epochs=3, seed=5)
    assert settings.teacher.teacher is None
