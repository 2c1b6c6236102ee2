from pathlib import Path

import pytest
from ruamel.yaml import YAML

from catsdogs_lib.common.errors import CatsdogsError, SettingsError
from catsdogs_lib.pipeline import parameters


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("2e-4", 2e-4),
        ("true", True),
        ("", ""),
        ("a b", "a b"),
        ("null", "null"),
        ("[1]", "[1]"),
        ("a: [", "a: ["),
    ],
)
def test_values_are_read_as_numbers_truth_or_text(text, value):
    parsed = parameters.parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.fixture
def project(tmp_path):
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    return tmp_path


def test_parameters_are_written_and_comments_stay(project):
    before = (project / "params.yaml").read_text()
    parameters.set_parameters(project, {"train.epochs": 5, "data.source": "my photos"})
    after = (project / "params.yaml").read_text()
    value = YAML(typ="safe").load(after)
    assert (value["train"]["epochs"], value["data"]["source"]) == (5, "my photos")
    assert after.count("#") == before.count("#")


def test_the_file_is_not_touched_when_nothing_differs(project):
    path = project / "params.yaml"
    before = path.stat().st_mtime_ns, path.stat().st_ino
    parameters.set_parameters(project, {"data.source": YAML(typ="safe").load(path)["data"]["source"]})
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.per_class", 0),
        ("data.seed", "x"),
        ("data.source", "it's"),
        ("package.int8", "yes"),
        ("train.epochs", 0),
        ("train.baseline_epochs", -1),
        ("prepare.validation", 2),
        ("train", 1),
        ("train.none", 1),
        ("train.model.deep", 1),
    ],
)
def test_a_bad_parameter_leaves_the_file_as_it_was(project, name, value):
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(SettingsError):
        parameters.set_parameters(project, {name: value})
    assert (project / "params.yaml").read_bytes() == before


def test_a_broken_parameters_file_is_a_sentence(project):
    (project / "params.yaml").write_text("a: [")
    with pytest.raises(CatsdogsError, match="restore it from git"):
        parameters.set_parameters(project, {})
