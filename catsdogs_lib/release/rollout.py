"""Releases and rollbacks: build an image from a champion and a commit, verify it, push it, deploy it, record it."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.git import git_commit
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.registry import models
from catsdogs_lib.release import engine, ledger, verification
from catsdogs_lib.release.targets import Target
from catsdogs_lib.serving.model import Model

Reporter = Callable[[str], None]


class NoChampionError(CatsdogsError):
    """The registry has no champion to release, or more than one."""


class UncommittedError(CatsdogsError):
    """The project has uncommitted changes or is no checkout, so the release could not be traced."""


class Candidate(NamedTuple):
    """A bundle to release, with its name and version in the model registry (empty for a bundle from a folder)."""

    bundle: Bundle
    model: str = ""
    version: str = ""


@contextmanager
def fetched_champion(name: str | None) -> Iterator[Candidate]:
    """Download the champion's bundle, for the duration of the block.

    Parameters
    ----------
    name
        Registered model; None takes the only one that has a champion.

    Raises
    ------
    NoChampionError
        There is no champion, or there are several and `name` is None.
    """
    name = name or _only_champion()
    version = models.champion(name)
    if version is None:
        raise NoChampionError(f"the registry has no champion of {name}; run 'make pipeline', whose gate names one")
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = models.champion_bundle(version, Path(folder))
        except (MlflowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise NoChampionError(
                f"the bundle of {name} version {version.version} cannot be fetched ({reason}); see whether its run "
                f"{version.run_id} still has its artifacts"
            ) from None
        yield Candidate(bundle, name, str(version.version))


def _only_champion() -> str:
    try:
        registered = MlflowClient().search_registered_models()
    except MlflowException as error:
        raise NoChampionError(f"the registry cannot be read ({str(error).splitlines()[0]}); run it again") from None
    names = [model.name for model in registered if models.CHAMPION in model.aliases]
    if not names:
        raise NoChampionError("the registry has no champion; run 'make pipeline', or name a bundle with --bundle")
    if len(names) > 1:
        raise NoChampionError(f"the registry has several champions, {', '.join(names)}; name one with --model")
    return str(names[0])


def release(
    project: Path, candidate: Candidate, registry: str, base_image: str, target: Target, report: Reporter
) -> ledger.Release:
    """Build an image, verify it, push it, deploy it, and record it in the ledger.

    Parameters
    ----------
    project
        Root of a clean checkout, whose commit is built.
    candidate
        Bundle to release.
    registry
        Repository that the image is pushed to, e.g. ``127.0.0.1:5001/catsdogs``.
    base_image
        Base image of the build.
    target
        Deployment target.
    report
        Called with a sentence after each step.

    Returns
    -------
    Release
        The release that is now in service.

    Raises
    ------
    ReleaseFailedError
        The image fails its smoke tests. Nothing changes if it does so before the push; afterwards the previous
        release is back in service.
    """
    commit = _commit(project)
    bundle = candidate.bundle
    report(f"bundle {bundle.version}{f', {candidate.model} version {candidate.version}' if candidate.model else ''}")
    Model.load(bundle.folder)
    engine.require_engine()
    tag = f"{registry}:{bundle.version}-{commit[:12]}"
    try:
        engine.build_image(project, commit, bundle, base_image, tag)
        with engine.running_container(tag) as container:
            _, passed = verification.verify(container, bundle)
        report(f"built {tag}, {passed} smoke tests passed")
        pushed = engine.push_image(tag)
    except CatsdogsError:
        # Without its tag, nobody pushes an unverified image by hand.
        engine.remove_tag(tag)
        raise
    report(f"pushed {pushed.new_layers} of {pushed.layers} layers, the registry had the others")
    released = ledger.Release(target.name, pushed.image, bundle.version, commit, candidate.model, candidate.version)
    with ledger.Ledger().line(released):
        report(target.deploy(released.image))
    return released


def _commit(project: Path) -> str:
    commit = git_commit(project)
    if commit == "unknown":
        raise UncommittedError(
            f"{project} is not a git checkout; a release is built from a commit, so clone the project"
        )
    if commit.endswith("-dirty"):
        raise UncommittedError(f"files in {project} differ from commit {commit[:12]}; commit or stash them first")
    return commit


def roll_back(target: Target, report: Reporter) -> ledger.Release:
    """Deploy the previous release again.

    Raises
    ------
    LedgerError
        There is no previous release.
    ReleaseFailedError
        It fails its smoke tests; the current release stays in service.
    """
    book = ledger.Ledger()
    previous = ledger.previous_release(book.entries(), target.name)._replace(back=True)
    report(f"back to bundle {previous.bundle}, commit {previous.commit[:12]}")
    with book.line(previous):
        report(target.deploy(previous.image))
    return previous
