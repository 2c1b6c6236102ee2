"""Fine-tune in several processes: torch's DistributedDataParallel under torchrun.

    torchrun --nproc-per-node 2 -m catsdogs_lib.pipeline.torchrun PROJECT [train.epochs=3 ...]

PROJECT needs a manifest (notebook 02_prepare). The settings are those of params.yaml, overridden on the command line.
An optimizer step is the same as in one process: each process computes its share of the batch, and gradients are
averaged, over Gloo between CPUs and over NCCL between GPUs. Notebook 03_train resumes from the checkpoints when its
settings are the same, so ``make pipeline`` skips the finished epochs.
"""

import sys
from collections.abc import Sequence

from catsdogs_lib.data import manifest
from catsdogs_lib.pipeline.parameters import CandidateSettings, parse_value, read_parameters
from catsdogs_lib.pipeline.workspace import Workspace, project_root
from catsdogs_lib.training import distributed
from catsdogs_lib.training.settings import RENAMED, TrainingSettings
from catsdogs_lib.training.trainer import TrainingPaths, train


def settings_of(overrides: Sequence[str]) -> TrainingSettings:
    """Read the candidate's settings from params.yaml, with overrides ``train.name=value``; raises `SettingsError`."""
    values = read_parameters(project_root(), "train")
    for override in overrides:
        name, _, value = override.removeprefix("train.").partition("=")
        values[RENAMED.get(name, name)] = parse_value(value)
    return CandidateSettings.checked(**values).candidate


def main(arguments: Sequence[str]) -> None:
    """Train in the processes that torchrun has started."""
    root, *overrides = arguments
    ws, settings = Workspace.open(root), settings_of(overrides)
    table = manifest.read_manifest(ws.need(ws.manifest, "02_prepare"))
    with distributed.process_group():
        trained = train(table, TrainingPaths(ws.raw, ws.features, ws.checkpoints), settings)
        if distributed.rank() == 0:
            last = trained.record.history[-1]
            print(
                f"{distributed.world_size()} processes, epoch {last.epoch}: "
                f"log loss {last.val_loss:.4f} on validation photos"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
