"""Papermill execution of a notebook: parameters checked, progress shown, errors as sentences."""

import os
import re
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

import catsdogs_lib
from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError, SettingsError
from catsdogs_lib.inference.bundle import DESCRIPTION_FILE
from catsdogs_lib.pipeline import reports
from catsdogs_lib.pipeline.parameters import parse_value, read_parameters
from catsdogs_lib.pipeline.workspace import Workspace, project_root


class NotebookError(CatsdogsError):
    """A notebook cannot be run, or one of its cells failed.

    Parameters
    ----------
    notebook
        The notebook's file.
    problem
        What happened, in a sentence.
    """

    def __init__(self, notebook: Path, problem: str) -> None:
        super().__init__(f"notebook {notebook.name}: {problem}")
        self.notebook, self.problem = notebook, problem


def check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters against the cell tagged ``parameters``: papermill itself only warns of an unknown name.

    Returns
    -------
    dict
        The parameters. A string stays a string where the notebook's default is one (a folder may be called 007);
        elsewhere it is parsed as a number or truth value.

    Raises
    ------
    NotebookError
        The file is missing or isn't a notebook.
    SettingsError
        The notebook does not declare a name.
    """
    declared = _declared_parameters(notebook)
    for name in parameters:
        if name not in declared:
            raise SettingsError(name, f"{notebook.name} has no such parameter; it has {', '.join(declared)}")
    return {
        name: parse_value(value) if isinstance(value, str) and declared[name]["default"][:1] not in "'\"" else value
        for name, value in parameters.items()
    }


def section_parameters(notebook: Path, root: Path, sections: Sequence[str]) -> dict[str, Any]:
    """Read the parameters that a notebook declares from sections of a project's params.yaml; see `read_parameters`."""
    declared = _declared_parameters(notebook)
    values = {name: value for section in sections for name, value in read_parameters(root, section).items()}
    return {name: value for name, value in values.items() if name in declared}


def run_notebook(notebook: Path, parameters: Mapping[str, Any], workspace: Workspace) -> Path:
    """Execute a notebook; write the executed copy and its HTML report to the workspace.

    Parameters
    ----------
    notebook
        The file; it is never changed.
    parameters
        Injected after the cell tagged ``parameters``.
    workspace
        Receives the reports. A notebook that fails leaves ``NAME.failed.ipynb`` there for inspection.

    Returns
    -------
    Path
        The HTML report.

    Raises
    ------
    NotebookError
        A cell failed. For a `CatsdogsError` the message is that error's own sentence.
    """
    checked = check_parameters(notebook, parameters)
    started = time.time()
    executed = workspace.reports / notebook.name
    failed = executed.with_suffix(".failed.ipynb")
    files.sweep(workspace.reports)
    try:
        with files.replacing(executed) as partial:
            _execute(notebook, partial, checked, failed)
    except PapermillExecutionError as error:
        raise NotebookError(notebook, _sentence(error, failed)) from None
    except DeadKernelError:
        raise NotebookError(notebook, "its kernel died, perhaps because memory ran out; close other programs") from None
    failed.unlink(missing_ok=True)
    report = reports.write_report(executed)
    reports.write_index(workspace.reports)
    description = workspace.bundle / DESCRIPTION_FILE
    if description.exists() and description.stat().st_mtime >= started:
        # The notebook that writes the bundle is the last one: its MLflow run gets every report.
        reports.log_reports(workspace)
    return report


def _declared_parameters(notebook: Path) -> dict[str, Any]:
    try:
        return dict(papermill.inspect_notebook(str(notebook)))
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.validator.NotebookValidationError):
        raise NotebookError(
            notebook, "there is no such notebook, or it cannot be read; name one of notebooks/"
        ) from None


def _execute(notebook: Path, output: Path, parameters: dict[str, Any], failed: Path) -> None:
    try:
        with warnings.catch_warnings():
            # papermill uses interfaces that Python has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            papermill.execute_notebook(
                str(notebook),
                str(output),
                parameters=parameters,
                cwd=str(project_root(notebook.parent)),
                kernel_name="python3",
                progress_bar=sys.stderr.isatty(),
                # Hides the kernel's advice on transports and its traceback after Ctrl-C.
                extra_arguments=["--log-level=50"],
                # A cell's stderr is progress: shown now, left out of the report.
                stderr_file=sys.stderr,
            )
    except PapermillExecutionError:
        if output.exists():
            output.replace(failed)
        raise


def _sentence(error: PapermillExecutionError, failed: Path) -> str:
    own = error.ename in _own_error_names()
    message = error.evalue if own else f"cell {error.exec_count} failed: {error.ename}: {error.evalue}"
    return f"{message.rstrip('.')}. The cell is in {os.path.relpath(failed)}"


def _own_error_names() -> set[str]:
    """Names of all subclasses of `CatsdogsError`, read from the sources: importing them would import torch."""
    sources = Path(catsdogs_lib.__file__).parent.rglob("*.py")
    classes = [pair for source in sources for pair in re.findall(r"^class (\w+)\((\w+)\):", source.read_text(), re.M)]
    names, size = {CatsdogsError.__name__}, 0
    while len(names) > size:
        size = len(names)
        names |= {name for name, base in classes if base in names}
    return names
