"""Trace of a running endpoint to its image, release, registered model, run, data and commits, each one checked."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from catsdogs_lib.client import http, smoke
from catsdogs_lib.common import git
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.release import engine, ledger, verification


class _GapError(CatsdogsError):
    """A step of the trace is missing or contradicts the endpoint."""


def trace_endpoint(url: str, project: Path) -> Iterator[smoke.SmokeCheck]:
    """Trace an endpoint back to its origins.

    Parameters
    ----------
    url
        URL of the endpoint.
    project
        Root of a checkout that holds the commits.

    Yields
    ------
    SmokeCheck
        A step of the trace: its record, or why it does not agree with the endpoint.

    Raises
    ------
    UnreachableError
        There is no endpoint.
    """
    upstream = http.Upstream(url)
    version = verification.fetch_version(upstream)
    yield smoke.SmokeCheck("endpoint", True, f"{upstream.origin} serves bundle {version['model_version']}")
    labels: dict[str, str] = {}
    yield _check("image", _image, version, labels)
    yield _check("built from", _commit, project, labels.get(engine.REVISION_LABEL, "unknown"))
    yield _check("released", _released, version)
    yield _check("registered", _registered, version)
    yield _check("run", _run, version)
    yield _check("data", _data, version)
    yield _check("trained from", _commit, project, str(version["git_commit"]))


def _check(name: str, check: Callable[..., str], *arguments: Any) -> smoke.SmokeCheck:
    try:
        return smoke.SmokeCheck(name, True, check(*arguments))
    except (CatsdogsError, MlflowException) as error:
        # MLflow's messages go on with a stack trace of the server.
        return smoke.SmokeCheck(name, False, str(error).splitlines()[0])


def _image(version: dict[str, Any], labels: dict[str, str]) -> str:
    image = version.get("image")
    if not image:
        raise _GapError("the endpoint does not know its image; whoever starts it names it in CATSDOGS_IMAGE")
    labels.update(engine.image_labels(image))
    pairs = {
        engine.BUNDLE_LABEL: "model_version",
        engine.RUN_LABEL: "mlflow_run",
        engine.DATA_LABEL: "data_sha256",
    }
    for label, field in pairs.items():
        if labels.get(label) != version[field]:
            raise _GapError(f"{image} has the label {label}={labels.get(label)}, the endpoint says {version[field]}")
    return f"{image}, whose labels name the same bundle, run and data"


def _commit(project: Path, commit: str) -> str:
    if commit.endswith("-dirty"):
        raise _GapError(f"{commit[:12]} with uncommitted changes")
    message = git.subject(project, commit)
    if message is None:
        raise _GapError(f"commit {commit[:12]} is not in {project}; fetch it: git fetch --all")
    return f"commit {commit[:12]}, {message}"


def _released(version: dict[str, Any]) -> str:
    entries = ledger.Ledger().entries()
    releases = [entry for entry in entries if entry.release.image == version.get("image")]
    if not releases:
        raise _GapError("the ledger in this tracking store does not name the image; check MLFLOW_TRACKING_URI")
    last = releases[-1]
    stack = ledger.release_stack(entries, last.release.place)
    state = "in service there" if stack and stack[-1].image == last.release.image else f"since then {last.status}"
    return f"{last.when:%Y-%m-%d %H:%M} UTC to {last.release.place}, {state}"


def _registered(version: dict[str, Any]) -> str:
    client = MlflowClient()
    for registered in client.search_model_versions(f"run_id = '{version['mlflow_run']}'"):
        if registered.tags.get("bundle_version") == version["model_version"]:
            aliases = client.get_model_version(registered.name, registered.version).aliases
            return f"{registered.name} version {registered.version}{''.join(f', {alias}' for alias in aliases)}"
    raise _GapError(f"no registered version holds bundle {version['model_version']}; check MLFLOW_TRACKING_URI")


def _run(version: dict[str, Any]) -> str:
    run = MlflowClient().get_run(version["mlflow_run"])
    if run.info.status != "FINISHED":
        raise _GapError(f"run {version['mlflow_run']} ended as {run.info.status}")
    return f"MLflow run {run.info.run_id}, {run.info.run_name}"


def _data(version: dict[str, Any]) -> str:
    logged = MlflowClient().get_run(version["mlflow_run"]).data.params.get("data_hash")
    if logged != version["data_sha256"]:
        raise _GapError(f"the run saw data {logged}, the endpoint says {version['data_sha256']}")
    return f"{logged}, as the run logged it"
