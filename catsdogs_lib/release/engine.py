"""The Docker engine, through its command line: build, run, push, look into images."""

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
from catsdogs_lib.inference.bundle import DESCRIPTION_FILE, GRAPH_FILE, Bundle

PLATFORM = "linux/amd64"
REVISION_LABEL = "org.opencontainers.image.revision"
BUNDLE_LABEL = "catsdogs.bundle"
RUN_LABEL = "catsdogs.mlflow-run"
DATA_LABEL = "catsdogs.data"
INSIDE = "/opt/bundle"
"""Where an image holds its bundle."""
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
"""How an image is tried: as strictly as any place will run it."""
PORT = 8000


class EngineError(CatsdogsError):
    """The Docker engine, or a registry that it talks to, does not do what it was asked."""


class Pushed(NamedTuple):
    """What a push left: the name by content, and how many layers of how many the registry did not have yet."""

    image: str
    new_layers: int
    layers: int


def require_engine() -> None:
    """See that an engine answers.

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
        After the word docker.
    failing
        What it means when it fails, and what to do; docker's last line goes in the middle.
    stdin
        Given to it.
    folder
        Where it runs.
    settings
        Put into its environment.

    Returns
    -------
    str
        What it prints.

    Raises
    ------
    EngineError
        It is not installed, or failed.
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
        what, semicolon, remedy = failing.partition("; ")
        raise EngineError(f"{what} ({_last_line(done.stderr)}){semicolon}{remedy}")
    return done.stdout.decode(errors="replace").strip()


def _last_line(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    # After a failed step docker quotes the Dockerfile; the line with the error comes before or after that.
    wrong = [line for line in lines if line.startswith(("ERROR", "Error", "error"))]
    return (wrong or lines or ["no word"])[-1][:300]


def build(project: Path, commit: str, bundle: Bundle, base_image: str, tag: str) -> None:
    """Build the image of a commit with a bundle; what else lies in the project's folder does not matter.

    Raises
    ------
    EngineError
        It cannot be built.
    """
    # The commit as a stream, the bundle among its files: nothing is staged on disk, nothing left behind.
    added = [f"--add-file={(bundle.folder / name).resolve()}" for name in (DESCRIPTION_FILE, GRAPH_FILE)]
    archive = ["git", "-C", str(project), "archive", "--prefix=models/bundle/", *added, "--prefix=", commit]
    context = subprocess.run(archive, capture_output=True, check=True).stdout  # noqa: S603
    description = bundle.description
    labels = {
        BUNDLE_LABEL: bundle.version,
        RUN_LABEL: description.mlflow_run,
        DATA_LABEL: description.data.sha256,
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
        # Lambda takes plain images only, without a list of attestations around them.
        settings={"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
        failing="the image cannot be built; see docker's message, or build it alone: make image",
    )


def push(tag: str) -> Pushed:
    """Push an image.

    Raises
    ------
    EngineError
        The registry cannot be reached, or does not want it.
    """
    name = tag.rpartition(":")[0]
    said = docker(
        "push",
        tag,
        failing=f"{name} does not take the image; see that the registry runs (make registry starts one "
        "here), that its name is right, and that docker login was done",
    )
    found = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
    if found is None:
        raise EngineError(f"docker pushed {tag} and named no digest; push it by hand and see what it says")
    layers = [line.rpartition(": ")[2] for line in said.splitlines()]
    new, known = layers.count("Pushed"), sum(line.startswith(("Layer already", "Mounted")) for line in layers)
    return Pushed(f"{name}@{found[1]}", new, new + known)


def forget(tag: str) -> None:
    """Take a name away from an image here; it may be gone already."""
    with contextlib.suppress(EngineError):
        docker("image", "rm", tag, failing="")


@contextlib.contextmanager
def running(image: str) -> Iterator[str]:
    """Run an image's server for the time of a block, with nothing to write on; gives the container's id."""
    one = docker(
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
        yield one
    finally:
        docker("rm", "--force", one, failing=f"container {one[:12]} cannot be removed; remove it by hand")


def address(container: str) -> str:
    """Where the server in a container answers."""
    try:
        at = docker("port", container, str(PORT), failing="nothing listens there; see docker logs").split()[0]
    except (EngineError, IndexError):
        raise EngineError(f"the container ended as soon as it began: {last_words(container)}") from None
    return f"http://{at.replace('0.0.0.0', '127.0.0.1')}"  # noqa: S104 - what listens everywhere is asked here


def alive(container: str) -> bool:
    """Whether a container runs, and has done so since it began."""
    seen = "{{.State.Running}} {{.RestartCount}}"
    state = docker("inspect", "--format", seen, container, failing="the container is gone; see docker ps --all")
    return state == "true 0"


def last_words(container: str) -> str:
    """The last line that a container printed."""
    command = ["docker", "logs", "--tail", "1", container]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)  # noqa: S603
    return _last_line(done.stdout)


def labels(image: str) -> dict[str, str]:
    """Read an image's labels; what is not here is pulled.

    Raises
    ------
    EngineError
        There is no such image, or no way to it.
    """
    _fetch(image)
    found = docker("image", "inspect", "--format", "{{json .Config.Labels}}", image, failing=f"{image} cannot be read")
    return json.loads(found) or {}


@contextlib.contextmanager
def bundle_of(image: str) -> Iterator[Bundle]:
    """Take the bundle out of an image, for the time of a block; what is not here is pulled."""
    _fetch(image)
    one = docker("create", image, failing=f"{image} cannot be opened; see docker's message")
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "bundle")
            docker(
                "cp", f"{one}:{INSIDE}", str(place), failing=f"{image} holds no bundle in {INSIDE}; is it one of ours?"
            )
            yield Bundle.load(place)
    finally:
        docker("rm", one, failing=f"container {one[:12]} cannot be removed; remove it by hand")


def _fetch(image: str) -> None:
    try:
        docker("image", "inspect", image, failing="")
    except EngineError:
        require_engine()
        docker(
            "pull", "--quiet", image, failing=f"{image} cannot be pulled; see that its registry runs and lets you in"
        )
