import dataclasses

import numpy as np
import pytest
import torch

from catsdogs_lib.data import manifest
from catsdogs_lib.training import feature_extractor, features, loop, precision, trainer
from catsdogs_lib.training.checkpoint import TrainedModel, TrainedModelError, TrainingRecord
from catsdogs_lib.training.dataset import Augmentation, PhotoDataset
from catsdogs_lib.training.features import FeatureCache
from catsdogs_lib.training.head import fit_head
from catsdogs_lib.training.models import build
from catsdogs_lib.training.settings import TrainingSettings, baseline_settings
from catsdogs_lib.training.trainer import TrainingPaths, photo_paths, prepare_data, train


@pytest.fixture(scope="module")
def table(prepared):
    """A part of the manifest, so that an epoch takes a second."""
    whole = manifest.read_manifest(prepared.manifest)
    used = manifest.used(whole)
    return used.groupby(["label", "split"]).head(10).reset_index(drop=True)


@pytest.fixture
def paths(prepared, tmp_path):
    return TrainingPaths(prepared.raw, prepared.features, tmp_path / "checkpoints")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.network.parameters()])


FINETUNE = TrainingSettings(method="finetune", epochs=2, batch_size=8, learning_rate=1e-4, size=96)
DISTILLED = FINETUNE.model_copy(
    update={"size": 96, "teacher_size": 128, "teacher_epochs": 1, "weight_interpolation": 0.5}
)


def test_a_frozen_head_on_pretrained_features_exceeds_95_percent(trained):
    from catsdogs_lib.common import files

    figures = files.read_json(trained.metrics)["models"]["efficientnet_lite0"]
    right = sum(figures[split]["accuracy"]["value"] * n for split, n in (("val", 1), ("test", 1))) / 2
    assert right > 0.95


def test_the_same_seed_gives_the_same_frozen_model(table, paths):
    first, second = (train(table, paths, TrainingSettings()) for _ in range(2))
    assert torch.equal(weights(first), weights(second))
    assert first.record.best_epoch == 0


def test_the_steps_one_by_one_give_the_model_of_one_call(table, paths):
    settings = TrainingSettings()
    data = trainer.prepare_data(table, paths)
    spec = trainer.build_model(settings, data.classes)
    features = trainer.extract_features(spec, data, settings)
    fit_head(features["train"], data.labels("train"), settings, spec.network.head)
    epoch = trainer.measure_head(spec, features, data, seconds=0)
    model = trainer.finish(spec, data, settings, loop.Fit((epoch,), 0), seconds=0)
    expected = train(table, paths, settings)
    assert torch.equal(weights(model), weights(expected))
    assert torch.equal(model.network.prototypes, expected.network.prototypes)
    assert model.record.history[0].val_loss == expected.record.history[0].val_loss


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [FINETUNE, DISTILLED, baseline_settings(2, batch_size=8)], ids=["finetune", "distilled", "scratch"]
)
def test_a_killed_run_goes_on_and_ends_with_the_same_figures(table, paths, settings):
    whole = train(table, paths, settings)
    prepare_data(table, paths).forget_checkpoint(settings)

    class Killed(BaseException):
        pass

    def kill_after_first(epoch):
        if epoch.epoch == 1:
            raise Killed

    with pytest.raises(Killed):
        train(table, paths, settings, kill_after_first)
    seen = []
    resumed = train(table, paths, settings, lambda epoch: seen.append(epoch.epoch))
    assert torch.equal(weights(whole), weights(resumed))

    def figures(record):
        return [(e.epoch, e.train_loss, e.val_loss, e.val_accuracy) for e in record.history]

    assert figures(whole.record) == figures(resumed.record)
    assert seen == [e.epoch for e in whole.record.history], "epochs done before the kill are told again"
    prepare_data(table, paths).forget_checkpoint(settings)
    assert list(paths.checkpoints.iterdir()) == []


@pytest.mark.slow
def test_a_blended_backbone_has_taken_back_its_share(table, paths):
    # From a head that knows nothing, so that the epoch is sure to be kept.
    change = {"size": 96, "epochs": 1, "weights": "fp32", "ema_decay": 0.0, "logistic_regression_c": 1e-6}
    settings = FINETUNE.model_copy(update=change)
    whole, half = (
        train(table, paths, settings.model_copy(update={"weight_interpolation": share})) for share in (1.0, 0.5)
    )
    assert whole.record.best_epoch == half.record.best_epoch == 1
    before = dict(build("efficientnet_lite0", 2).network.named_parameters())
    tuned = dict(whole.network.named_parameters())
    for name, parameter in half.network.named_parameters():
        expected = tuned[name] if name.startswith("head") else (tuned[name] + before[name]) / 2
        assert torch.allclose(parameter, expected, atol=1e-6), name
    assert not torch.equal(tuned["backbone.conv_head.weight"], before["backbone.conv_head.weight"])


@pytest.mark.slow
def test_the_best_epoch_is_kept_not_the_last(table, paths):
    # A rate at which the third epoch is sure to spoil what came before.
    wild = FINETUNE.model_copy(update={"learning_rate": 0.5, "ema_decay": 0.0, "epochs": 1, "weights": "fp32"})
    model = train(table, paths, wild)
    assert model.record.best_epoch == 0
    frozen = train(table, paths, TrainingSettings(weights="fp32", size=96))
    assert torch.equal(weights(model), weights(frozen))


@pytest.mark.slow
def test_training_that_diverges_is_a_sentence(table, paths):
    settings = FINETUNE.model_copy(update={"epochs": 1, "learning_rate": 1e30})
    with pytest.raises(loop.DivergedError, match="diverged in epoch 1: .*lower learning_rate"):
        train(table, paths, settings)


def test_fine_tuning_keeps_batch_norm_and_changes_the_rest(table, paths):
    settings = FINETUNE.model_copy(update={"epochs": 1, "learning_rate": 1e-3})
    before = build("efficientnet_lite0", 2)
    photos = [
        PhotoDataset(photo_paths(table, paths.raw)[:16], [0, 1] * 8, before.preprocessing, augmentation)
        for augmentation in (Augmentation(0.6, 0.2), None)
    ]
    network = build("efficientnet_lite0", 2).network
    loop.fit(network, photos[0], photos[1], settings, paths.checkpoints / "x")
    own, old = network.backbone.state_dict(), before.network.backbone.state_dict()
    assert torch.equal(own["bn1.running_mean"], old["bn1.running_mean"])


def test_rates_decay_from_the_head_down():
    network = build("efficientnet_lite0", 2, pretrained=False).network
    groups = loop.parameter_groups(network, FINETUNE)
    owner = {id(p): group["lr"] for group in groups for p in group["params"]}
    rates = [
        owner[id(next(m.parameters()))] for m in (network.backbone.conv_stem, network.backbone.blocks[3], network.head)
    ]
    assert rates == sorted(rates)
    assert rates[0] < rates[1] < rates[2] == FINETUNE.learning_rate
    assert len(owner) == len(list(network.parameters()))


def test_features_are_computed_once_and_found_by_content(table, prepared, tmp_path, monkeypatch):
    rows = table.head(12)
    spec = build("efficientnet_lite0", 2)
    cache = FeatureCache(tmp_path, spec, "fp32")
    first = cache.get(photo_paths(rows, prepared.raw), rows["sha256"].tolist())
    assert first.shape == (12, 2, 1280)

    def fail(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(feature_extractor, "prepare", fail)
    backwards = rows.iloc[::-1]
    elsewhere = [tmp_path / "moved" / path for path in backwards["path"]]
    again = FeatureCache(tmp_path, spec, "fp32").get(elsewhere, backwards["sha256"].tolist())
    assert np.array_equal(again[::-1], first)


def test_a_kill_during_the_feature_pass_keeps_the_finished_part(table, prepared, tmp_path, monkeypatch):
    rows = table.head(12)
    paths, shas = photo_paths(rows, prepared.raw), rows["sha256"].tolist()
    monkeypatch.setattr(features, "PHOTOS_PER_SHARD", 4)
    prepare, batches = feature_extractor.prepare, []

    def dying(*arguments):
        forward = prepare(*arguments)

        def run(images):
            batches.append(len(images))
            if len(batches) == 5:
                raise KeyboardInterrupt
            return forward(images)

        return run

    monkeypatch.setattr(feature_extractor, "prepare", dying)
    cache = FeatureCache(tmp_path, build("efficientnet_lite0", 2), "fp32")
    with pytest.raises(KeyboardInterrupt):
        cache.get(paths, shas)
    assert batches == [4] * 5, "photos and mirror images of two shards, then the kill"
    batches.append("resumed")
    cache.get(paths, shas)
    assert batches[5:] == ["resumed", 4, 4], "two shards were kept, the third was computed again"


def test_features_of_other_weights_or_precision_are_others(tmp_path):
    spec = build("efficientnet_lite0", 2)
    other = dataclasses.replace(spec, origin="other")
    folders = {FeatureCache(tmp_path, s, p).folder for s, p in ((spec, "fp32"), (spec, "bf16"), (other, "fp32"))}
    assert len(folders) == 3


def test_mirrored_features_are_those_of_the_mirrored_photo(table, prepared, tmp_path):
    from PIL import Image

    path = photo_paths(table, prepared.raw)[0]
    square = Image.open(path).convert("RGB").resize((224, 224))
    plain, mirrored = tmp_path / "plain.png", tmp_path / "mirrored.png"
    square.save(plain)
    square.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    both = FeatureCache(tmp_path, build("efficientnet_lite0", 2), "fp32").get([plain, mirrored], ["a", "b"])
    assert both[0, 1] == pytest.approx(both[1, 0], abs=1e-4)
    assert both[0, 0] != pytest.approx(both[1, 0], abs=1e-2)


@pytest.mark.parametrize("stored", ["fp16", "fp32"])
def test_a_trained_model_loads_as_it_was_saved(table, paths, tmp_path, stored):
    model = train(table, paths, TrainingSettings(weights=stored))
    model.save(tmp_path / "model")
    loaded = TrainedModel.load(tmp_path / "model")
    assert torch.equal(weights(model), weights(loaded))
    assert loaded.record == model.record
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert size < 8e6 if stored == "fp16" else size > 13e6


def test_a_missing_model_is_a_sentence(tmp_path):
    with pytest.raises(TrainedModelError, match="run notebook 03_train first"):
        TrainedModel.load(tmp_path)


def test_a_record_survives_json(table, paths):
    record = train(table, paths, TrainingSettings()).record
    assert TrainingRecord.from_json(record.to_json()) == record


def test_auto_precision_follows_the_machine(monkeypatch):
    monkeypatch.setattr(precision, "bf16_is_fast", lambda: True)
    assert precision.resolve_precision("auto") == "bf16"
    monkeypatch.setattr(precision, "bf16_is_fast", lambda: False)
    assert precision.resolve_precision("auto") == "fp32"
    assert precision.resolve_precision("bf16") == "bf16"
