"""Parameter types and options that several commands share, and the objects that they name."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from catsdogs_lib.inference.bundle import Bundle
    from catsdogs_lib.pipeline.workspace import Workspace

ANY_PATH = click.Path(path_type=Path, readable=False)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
BUNDLE_HELP = "else $CATSDOGS_BUNDLE, models/bundle, models/reference."

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def port_option(default: int) -> Decorator:
    """Add ``--port``."""
    port = click.IntRange(0, 65535)
    return click.option("--port", default=default, show_default=True, type=port, help="Port; 0 takes a free one.")


def workspace_option(text: str) -> Decorator:
    """Add ``--workspace``, passed as `root`; `text` is its help."""
    return click.option("--workspace", "root", default=".", show_default=True, help=text)


def open_bundle(folder: Path | None) -> "Bundle":
    """Load the bundle in a folder; None takes the one that `BUNDLE_HELP` promises."""
    from catsdogs_lib.inference.bundle import Bundle, locate

    return Bundle.load(locate(folder))


def open_workspace(root: str = ".") -> "Workspace":
    """Open a workspace and connect to its tracking store."""
    from catsdogs_lib.pipeline.workspace import Workspace
    from catsdogs_lib.registry import tracking

    workspace = Workspace.open(root)
    tracking.connect(workspace.tracking_uri, workspace.artifacts)
    return workspace
