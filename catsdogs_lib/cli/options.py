"""Parameter types and options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

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
