"""The DVC graph: parameters are written, then ``dvc repro`` runs what has changed."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.data import sources
from catsdogs_lib.pipeline.parameters import set_parameters


def run_graph(root: Path, source: str, values: Mapping[str, Any]) -> int:
    """Write the parameters to params.yaml and run ``dvc repro``.

    Parameters
    ----------
    root
        The project.
    source
        Origin of the photos; see `sources.fetch`.
    values
        Other parameters to set first, by dotted name.

    Returns
    -------
    int
        The exit status of ``dvc repro``.
    """
    for name in ("data.source", "data.state"):
        if name in values:
            raise SettingsError(name, "it follows from the source of the photos; set that with DATA or --data")
    state = sources.fingerprint(source)
    if state and not Path(source).expanduser().is_absolute():
        # Stages run in the project's root, not in the current folder.
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
