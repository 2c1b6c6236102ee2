"""Who is champion, what the gate says, what the card says, and whether the world has changed: on the command line."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from catsdogs_lib.cli.command_line import cli
from catsdogs_lib.common import files
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.pipeline.stages import evaluate, package, train
from catsdogs_lib.registry import models, tracking
from catsdogs_lib.training.settings import TrainingSettings


def catsdogs(*arguments):
    return CliRunner().invoke(cli, [str(part) for part in arguments])


def test_the_champion_itself_is_champion_already(packaged):
    ws, made = packaged
    done = catsdogs("promote", ws.bundle, "--workspace", ws.root)
    assert done.exit_code == 0, done.output
    assert f"{made.registered} version {made.version} is champion already" in done.output


def test_a_bundle_that_is_not_registered_cannot_be_promoted(packaged):
    done = catsdogs("promote", "models/reference", "--workspace", packaged[0].root)
    assert done.exit_code == 2
    assert "is not registered" in done.output


@pytest.mark.slow
def test_a_worse_candidate_becomes_champion_by_force_alone_until_a_better_one_comes(copy, packaged):
    train.train(copy, TrainingSettings(logistic_regression_c=1e-6))  # the penalty presses the head to nothing
    evaluate.evaluate(copy)
    worse = package.package(copy)
    assert worse.verdict.sentence.startswith("Not promoted: ")
    assert worse.registered == packaged[1].registered
    assert str(models.champion(worse.registered).version) == packaged[1].version != worse.version

    refused = catsdogs("promote", copy.bundle, "--workspace", copy.root)
    assert refused.exit_code == 1
    assert "No. Not promoted: " in refused.output
    forced = catsdogs("promote", copy.bundle, "--workspace", copy.root, "--force", "the other one is lost")
    assert forced.exit_code == 0, forced.output
    champion = models.champion(worse.registered)
    assert str(champion.version) == worse.version
    assert "the other one is lost" in json.dumps(champion.tags)

    train.train(copy, TrainingSettings())
    evaluate.evaluate(copy)
    better = package.package(copy)
    assert better.verdict.promoted, better.verdict.sentence
    assert str(models.champion(better.registered).version) == better.version


@pytest.mark.slow
def test_the_champion_is_fetched_with_its_validation_records(copy, packaged):
    tracking.connect(copy.tracking_uri, copy.artifacts)  # what ran before may have left another store
    files.remove(copy.bundle)
    copy.reference.unlink()
    done = catsdogs("champion", "--to", copy.root)
    assert done.exit_code == 0, done.output
    assert Bundle.load(copy.bundle).version == packaged[1].bundle.version
    assert copy.reference.stat().st_size > 1000


@pytest.mark.parametrize("suffix", ["html", "md"])
def test_the_card_says_what_was_measured(tmp_path, suffix):
    target = tmp_path / f"card.{suffix}"
    assert catsdogs("card", "models/reference", "-o", target).exit_code == 0
    text = target.read_text()
    description = Bundle.load(Path("models/reference")).description
    accuracy = description.metrics["accuracy"]
    assert all(f"{value:.4f}" in text for value in (accuracy.value, accuracy.low, accuracy.high))
    for part in ("Intended use", "When it is not sure", "Where it fails"):
        assert part.lower() in text.lower(), part


def test_records_like_those_of_validation_are_no_alarm_and_other_ones_are(packaged, tmp_path):
    ws = packaged[0]
    same = catsdogs("monitor", ws.reference, "--workspace", ws.root)
    assert same.exit_code == 0, same.output
    lines = [json.loads(line) for line in ws.reference.read_text().splitlines()]
    dark = tmp_path / "dark.jsonl"
    dark.write_text(
        "".join(json.dumps({**line, "photo_brightness": line["photo_brightness"] / 3}) + "\n" for line in lines * 3)
    )
    changed = catsdogs("monitor", dark, "--workspace", ws.root)
    assert changed.exit_code == 1, changed.output
    assert re.search(r"✗ +brightness", changed.output)
