"""The ledger of releases: one MLflow run each, so that a team shares it through the tracking server.

A run that is still open is a release under way, or one whose command was killed; a failed one was taken back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Self

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from catsdogs_lib.common.errors import CatsdogsError

EXPERIMENT = "catsdogs-releases"
MAX_LEDGER_ENTRIES = 500
"""So many of the newest entries are read."""


class LedgerError(CatsdogsError):
    """The ledger says that something cannot be done, or cannot be read."""


@dataclass(frozen=True)
class Release:
    """What was put where.

    Attributes
    ----------
    place
        Where, e.g. ``kubernetes``.
    image
        Name by content, ``registry/name@sha256:...``.
    bundle
        Version of the bundle inside.
    commit
        What the image was built from.
    model, version
        Name and number in the registry; empty for a bundle that came from a folder.
    back
        Whether this went back to an earlier release.
    """

    place: str
    image: str
    bundle: str
    commit: str
    model: str = ""
    version: str = ""
    back: bool = False


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: a release, when it began, how it stands, and what went wrong."""

    release: Release
    when: datetime
    status: str
    problem: str

    @classmethod
    def of(cls, run: Run) -> Self:
        """Read one from its run."""
        tags = run.data.tags
        texts = {field.name: tags.get(f"release.{field.name}", "") for field in fields(Release) if field.name != "back"}
        release = Release(**texts, back=tags.get("release.back") == "True")
        when = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
        return cls(release, when, run.info.status, tags.get("release.problem", ""))


class Ledger:
    """The ledger in the tracking store that is set; see `catsdogs_lib.registry.tracking.connect`."""

    def __init__(self) -> None:
        self._client = MlflowClient()

    def entries(self) -> list[Entry]:
        """All lines, the oldest first."""
        with _in_a_sentence("read"):
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                return []
            order = ["attributes.start_time DESC"]
            found = self._client.search_runs([experiment.experiment_id], max_results=MAX_LEDGER_ENTRIES, order_by=order)
            return [Entry.of(run) for run in reversed(found)]

    @contextmanager
    def line(self, release: Release) -> Iterator[None]:
        """Write a line for the time of a block: open, then done, or failed with its reason."""
        with _in_a_sentence("written"):
            run_id = self._open(release)
        try:
            yield
        except CatsdogsError as error:
            with _in_a_sentence("written"):
                self._client.set_tag(run_id, "release.problem", str(error))
                self._client.set_terminated(run_id, "FAILED")
            raise
        with _in_a_sentence("written"):
            self._client.set_terminated(run_id, "FINISHED")
            if release.model:
                self._client.set_model_version_tag(release.model, release.version, "image", release.image)

    def _open(self, release: Release) -> str:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        number = experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT)
        tags = {f"release.{name}": str(value) for name, value in asdict(release).items()}
        name = f"{release.bundle} {'back ' if release.back else ''}to {release.place}"
        return str(self._client.create_run(number, tags=tags, run_name=name).info.run_id)


@contextmanager
def _in_a_sentence(done: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise LedgerError(f"the ledger cannot be {done} ({str(error).splitlines()[0]}); run it again") from None


def standing(entries: list[Entry], place: str) -> list[Release]:
    """The releases of a place as they lie on each other; the last one is in service.

    Going back takes one off. What failed never lay there. An open line counts only as the newest: its command was
    killed, and what it released may be in service.
    """
    here = [entry for entry in entries if entry.release.place == place]
    stack: list[Release] = []
    for entry in here:
        if entry.status == "FAILED" or (entry.status != "FINISHED" and entry is not here[-1]):
            continue
        if entry.release.back:
            # One that was killed on its way back has not arrived for sure: going back again leads to the same.
            del stack[-1 if entry.status == "FINISHED" else len(stack) :]
        elif not stack or stack[-1].image != entry.release.image:
            stack.append(entry.release)
    return stack


def before(entries: list[Entry], place: str) -> Release:
    """The release before the one in service.

    Raises
    ------
    LedgerError
        There is none.
    """
    stack = standing(entries, place)
    if len(stack) < 2:
        held = f"only {stack[0].image} was released" if stack else "nothing was released yet"
        raise LedgerError(f"there is no release to go back to at {place}: {held}; see catsdogs release --list")
    return stack[-2]
