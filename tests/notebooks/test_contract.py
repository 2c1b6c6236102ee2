"""The settings classes, params.yaml, the notebooks' parameters and dvc.yaml agree."""

import ast
import re
import runpy
import shlex
from pathlib import Path

import nbformat
import pytest
from ruamel.yaml import YAML

from catsdogs_lib.pipeline.parameters import SECTIONS

ROOT = Path(__file__).parents[2]
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DEFAULTS_BY_HAND = {
    # By hand a notebook runs in about a minute; the graph takes what gives a model worth having.
    ("01_explore", "per_class"): 60,
    ("03_train", "baseline_epochs"): 1,
}
"""Defaults of a notebook that differ from those of its settings class."""
WORKSPACE = 'workspace = ""  # folder of the pipeline; "" is a small drawn sample of its own in build/demo'


def settings_of(section):
    """Name, default and description of each setting."""
    return [(name, field.default, field.description) for name, field in SECTIONS[section].model_fields.items()]


def parameters_cell(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    return next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))


def command_of(stage):
    """The notebook and the section that a stage runs."""
    words = shlex.split(STAGES[stage]["cmd"])
    assert [*words[:2], words[3], *words[5:]] == ["catsdogs", "run", "--section", "-p", "workspace", "."]
    return ROOT / words[2], words[4]


def test_params_yaml_has_the_sections_of_the_settings_classes():
    assert list(YAML(typ="safe").load(ROOT / "params.yaml")) == list(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_params_yaml_has_the_names_defaults_and_descriptions_of_the_settings(section):
    text = (ROOT / "params.yaml").read_text()
    lines = re.search(rf"^{section}:\n((?:  .*\n)+)", text, re.M)[1].splitlines()
    written = [re.fullmatch(r"  (\w+): (.*?) +# (.*)", line).groups() for line in lines]
    parse = YAML(typ="safe").load
    assert [(name, parse(value), comment) for name, value, comment in written] == settings_of(section)


@pytest.mark.parametrize("stage", STAGES)
def test_a_notebook_has_the_names_defaults_and_descriptions_of_the_settings(stage):
    notebook, section = command_of(stage)
    first, *lines = parameters_cell(notebook).splitlines()
    assert first == WORKSPACE
    written = [re.fullmatch(r"(\w+) = (.*?)  # (.*)", line).groups() for line in lines]
    expected = [
        (name, DEFAULTS_BY_HAND.get((notebook.stem, name), default), description)
        for name, default, description in settings_of(section)
    ]
    assert [(name, ast.literal_eval(value), comment) for name, value, comment in written] == expected


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_its_notebook_and_on_its_own_section_alone(stage):
    notebook, section = command_of(stage)
    assert f"notebooks/{notebook.name}" in STAGES[stage]["deps"]
    assert STAGES[stage]["params"] == [section]


def test_every_notebook_but_monitoring_is_a_stage():
    staged = [notebook.stem for notebook in NOTEBOOKS if notebook.stem != "06_monitor"]
    assert staged == [command_of(stage)[0].stem for stage in STAGES]


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


def test_each_figure_of_the_readme_is_shown_by_one_cell():
    pictures = runpy.run_path(str(ROOT / "scripts" / "pictures.py"))
    figures = [figure for rows in pictures["SHEETS"].values() for row in rows for figure in row]
    for notebook, call in figures:
        cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
        assert sum(cell.cell_type == "code" and call in cell.source for cell in cells) == 1, call
