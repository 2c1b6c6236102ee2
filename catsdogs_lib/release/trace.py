"""From a running endpoint back to image, release, registry, run, data and commits; each station is checked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from catsdogs_lib.client.http import Upstream
from catsdogs_lib.client.smoke import SmokeCheck
from catsdogs_lib.common import git
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.release import engine, verification
from catsdogs_lib.release.ledger import Ledger, standing


class _GapError(CatsdogsError):
    """The trace ends here."""


def trace_endpoint(url: str, project: Path) -> Iterator[SmokeCheck]:
    """Walk back from an endpoint.

    Parameters
    ----------
    url
        Where it answers.
    project
        Root of a checkout that holds the commits.

    Yields
    ------
    SmokeCheck
        A station: what was found there, or why it does not fit the others.

    Raises
    ------
    UnreachableError
        There is no endpoint.
    """
    upstream = Upstream(url)
    told = verification.version_of(upstream)
    yield SmokeCheck("endpoint", True, f"{upstream.origin} serves bundle {told['model_version']}")
    labels: dict[str, str] = {}
    yield _station("image", _image, told, labels)
    yield _station("built from", _commit, project, labels.get(engine.REVISION_LABEL, "unknown"))
    yield _station("released", _released, told)
    yield _station("registered", _registered, told)
    yield _station("run", _run, told)
    yield _station("data", _data, told)
    yield _station("trained from", _commit, project, str(told["git_commit"]))


def _station(name: str, look: Any, *arguments: Any) -> SmokeCheck:
    try:
        return SmokeCheck(name, True, look(*arguments))
    except CatsdogsError as error:
        return SmokeCheck(name, False, str(error))
    except MlflowException as error:
        return SmokeCheck(name, False, str(error).splitlines()[0])


def _image(told: dict[str, Any], labels: dict[str, str]) -> str:
    image = told.get("image")
    if not image:
        raise _GapError("the endpoint does not know its image; whoever starts it names it in CATSDOGS_IMAGE")
    labels.update(engine.labels(image))
    pairs = {
        engine.BUNDLE_LABEL: "model_version",
        engine.RUN_LABEL: "mlflow_run",
        engine.DATA_LABEL: "data_sha256",
    }
    for label, field in pairs.items():
        if labels.get(label) != told[field]:
            raise _GapError(f"{image} has the label {label}={labels.get(label)}, the endpoint says {told[field]}")
    return f"{image}, whose labels name the same bundle, run and data"


def _commit(project: Path, commit: str) -> str:
    if commit.endswith("-dirty"):
        raise _GapError(f"{commit[:12]} with changes that nobody committed")
    message = git.subject(project, commit)
    if message is None:
        raise _GapError(f"commit {commit[:12]} is not in {project}; fetch it: git fetch --all")
    return f"commit {commit[:12]}, {message}"


def _released(told: dict[str, Any]) -> str:
    entries = Ledger().entries()
    found = [entry for entry in entries if entry.release.image == told.get("image")]
    if not found:
        raise _GapError("the ledger in this tracking store does not name the image; check MLFLOW_TRACKING_URI")
    last = found[-1]
    stack = standing(entries, last.release.place)
    stands = "in service there" if stack and stack[-1].image == last.release.image else f"since then {last.status}"
    return f"{last.when:%Y-%m-%d %H:%M} UTC to {last.release.place}, {stands}"


def _registered(told: dict[str, Any]) -> str:
    client = MlflowClient()
    for version in client.search_model_versions(f"run_id = '{told['mlflow_run']}'"):
        if version.tags.get("bundle_version") == told["model_version"]:
            aliases = client.get_model_version(version.name, version.version).aliases
            return f"{version.name} version {version.version}{''.join(f', {alias}' for alias in aliases)}"
    raise _GapError(f"no registered version holds bundle {told['model_version']}; check MLFLOW_TRACKING_URI")


def _run(told: dict[str, Any]) -> str:
    run = MlflowClient().get_run(told["mlflow_run"])
    if run.info.status != "FINISHED":
        raise _GapError(f"run {told['mlflow_run']} ended as {run.info.status}")
    return f"MLflow run {run.info.run_id}, {run.info.run_name}"


def _data(told: dict[str, Any]) -> str:
    logged = MlflowClient().get_run(told["mlflow_run"]).data.params.get("data_hash")
    if logged != told["data_sha256"]:
        raise _GapError(f"the run saw data {logged}, the endpoint says {told['data_sha256']}")
    return f"{logged}, as the run logged it"
