"""dvc.yaml, the notebooks' parameters and the settings' fields are held to each other."""

import dataclasses
import re
import shlex
from pathlib import Path

import nbformat
import papermill
import pytest
from ruamel.yaml import YAML

from catsdogs_lib.data.manifest import PrepareSettings
from catsdogs_lib.training.settings import TrainingSettings

ROOT = Path(__file__).parents[2]
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
PARAMETERS = YAML(typ="safe").load(ROOT / "params.yaml")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def passed(stage):
    """Names and templates that a stage passes, and its notebook."""
    words = shlex.split(STAGES[stage]["cmd"])
    assert words[:2] == ["catsdogs", "run"]
    names, values = words[4::3], words[5::3]
    assert set(words[3::3]) == {"-p"}
    return ROOT / words[2], dict(zip(names, values, strict=True))


def inspected(notebook):
    return papermill.inspect_notebook(str(notebook))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_passes_exactly_the_notebooks_parameters(stage):
    notebook, given = passed(stage)
    assert set(given) == set(inspected(notebook))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_its_notebook_and_passes_what_params_yaml_holds(stage):
    notebook, given = passed(stage)
    assert f"notebooks/{notebook.name}" in STAGES[stage]["deps"]
    for name, value in given.items():
        if name == "workspace":
            assert value == "."
            continue
        section, key = re.fullmatch(r"\$\{(\w+)\.(\w+)\}", value).groups()
        assert key == name
        assert key in PARAMETERS[section]


def test_every_notebook_but_monitoring_is_a_stage():
    staged = [notebook.stem for notebook in NOTEBOOKS if notebook.stem != "06_monitor"]
    assert staged == [passed(stage)[0].stem for stage in STAGES]


def test_params_yaml_holds_exactly_the_settings_fields():
    assert set(PARAMETERS["train"]) == {*TrainingSettings.model_fields, "baseline_epochs"}
    assert set(PARAMETERS["prepare"]) == {field.name for field in dataclasses.fields(PrepareSettings)}


def test_defaults_agree_everywhere():
    settings = TrainingSettings().model_dump()
    values = {k: v for k, v in PARAMETERS["train"].items() if k != "baseline_epochs"}
    assert values == settings
    own = inspected(ROOT / "notebooks" / "03_train.ipynb")
    for name, value in settings.items():
        default = own[name]["default"]
        assert default.strip("\"'") == str(value) or float(default) == value
    assert PARAMETERS["prepare"] == dataclasses.asdict(PrepareSettings())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean(path):
    book = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "strip the outputs"
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert max(len(cell.source.splitlines()) for cell in code) <= 25
    assert book.cells[0].source.startswith("# "), "a title says its purpose"
    assert "assert " in code[-1].source, "the last cell checks"
    assert book.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in book.cells}) == len(book.cells)
