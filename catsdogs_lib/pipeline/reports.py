"""HTML reports of executed notebooks, and the index that links them."""

import html
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter

from catsdogs_lib.common import files
from catsdogs_lib.pipeline.workspace import Workspace


def write_report(executed: Path) -> Path:
    """Convert an executed notebook to one self-contained HTML file, without the progress on stderr."""
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
    """Return the notebook's first heading, or its file name where it has none."""
    book: Any = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    for cell in book.cells:
        line = cell.source.lstrip().partition("\n")[0]
        if cell.cell_type == "markdown" and line.startswith("# "):
            return str(line.removeprefix("# ").strip())
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
    """Log the HTML reports to the candidate's MLflow run."""
    from catsdogs_lib.registry import tracking  # noqa: PLC0415 - takes seconds; only the last notebook needs it

    tracking.connect(workspace.tracking_uri, workspace.artifacts)
    runs = files.read_json(workspace.need(workspace.runs, "03_train"))
    name = runs["candidate"]
    with tracking.run(name, runs["runs"][name]):
        tracking.log_reports(sorted(workspace.reports.glob("0*.html")))
