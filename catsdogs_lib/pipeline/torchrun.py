"""Fine-tunes in several processes what the pipeline then goes on with: torch's DistributedDataParallel under torchrun.

    torchrun --nproc-per-node 2 -m catsdogs_lib.pipeline.torchrun PROJECT [train.epochs=3 ...]

PROJECT has a manifest (notebook 02_prepare). Settings are those of params.yaml, with what the command line says
otherwise. A step is that of one process: each looks at its share of the batch, and gradients are averaged, over Gloo
between CPUs, over NCCL between GPUs. The checkpoints are those that notebook 03_train goes on from with the same
settings: ``make pipeline`` finds the epochs done.
"""

import sys
from collections.abc import Sequence

from ruamel.yaml import YAML

from catsdogs_lib.data import manifest
from catsdogs_lib.pipeline.parameters import PARAMETERS_FILE, parse_value, training_settings
from catsdogs_lib.pipeline.workspace import Workspace, project_root
from catsdogs_lib.training import distributed
from catsdogs_lib.training.settings import TrainingSettings
from catsdogs_lib.training.trainer import TrainingPaths, train


def settings_of(changes: Sequence[str]) -> TrainingSettings:
    """The settings of params.yaml with changes ``train.name=value``; raises `SettingsError`."""
    document = YAML(typ="safe").load(project_root() / PARAMETERS_FILE)
    for change in changes:
        name, _, value = change.removeprefix("train.").partition("=")
        document["train"][name] = parse_value(value)
    return training_settings(document)


def main(arguments: Sequence[str]) -> None:
    """Train in the processes that torchrun has started."""
    root, *changes = arguments
    ws, settings = Workspace.open(root), settings_of(changes)
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
