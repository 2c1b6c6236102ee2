"""Two processes under torchrun train as one does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import BatchSampler, SequentialSampler

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.pipeline import torchrun
from catsdogs_lib.pipeline.workspace import Workspace
from catsdogs_lib.training import distributed
from catsdogs_lib.training.trainer import TrainingPaths, photo_paths, train

CHANGES = ("train.method=finetune", "train.size=64", "train.epochs=1", "train.batch_size=16", "train.precision=fp32")


def test_shares_make_up_the_batch(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(list(distributed.ShareSampler(BatchSampler(SequentialSampler(range(9)), 4, drop_last=False))))
    assert shares == [[[0, 2], [4, 6], [8]], [[1, 3], [5, 7], [8]]]
    assert [distributed.loss_weight(*shares) for shares in ((2, 4), (1, 3), (2, 3))] == [1, 2 / 3, 4 / 3]
    assert distributed.loss_weight(1, 1) == 1


def test_a_setting_that_there_is_not_is_named():
    with pytest.raises(SettingsError, match="there is no such setting"):
        torchrun.settings_of(["train.speed=fast"])


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(prepared, tmp_path):
    table, settings = torchrun.manifest.read_manifest(prepared.manifest), torchrun.settings_of(CHANGES)
    alone = train(table, TrainingPaths(prepared.raw, tmp_path / "features", tmp_path / "alone"), settings)
    root = tmp_path / "together"
    for folder in ("data", "checkpoints"):
        (root / folder).mkdir(parents=True)
    (root / "data" / "raw").symlink_to(prepared.raw)
    (root / "data" / "manifest.csv").write_bytes(prepared.manifest.read_bytes())
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "catsdogs_lib.pipeline.torchrun",
        root,
    ]
    done = subprocess.run([*map(str, command), *CHANGES], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = re.search(r"2 processes, epoch 1: log loss ([0-9.]+)", done.stdout)
    assert float(printed[1]) == pytest.approx(alone.record.history[-1].val_loss, abs=2e-3)

    # What one process goes on from: nothing is left to do, and the weights are those of one process.
    ws = Workspace(root)
    seen = []
    together = train(table, TrainingPaths(ws.raw, ws.features, ws.checkpoints), settings, seen.append)
    assert [epoch.epoch for epoch in seen] == [0, 1]
    assert together.record.history[-1].val_loss == pytest.approx(float(printed[1]), abs=1e-4)
    paths = photo_paths(table.head(8), prepared.raw)
    logits = [torch.from_numpy(model.logits(model.features(paths))) for model in (alone, together)]
    assert torch.allclose(*logits, atol=0.02)
