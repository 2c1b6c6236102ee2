"""Notebooks run by papermill: parameters checked, progress shown, HTML reports with an index."""

import html
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError, SettingsError
from catsdogs_lib.data import sources
from catsdogs_lib.data.manifest import PrepareSettings
from catsdogs_lib.inference.bundle import DESCRIPTION_FILE
from catsdogs_lib.pipeline.workspace import Workspace, project_root
from catsdogs_lib.training.settings import TrainingSettings

PARAMETERS_FILE = "params.yaml"


class NotebookError(CatsdogsError):
    """A notebook cannot be run, or failed.

    Parameters
    ----------
    notebook
        Its file.
    problem
        What happened, for people.
    """

    def __init__(self, notebook: Path, problem: str) -> None:
        super().__init__(f"notebook {notebook.name}: {problem}")
        self.notebook, self.problem = notebook, problem


def check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hold parameters to the notebook's own: papermill itself only warns of an unknown name.

    Returns
    -------
    dict
        The parameters; a text stays text where the notebook's default is one (a folder may be called 007),
        elsewhere it is read as a number or truth value.

    Raises
    ------
    NotebookError
        There is no such notebook, or it has no cell tagged ``parameters``.
    SettingsError
        The notebook does not know a name.
    """
    try:
        known = papermill.inspect_notebook(str(notebook))
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.validator.NotebookValidationError):
        raise NotebookError(
            notebook, "there is no such notebook, or it cannot be read; name one of notebooks/"
        ) from None
    for name in parameters:
        if name not in known:
            raise SettingsError(name, f"{notebook.name} has no such parameter; it has {', '.join(known)}")
    return {
        name: parse_value(value) if isinstance(value, str) and known[name]["default"][:1] not in "'\"" else value
        for name, value in parameters.items()
    }


def run_notebook(notebook: Path, parameters: Mapping[str, Any], workspace: Workspace) -> Path:
    """Execute a notebook and leave its executed copy and HTML in the workspace's reports.

    Parameters
    ----------
    notebook
        Never changed itself.
    parameters
        Put after the cell tagged ``parameters``.
    workspace
        Whose `reports` are written. A failed notebook leaves ``NAME.failed.ipynb`` there, to look into.

    Returns
    -------
    Path
        The HTML report.

    Raises
    ------
    NotebookError
        A cell failed; a mistake that a person can mend shows as the sentence that says how.
    """
    checked = check_parameters(notebook, parameters)
    begun = time.time()
    executed = workspace.reports / notebook.name
    failed = executed.with_suffix(".failed.ipynb")
    files.sweep(workspace.reports)
    try:
        with files.replacing(executed) as partial:
            _execute(notebook, partial, checked, failed)
    except PapermillExecutionError as error:
        raise NotebookError(notebook, _sentence(error, failed)) from None
    except DeadKernelError:
        raise NotebookError(notebook, "its kernel died, perhaps for want of memory; close other programs") from None
    failed.unlink(missing_ok=True)
    report = write_report(executed)
    write_index(workspace.reports)
    description = workspace.bundle / DESCRIPTION_FILE
    if description.exists() and description.stat().st_mtime >= begun:
        # The notebook that ends with a bundle is the last one: the run gets all that led to it.
        log_reports(workspace)
    return report


def _execute(notebook: Path, output: Path, parameters: dict[str, Any], failed: Path) -> None:
    terminal = sys.stderr.isatty()
    try:
        with warnings.catch_warnings():
            # papermill still asks the interpreter for things that Python deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            papermill.execute_notebook(
                str(notebook),
                str(output),
                parameters=parameters,
                cwd=str(project_root(notebook.parent)),
                kernel_name="python3",
                progress_bar=terminal,
                # Its advice on transports, and its own traceback after Ctrl-C, are for nobody here.
                extra_arguments=["--log-level=50"],
                # What a cell says on stderr is progress: shown now, and left out of the report.
                stderr_file=sys.stderr,
            )
    except PapermillExecutionError:
        if output.exists():
            output.replace(failed)
        raise


def _sentence(error: PapermillExecutionError, failed: Path) -> str:
    own = error.ename in _own_errors()
    said = error.evalue if own else f"cell {error.exec_count} failed: {error.ename}: {error.evalue}"
    return f"{said.rstrip('.')}. The cell is in {os.path.relpath(failed)}"


def _own_errors() -> set[str]:
    found, left = set(), [CatsdogsError]
    while left:
        one = left.pop()
        found.add(one.__name__)
        left += one.__subclasses__()
    return found


def write_report(executed: Path) -> Path:
    """Convert an executed notebook to one HTML file that needs nothing from elsewhere.

    Progress (stderr) is left out, and so are the parameters that were overridden: a report says what was done.
    """
    book: Any = nbformat.read(executed, as_version=4)  # type: ignore[no-untyped-call]
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)  # type: ignore[no-untyped-call]
    exporter.mathjax_url = exporter.require_js_url = exporter.mermaid_js_url = ""
    body, _ = exporter.from_notebook_node(book, resources={"metadata": {"name": title_of(executed)}})
    report = executed.with_suffix(".html")
    files.write_text(report, body)
    return report


def title_of(notebook: Path) -> str:
    """The first heading of a notebook, without its mark; its name where there is none."""
    book: Any = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    for cell in book.cells:
        first = cell.source.lstrip().splitlines()[:1]
        if cell.cell_type == "markdown" and first and first[0].startswith("# "):
            return str(first[0].removeprefix("# ").strip())
    return notebook.stem


def write_index(reports: Path) -> Path:
    """Write ``index.html``, which links every report."""
    rows = []
    for report in sorted(reports.glob("*.html")):
        executed = report.with_suffix(".ipynb")
        if executed.exists():
            when = datetime.fromtimestamp(executed.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC")
            link = f'<a href="{html.escape(report.name)}">{html.escape(title_of(executed))}</a>'
            rows.append(f"<li>{link}<small>{html.escape(executed.stem)}, {when}</small></li>")
    template = resources.files("catsdogs_lib.pipeline").joinpath("index.html").read_text()
    index = reports / "index.html"
    files.write_text(index, template.replace("<!--rows-->", "\n".join(rows)))
    return index


def log_reports(workspace: Workspace) -> None:
    """Keep the HTML reports in the candidate's MLflow run."""
    from catsdogs_lib.registry import tracking  # noqa: PLC0415 - takes seconds, and only the last notebook needs it

    tracking.connect(workspace.tracking_uri, workspace.artifacts)
    runs = files.read_json(workspace.need(workspace.runs, "03_train"))
    name = runs["candidate"]
    with tracking.run(name, runs["runs"][name]):
        tracking.log_reports(sorted(workspace.reports.glob("0*.html")))


def check_settings(document: Mapping[str, Any]) -> None:
    """Hold the content of `PARAMETERS_FILE` to the settings that its sections stand for.

    Raises
    ------
    SettingsError
        Names the first value that cannot be used.
    """
    for name, least in (("per_class", 1), ("seed", 0)):
        value = document["data"][name]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise SettingsError(f"data.{name}", f"{value!r} is not right; use a whole number, {least} or more")
    if "'" in document["data"]["source"] + document["prepare"]["exclusions"] + document["train"]["model"]:
        raise SettingsError("data.source", "an apostrophe in a path or name cannot be passed on; rename it")
    PrepareSettings(**document["prepare"])
    epochs = document["train"]["baseline_epochs"]
    if not isinstance(epochs, int) or epochs < 0:
        raise SettingsError("train.baseline_epochs", f"{epochs!r} is not right; use a whole number, 0 for no baseline")
    training_settings(document)
    int8 = document["package"]["int8"]
    if not isinstance(int8, bool):
        raise SettingsError("package.int8", f"{int8!r} is not right; use true or false")


def training_settings(document: Mapping[str, Any]) -> TrainingSettings:
    """The candidate's settings in the content of `PARAMETERS_FILE`; raises `SettingsError`."""
    return TrainingSettings.checked(
        **{name: value for name, value in document["train"].items() if name != "baseline_epochs"}
    )


def parse_value(text: str) -> Any:
    """Read a value as YAML would: ``3`` is a number, ``true`` a truth value, anything else text."""
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError:
        return text
    return value if isinstance(value, bool | int | float) else text


def set_parameters(root: Path, values: Mapping[str, Any]) -> None:
    """Write values into `PARAMETERS_FILE`, keeping its comments; the file is touched only if one differs.

    Parameters
    ----------
    root
        The project.
    values
        By dotted name, e.g. ``{"data.source": "sample"}``.

    Raises
    ------
    SettingsError
        The file has no such name.
    """
    path = root / PARAMETERS_FILE
    yaml = YAML()
    yaml.preserve_quotes = True
    try:
        document = yaml.load(path)
    except (OSError, YAMLError) as error:
        raise CatsdogsError(f"{path} cannot be read ({str(error).splitlines()[0]}); restore it from git") from None
    before = files.digest(document)
    for name, value in values.items():
        *above, last = name.split(".")
        part = document
        for key in above:
            part = part.get(key) if isinstance(part, dict) else None
        if not isinstance(part, dict) or last not in part or isinstance(part[last], dict):
            raise SettingsError(name, f"{PARAMETERS_FILE} has no such parameter")
        part[last] = value
    check_settings(document)
    if files.digest(document) != before:
        with files.replacing(path) as partial, partial.open("w", encoding="utf-8") as stream:
            yaml.dump(document, stream)


def run_graph(root: Path, source: str, values: Mapping[str, Any]) -> int:
    """Run the whole graph on `source`: parameters into `PARAMETERS_FILE`, then ``dvc repro``.

    Parameters
    ----------
    root
        The project.
    source
        Where photos come from; see `sources.fetch`.
    values
        Other parameters to set first, by dotted name.

    Returns
    -------
    int
        The exit status of ``dvc repro``.
    """
    for name in ("data.source", "data.state"):
        if name in values:
            raise SettingsError(name, "it follows from where the photos come from; name that with DATA or --data")
    state = sources.fingerprint(source)
    if state and not Path(source).expanduser().is_absolute():
        # Stages run in the project's root, wherever we are.
        source = os.path.relpath(Path(source).resolve(), root)
    set_parameters(root, {"data.source": source, "data.state": state, **values})
    bin_folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}",
        "DVC_NO_ANALYTICS": "1",
    }
    command = [sys.executable, "-m", "dvc", "repro"]
    return subprocess.run(command, cwd=root, env=environment, check=False).returncode  # noqa: S603
