"""The ledger of releases, one MLflow run each, which a team shares through its tracking server.

A run that is still open is a release in progress, or one whose command was killed; a failed one was rolled back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple, Self

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from catsdogs_lib.common.errors import CatsdogsError

RELEASES_EXPERIMENT = "catsdogs-releases"
MAX_LEDGER_ENTRIES = 500
"""Number of entries read, newest first."""


class LedgerError(CatsdogsError):
    """The ledger cannot be read or written, or holds no release to go back to."""


class Release(NamedTuple):
    """An image deployed to a target. The fields name tags in the ledger, so they stay.

    Attributes
    ----------
    place
        Name of the target, e.g. ``kubernetes``.
    image
        Name by digest, ``registry/name@sha256:...``.
    bundle
        Version of the bundle inside.
    commit
        Commit that the image was built from.
    model, version
        Name and version in the model registry; empty for a bundle from a folder.
    back
        Whether this was a rollback.
    """

    place: str
    image: str
    bundle: str
    commit: str
    model: str = ""
    version: str = ""
    back: bool = False


class Entry(NamedTuple):
    """A line of the ledger: a release, its start, the status of its run, and the error if it failed."""

    release: Release
    when: datetime
    status: str
    problem: str

    @classmethod
    def from_run(cls, run: Run) -> Self:
        """Read the entry from its MLflow run."""
        tags = run.data.tags
        texts = {name: tags.get(f"release.{name}", "") for name in Release._fields if name != "back"}
        release = Release(**texts, back=tags.get("release.back") == "True")
        when = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
        return cls(release, when, run.info.status, tags.get("release.problem", ""))


class Ledger:
    """The ledger in the connected tracking store; see `catsdogs_lib.registry.tracking.connect`."""

    def __init__(self) -> None:
        self._client = MlflowClient()

    def entries(self) -> list[Entry]:
        """Read the entries, oldest first."""
        with _mlflow_errors("read"):
            experiment = self._client.get_experiment_by_name(RELEASES_EXPERIMENT)
            if experiment is None:
                return []
            order = ["attributes.start_time DESC"]
            runs = self._client.search_runs([experiment.experiment_id], max_results=MAX_LEDGER_ENTRIES, order_by=order)
            return [Entry.from_run(run) for run in reversed(runs)]

    @contextmanager
    def line(self, release: Release) -> Iterator[None]:
        """Record a release around the block that deploys it: open, then finished, or failed with the reason."""
        with _mlflow_errors("written"):
            run_id = self._open(release)
        try:
            yield
        except CatsdogsError as error:
            with _mlflow_errors("written"):
                self._client.set_tag(run_id, "release.problem", str(error))
                self._client.set_terminated(run_id, "FAILED")
            raise
        with _mlflow_errors("written"):
            self._client.set_terminated(run_id, "FINISHED")
            if release.model:
                self._client.set_model_version_tag(release.model, release.version, "image", release.image)

    def _open(self, release: Release) -> str:
        experiment = self._client.get_experiment_by_name(RELEASES_EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(RELEASES_EXPERIMENT)
        tags = {f"release.{name}": str(value) for name, value in release._asdict().items()}
        name = f"{release.bundle} {'back ' if release.back else ''}to {release.place}"
        return str(self._client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)


@contextmanager
def _mlflow_errors(action: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise LedgerError(f"the ledger cannot be {action} ({str(error).splitlines()[0]}); run it again") from None


def release_stack(entries: list[Entry], target_name: str) -> list[Release]:
    """Return the releases of a target as a stack, whose last element is in service.

    A rollback pops one; a failed release was never pushed. An open entry counts only as the newest: its command was
    killed, and its release may be in service.
    """
    here = [entry for entry in entries if entry.release.place == target_name]
    stack: list[Release] = []
    for entry in here:
        if entry.status == "FAILED" or (entry.status != "FINISHED" and entry is not here[-1]):
            continue
        if entry.release.back:
            # A rollback that was killed may not have happened; repeating it must lead to the same release.
            del stack[-1 if entry.status == "FINISHED" else len(stack) :]
        elif not stack or stack[-1].image != entry.release.image:
            stack.append(entry.release)
    return stack


def previous_release(entries: list[Entry], target_name: str) -> Release:
    """Return the release before the one in service.

    Raises
    ------
    LedgerError
        There is none.
    """
    stack = release_stack(entries, target_name)
    if len(stack) < 2:
        history = f"only {stack[0].image} was released" if stack else "nothing was released yet"
        raise LedgerError(f"there is no release to go back to at {target_name}: {history}; see catsdogs release --list")
    return stack[-2]
