"""A release: a champion and a commit become an image that is proven, pushed, put in service, and written down."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.git import git_commit
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.registry import models
from catsdogs_lib.release import engine, ledger, verification
from catsdogs_lib.release.ledger import Ledger, Release
from catsdogs_lib.release.targets import Target
from catsdogs_lib.serving.model import Model

Say = Callable[[str], None]


class NoChampionError(CatsdogsError):
    """The registry has no champion to release, or more than one."""


class UncommittedError(CatsdogsError):
    """What would be released is no commit, so nobody could trace it."""


class Candidate(NamedTuple):
    """What is to be released: a bundle, and its name and number in the registry (empty for a folder)."""

    bundle: Bundle
    model: str = ""
    version: str = ""


@contextmanager
def champion(name: str | None) -> Iterator[Candidate]:
    """Fetch the champion's bundle for the time of a block.

    Parameters
    ----------
    name
        In the registry; None takes the only one that has a champion.

    Raises
    ------
    NoChampionError
        There is none, or several and no name.
    """
    name = name or _only_champion()
    version = models.champion(name)
    if version is None:
        raise NoChampionError(f"the registry has no champion of {name}; run 'make pipeline', whose gate names one")
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = models.champion_bundle(version, Path(folder))
        except (MlflowException, OSError) as error:
            first = str(error).splitlines()[0]
            raise NoChampionError(
                f"the bundle of {name} version {version.version} cannot be fetched ({first}); see whether its run "
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


def release(project: Path, candidate: Candidate, registry: str, base_image: str, place: Target, say: Say) -> Release:
    """Build, prove, push, put in service, write down.

    Parameters
    ----------
    project
        Root of a checkout without changes; what is built is its commit.
    candidate
        What answers.
    registry
        Name of the repository that the image is pushed to, e.g. ``127.0.0.1:5001/catsdogs``.
    base_image
        What the image is built on.
    place
        Where it goes.
    say
        Is told of each step.

    Returns
    -------
    Release
        What is in service now.

    Raises
    ------
    ReleaseFailedError
        It does not answer as its bundle says. Before the push nothing is changed; afterwards what was in service
        before is so again.
    """
    commit = _commit(project)
    bundle = candidate.bundle
    say(f"bundle {bundle.version}{f', {candidate.model} version {candidate.version}' if candidate.model else ''}")
    Model.load(bundle.folder)
    engine.require_engine()
    tag = f"{registry}:{bundle.version}-{commit[:12]}"
    try:
        engine.build(project, commit, bundle, base_image, tag)
        with engine.running(tag) as container:
            _, passed = verification.verify(container, bundle)
        say(f"built {tag}, {passed} smoke tests passed")
        pushed = engine.push(tag)
    except CatsdogsError:
        # Nobody shall push by hand what has not proven itself.
        engine.forget(tag)
        raise
    say(f"pushed {pushed.new_layers} of {pushed.layers} layers, the registry had the others")
    found = Release(place.name, pushed.image, bundle.version, commit, candidate.model, candidate.version)
    with Ledger().line(found):
        say(place.put(found.image))
    return found


def _commit(project: Path) -> str:
    commit = git_commit(project)
    if commit == "unknown":
        raise UncommittedError(f"{project} is no git checkout; a release is built from a commit, clone the project")
    if commit.endswith("-dirty"):
        raise UncommittedError(f"files in {project} differ from commit {commit[:12]}; commit or stash them first")
    return commit


def back(place: Target, say: Say) -> Release:
    """Put the release before in service again.

    Raises
    ------
    LedgerError
        There is none before.
    ReleaseFailedError
        It does not answer as its bundle says; the one in service stays.
    """
    book = Ledger()
    earlier = ledger.before(book.entries(), place.name)
    found = replace(earlier, back=True)
    say(f"back to bundle {found.bundle}, commit {found.commit[:12]}")
    with book.line(found):
        say(place.put(found.image))
    return found
