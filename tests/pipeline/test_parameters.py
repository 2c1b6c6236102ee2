import shutil
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
    parameters.set_parameters(project, {"train.epochs": 5, "data.source": "it's my photos"})
    after = (project / "params.yaml").read_text()
    value = YAML(typ="safe").load(after)
    assert (value["train"]["epochs"], value["data"]["source"]) == (5, "it's my photos")
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
        ("data.source", ""),
        ("evaluate.others", 3),
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


@pytest.fixture
def earlier_project(tmp_path):
    """A project with a params.yaml from before settings were renamed, in which a person changed some."""
    shutil.copy(Path(__file__).with_name("params_with_earlier_names.yaml"), tmp_path / "params.yaml")
    return tmp_path


def test_earlier_names_are_read(earlier_project, capsys):
    settings = parameters.read_parameters(earlier_project, "train")
    names = ("logistic_regression_c", "ema_decay", "weight_interpolation")
    assert [settings[name] for name in names] == [0.1, 0.9, 0.5]
    assert settings.keys() == parameters.SECTIONS["train"].model_fields.keys()
    assert capsys.readouterr().err == ""


def test_earlier_names_are_replaced_when_parameters_are_set(earlier_project, capsys):
    lines = (earlier_project / "params.yaml").read_text().splitlines()
    parameters.set_parameters(earlier_project, {})
    assert capsys.readouterr().err == (
        "settings of params.yaml renamed: averaging is now ema_decay, blend is now weight_interpolation, "
        "head_c is now logistic_regression_c\n"
    )
    written = (earlier_project / "params.yaml").read_text().splitlines()
    changed = [(before.split(), after.split()) for before, after in zip(lines, written, strict=True) if before != after]
    assert [(before[0], after[0]) for before, after in changed] == [
        ("averaging:", "ema_decay:"),
        ("blend:", "weight_interpolation:"),
        ("head_c:", "logistic_regression_c:"),
    ]
    assert all(before[1:] == after[1:] for before, after in changed), "values and comments stay"
    parameters.set_parameters(earlier_project, {})
    assert capsys.readouterr().err == ""


def test_a_setting_can_be_set_by_its_earlier_name(earlier_project):
    parameters.set_parameters(earlier_project, {"train.head_c": 0.2})
    assert parameters.read_parameters(earlier_project, "train")["logistic_regression_c"] == 0.2
    assert "head_c" not in (earlier_project / "params.yaml").read_text()


def test_both_names_of_a_setting_at_once_are_refused(earlier_project):
    (earlier_project / "params.yaml").write_text("train: {head_c: 0.1, logistic_regression_c: 0.2}")
    with pytest.raises(SettingsError, match="'train.head_c': there is no such setting"):
        parameters.set_parameters(earlier_project, {})


def test_a_setting_that_the_file_lacks_has_its_default_and_can_be_set(project):
    (project / "params.yaml").write_text("train:\n  epochs: 5  # as before\n")
    settings = parameters.read_parameters(project, "train")
    assert settings == {**parameters.SECTIONS["train"]().model_dump(), "epochs": 5}
    assert parameters.read_parameters(project, "package") == {"int8": False}
    parameters.set_parameters(project, {"train.jitter": 0.1, "package.int8": True})
    assert (project / "params.yaml").read_text() == (
        "train:\n  epochs: 5  # as before\n  jitter: 0.1\npackage:\n  int8: true\n"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [("train: 3", "'train'.*is a section"), ("train: {epocs: 3}", "'train.epocs': there is no such setting")],
)
def test_a_file_of_another_shape_is_refused(project, text, problem):
    (project / "params.yaml").write_text(text)
    with pytest.raises(SettingsError, match=problem):
        parameters.read_parameters(project, "train")


def test_sections_of_others_are_left_alone(project):
    with (project / "params.yaml").open("a") as stream:
        stream.write("mine:\n  anything: [1, 2]\n")
    parameters.set_parameters(project, {"train.epochs": 5})
    assert (project / "params.yaml").read_text().endswith("mine:\n  anything: [1, 2]\n")


@pytest.mark.parametrize("text", ["a: [", "", "- data"])
def test_a_broken_parameters_file_is_a_sentence(project, text):
    (project / "params.yaml").write_text(text)
    with pytest.raises(CatsdogsError, match="restore it from git"):
        parameters.set_parameters(project, {})
