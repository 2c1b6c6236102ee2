import re
import subprocess
import sys

import nbformat
import pytest

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.pipeline import execution
from catsdogs_lib.pipeline.execution import NotebookError
from catsdogs_lib.pipeline.workspace import Workspace


def notebook(folder, *cells, title="# A title", parameters="number = 1\nworkspace = ''"):
    """A notebook with a parameters cell and others."""
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    tagged = nbformat.v4.new_code_cell(parameters)
    tagged.metadata["tags"] = ["parameters"]
    book.cells = [nbformat.v4.new_markdown_cell(title), tagged, *map(nbformat.v4.new_code_cell, cells)]
    path = folder / "01_test.ipynb"
    nbformat.write(book, path)
    return path


def test_a_notebook_leaves_an_executed_copy_a_report_and_an_index(tmp_path, capfd):
    path = notebook(tmp_path, "import sys; print('half' + ' way', file=sys.stderr)", "number * 21", title="# Say <it>")
    before = path.read_bytes()
    report = execution.run_notebook(path, {"number": 2}, Workspace(tmp_path))
    assert report == tmp_path / "reports" / "01_test.html"
    text = report.read_text()
    assert "42" in text
    assert "half way" not in text, "progress is no part of a report"
    assert "half way" in capfd.readouterr().err, "progress is shown while it runs"
    assert not re.search(r'(src|href)="https?://', text), "a report needs nothing from elsewhere"
    index = (tmp_path / "reports" / "index.html").read_text()
    assert '<a href="01_test.html">Say &lt;it&gt;</a>' in index
    assert path.read_bytes() == before
    assert sorted(left.name for left in (tmp_path / "reports").iterdir()) == [
        "01_test.html",
        "01_test.ipynb",
        "index.html",
    ]


def test_an_error_of_ours_in_a_cell_is_its_sentence(tmp_path):
    path = notebook(
        tmp_path, "from catsdogs_lib.common.errors import SettingsError", "raise SettingsError('x', 'too small')"
    )
    with pytest.raises(NotebookError, match=r"setting 'x': too small.*01_test.failed.ipynb"):
        execution.run_notebook(path, {}, Workspace(tmp_path))
    assert [left.name for left in (tmp_path / "reports").iterdir()] == ["01_test.failed.ipynb"]


def test_an_error_of_ours_is_known_by_its_base_classes_where_its_module_was_not_imported_here(tmp_path):
    path = notebook(tmp_path, "from catsdogs_lib.common.s3 import ChangedError; raise ChangedError('another was put')")
    with pytest.raises(NotebookError, match=r"notebook 01_test.ipynb: another was put\. The cell is in"):
        execution.run_notebook(path, {}, Workspace(tmp_path))


def test_running_a_notebook_needs_no_torch_no_mlflow_and_no_pandas():
    code = (
        "import sys; from catsdogs_lib.pipeline import execution, graph, parameters, reports; "
        "print({'torch', 'mlflow', 'pandas'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_any_other_error_names_cell_and_error_and_keeps_the_last_report(tmp_path):
    path = notebook(tmp_path, "1 / (number - 1)")
    execution.run_notebook(path, {"number": 2}, Workspace(tmp_path))
    with pytest.raises(NotebookError, match="cell .* failed: ZeroDivisionError"):
        execution.run_notebook(path, {"number": 1}, Workspace(tmp_path))
    assert (tmp_path / "reports" / "01_test.html").exists()
    execution.run_notebook(path, {"number": 3}, Workspace(tmp_path))
    assert not (tmp_path / "reports" / "01_test.failed.ipynb").exists()


def test_a_kernel_that_dies_is_a_sentence(tmp_path):
    with pytest.raises(NotebookError, match="its kernel died"):
        execution.run_notebook(notebook(tmp_path, "import os; os._exit(9)"), {}, Workspace(tmp_path))
    assert not (tmp_path / "reports" / "01_test.ipynb").exists()


def test_a_text_stays_text_where_the_notebook_wants_one(tmp_path):
    path = notebook(tmp_path)
    assert execution.check_parameters(path, {"workspace": "007", "number": "7"}) == {"workspace": "007", "number": 7}


def test_an_unknown_parameter_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(SettingsError, match="'colour'.*it has number, workspace"):
        execution.run_notebook(notebook(tmp_path, "1"), {"colour": 1}, Workspace(tmp_path))
    assert not (tmp_path / "reports").exists()


def test_a_section_gives_what_the_notebook_declares_and_the_command_line_overrides_it(tmp_path):
    declared = "seed = 1\nsource = ''\nworkspace = ''"
    path = notebook(tmp_path, "print(f'{seed} {workspace!r} {source}')", parameters=declared)
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    (tmp_path / "params.yaml").write_text('data: {source: "it\'s \\"my\\" $HOME", seed: 5}\ntrain: {seed: 3}')
    command = [sys.executable, "-m", "catsdogs_lib", "run", path.name, "-p", "workspace", "it's here"]

    def printed(*arguments):
        done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        executed = nbformat.read(tmp_path / "it's here" / "reports" / path.name, as_version=4)
        return executed.cells[-1].outputs[0].text

    assert printed("--section", "data") == """5 "it's here" it's "my" $HOME\n"""
    assert printed("--section", "data", "-p", "seed", "7") == """7 "it's here" it's "my" $HOME\n"""


def test_an_unknown_section_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="'trian'.*it has data, prepare, train, evaluate, package"):
        execution.section_parameters(notebook(tmp_path), tmp_path, ["trian"])


def test_a_file_that_is_no_notebook_is_refused(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text("no notebook")
    with pytest.raises(NotebookError, match=r"x.ipynb: there is no such notebook"):
        execution.check_parameters(path, {})
