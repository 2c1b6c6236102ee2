"""The Docker engine, through its command line: build, run, push and inspect images."""

import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.inference.bundle import DESCRIPTION_FILE, Bundle
from catsdogs_lib.inference.description import GRAPH_FILE

PLATFORM = "linux/amd64"
REVISION_LABEL = "org.opencontainers.image.revision"
BUNDLE_LABEL = "catsdogs.bundle"
RUN_LABEL = "catsdogs.mlflow-run"
DATA_LABEL = "catsdogs.data"
BUNDLE_FOLDER = "/opt/bundle"
"""Folder of the bundle inside an image."""
HARDENED_OPTIONS = (
    "--read-only",
    "--tmpfs",
    "/tmp",  # noqa: S108 - the container's own
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--memory",
    "1769m",
)
"""Options of a trial run, at least as strict as those of any target."""
PORT = 8000


class EngineError(CatsdogsError):
    """Docker, or a registry that it talks to, refused a command."""


class PushedImage(NamedTuple):
    """A pushed image: its name by digest, the layers that were uploaded, and all of its layers."""

    image: str
    new_layers: int
    layers: int


def require_engine() -> None:
    """Check that an engine answers.

    Raises
    ------
    EngineError
        Docker is not installed, or no engine runs.
    """
    docker("version", "--format", "{{.Server.Version}}", failing="no Docker engine answers; start Docker")


def docker(
    *arguments: str,
    failing: str,
    stdin: bytes | None = None,
    folder: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> str:
    """Run docker.

    Parameters
    ----------
    *arguments
        Arguments of ``docker``.
    failing
        Error sentence, "problem; remedy"; docker's last line is inserted after the problem.
    stdin
        Standard input.
    folder
        Working directory.
    settings
        Environment variables to add.

    Returns
    -------
    str
        Standard output, stripped.

    Raises
    ------
    EngineError
        Docker is not installed, or the command failed.
    """
    try:
        done = subprocess.run(  # noqa: S603
            ["docker", *arguments],  # noqa: S607
            input=stdin,
            capture_output=True,
            check=False,
            cwd=folder,
            env={**os.environ, **(settings or {})},
        )
    except FileNotFoundError:
        raise EngineError("docker is not installed; a release builds an image and needs it") from None
    if done.returncode:
        problem, semicolon, remedy = failing.partition("; ")
        raise EngineError(f"{problem} ({_last_line(done.stderr)}){semicolon}{remedy}")
    return done.stdout.decode(errors="replace").strip()


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    # After a failed step docker quotes the Dockerfile, before or after the line with the error.
    errors = [line for line in lines if line.startswith(("ERROR", "Error", "error"))]
    return (errors or lines or ["no word"])[-1][:300]


def build_image(project: Path, commit: str, bundle: Bundle, base_image: str, tag: str) -> None:
    """Build the image of a commit with a bundle; uncommitted files in the project are ignored.

    Raises
    ------
    EngineError
        The image cannot be built.
    """
    # The commit and the bundle are streamed to docker as one archive; nothing is staged on disk.
    added = [f"--add-file={(bundle.folder / name).resolve()}" for name in (DESCRIPTION_FILE, GRAPH_FILE)]
    archive = ["git", "-C", str(project), "archive", "--prefix=models/bundle/", *added, "--prefix=", commit]
    context = subprocess.run(archive, capture_output=True, check=True).stdout  # noqa: S603
    labels = {
        BUNDLE_LABEL: bundle.version,
        RUN_LABEL: bundle.description.mlflow_run,
        DATA_LABEL: bundle.description.data.sha256,
    }
    docker(
        "build",
        "--quiet",
        "--platform",
        PLATFORM,
        "--file",
        "Dockerfile.lambda",
        "--tag",
        tag,
        "--build-arg",
        f"BASE_IMAGE={base_image}",
        "--build-arg",
        "BUNDLE=models/bundle",
        "--build-arg",
        f"REVISION={commit}",
        *(part for name, value in labels.items() for part in ("--label", f"{name}={value}")),
        "-",
        stdin=context,
        # Lambda accepts plain images only, no index with attestations.
        settings={"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
        failing="the image cannot be built; see docker's message, or build it alone: make image",
    )


def push_image(tag: str) -> PushedImage:
    """Push an image.

    Raises
    ------
    EngineError
        The registry cannot be reached, or refuses it.
    """
    name = tag.rpartition(":")[0]
    output = docker(
        "push",
        tag,
        failing=f"{name} does not take the image; see that the registry runs (make registry starts one "
        "here), that its name is right, and that docker login was done",
    )
    digest = re.search(r"digest: (sha256:[0-9a-f]{64})", output)
    if digest is None:
        raise EngineError(f"docker pushed {tag} and named no digest; push it by hand and see what it says")
    layers = [line.rpartition(": ")[2] for line in output.splitlines()]
    new, known = layers.count("Pushed"), sum(line.startswith(("Layer already", "Mounted")) for line in layers)
    return PushedImage(f"{name}@{digest[1]}", new, new + known)


def remove_tag(tag: str) -> None:
    """Remove a tag from the local images, if it is there."""
    with contextlib.suppress(EngineError):
        docker("image", "rm", tag, failing="")


@contextlib.contextmanager
def running_container(image: str) -> Iterator[str]:
    """Run an image's server, read-only, for the duration of the block; yield the id of the container."""
    container = docker(
        "run",
        "--detach",
        *HARDENED_OPTIONS,
        "--publish",
        f"127.0.0.1::{PORT}",
        "--entrypoint",
        "python",
        image,
        "-m",
        "catsdogs_lib",
        "serve",
        "--host",
        "0.0.0.0",  # noqa: S104 - inside the container
        "--port",
        str(PORT),
        failing="the image cannot be started; see docker's message",
    )
    try:
        yield container
    finally:
        docker("rm", "--force", container, failing=_not_removed(container))


def container_url(container: str) -> str:
    """Return the URL of the server in a container."""
    try:
        address = docker("port", container, str(PORT), failing="nothing listens there; see docker logs").split()[0]
    except (EngineError, IndexError):
        raise EngineError(f"the container ended at once: {last_log_line(container)}") from None
    return f"http://{address.replace('0.0.0.0', '127.0.0.1')}"  # noqa: S104 - listens on every address, asked on one


def runs_since_start(container: str) -> bool:
    """Tell whether a container runs and has never restarted."""
    fields = "{{.State.Running}} {{.RestartCount}}"
    state = docker("inspect", "--format", fields, container, failing="the container is gone; see docker ps --all")
    return state == "true 0"


def last_log_line(container: str) -> str:
    """Return the last line that a container printed."""
    command = ["docker", "logs", "--tail", "1", container]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)  # noqa: S603
    return _last_line(done.stdout)


def image_labels(image: str) -> dict[str, str]:
    """Read the labels of an image, pulling it if necessary.

    Raises
    ------
    EngineError
        The image does not exist, or cannot be pulled.
    """
    _ensure_local(image)
    labels = docker("image", "inspect", "--format", "{{json .Config.Labels}}", image, failing=f"{image} cannot be read")
    return json.loads(labels) or {}


@contextlib.contextmanager
def bundle_of_image(image: str) -> Iterator[Bundle]:
    """Copy the bundle out of an image, for the duration of the block, pulling the image if necessary."""
    _ensure_local(image)
    container = docker("create", image, failing=f"{image} cannot be opened; see docker's message")
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "bundle")
            missing = f"{image} holds no bundle in {BUNDLE_FOLDER}; is it one of ours?"
            docker("cp", f"{container}:{BUNDLE_FOLDER}", str(copy), failing=missing)
            yield Bundle.load(copy)
    finally:
        docker("rm", container, failing=_not_removed(container))


def _not_removed(container: str) -> str:
    return f"container {container[:12]} cannot be removed; remove it by hand"


def _ensure_local(image: str) -> None:
    try:
        docker("image", "inspect", image, failing="")
    except EngineError:
        require_engine()
        docker(
            "pull", "--quiet", image, failing=f"{image} cannot be pulled; see that its registry runs and lets you in"
        )
