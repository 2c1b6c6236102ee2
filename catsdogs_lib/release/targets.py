"""Where releases go. Each place is named by its content, never by a tag that may move."""

import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.release import engine, verification
from catsdogs_lib.release.verification import ReleaseFailedError
from catsdogs_lib.serving.schemas import IMAGE_VARIABLE

COMPOSE = Path("deploy/compose")
OVERLAY = Path("deploy/kubernetes/overlays/production")


class Target(Protocol):
    """Somewhere a release goes."""

    @property
    def name(self) -> str:
        """What the ledger calls it."""

    def put(self, image: str) -> str:
        """Put an image there; says what was done, or what is left to do.

        Raises
        ------
        ReleaseFailedError
            It does not answer as its bundle says; what was there before is there again.
        """


class ComposeTarget:
    """The service that Compose runs on this machine.

    Parameters
    ----------
    project
        Root of the project. The image's name goes into ``.env`` beside the compose file, where it outlives a restart.
    key
        That the service wants to be named; "" where it wants none.
    """

    def __init__(self, project: Path, key: str = "") -> None:
        self._key = key
        self._folder = project / COMPOSE
        self._file = self._folder / ".env"
        # Everybody has their own, though they share a ledger.
        self.name = f"compose on {platform.node()}"

    def put(self, image: str) -> str:
        """Start the service from an image, and ask it; on a wrong answer the image before comes back."""
        if not self._folder.is_dir():
            raise CatsdogsError(f"{self._folder} is missing; run this in a checkout of the project")
        # What the image holds is what it should answer with: for a release of long ago, too.
        with engine.bundle_of(image) as bundle:
            kept, ran = self._lines(), self._compose("ps", "--quiet", "service")
            try:
                url, passed = self._prove(image, bundle)
            except CatsdogsError as error:
                back = self._take_back(kept, bool(ran))
                raise ReleaseFailedError(f"{image} is not fit for service: {error}. {back}") from None
        return f"{url} answers from it, {passed} smoke tests passed"

    def _prove(self, image: str, bundle: Bundle) -> tuple[str, int]:
        others = [line for line in self._lines() if not line.startswith(f"{IMAGE_VARIABLE}=")]
        self._write([*others, f"{IMAGE_VARIABLE}={image}"])
        self._compose("up", "--detach", "--no-deps", "service", image=image)
        container = self._compose("ps", "--all", "--quiet", "service", image=image)
        return verification.verify(container, bundle, image, self._key)

    def _take_back(self, kept: list[str], ran: bool) -> str:
        self._write(kept)
        image = next((line.partition("=")[2] for line in kept if line.startswith(f"{IMAGE_VARIABLE}=")), "")
        try:
            if image:
                with engine.bundle_of(image) as bundle:
                    self._prove(image, bundle)
                return f"Taken back: {image} answers again"
            if ran:
                self._compose("up", "--detach", "--no-deps", "service")
                return "Nothing was released here before: what ran without a release runs again"
            self._compose("stop", "service")
            return "Nothing was released here before: the service is stopped"
        except CatsdogsError as error:
            return f"It could not be taken back to {image or 'nothing'} either: {error}"

    def _lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []

    def _write(self, lines: list[str]) -> None:
        with files.replacing(self._file) as partial:
            partial.touch()
            if self._file.exists():
                # Others may keep here what not everybody should read.
                shutil.copymode(self._file, partial)
            partial.write_text("".join(f"{line}\n" for line in lines))

    def _compose(self, *arguments: str, image: str = "") -> str:
        return engine.docker(
            "compose",
            *arguments,
            folder=self._folder,
            settings={IMAGE_VARIABLE: image} if image else None,
            failing="Compose does not do it; see docker compose logs service",
        )


class KubernetesTarget:
    """The production overlay for Kubernetes: files in git that a cluster is told to follow."""

    name = "kubernetes"

    def __init__(self, project: Path) -> None:
        self._folder = project / OVERLAY
        self._yaml = YAML()
        # Written as it was: no other quotes, no line folded.
        self._yaml.preserve_quotes, self._yaml.width = True, 1000
        self._yaml.indent(mapping=2, sequence=4, offset=2)

    def put(self, image: str) -> str:
        """Write the image into the overlay, and into what ``/version`` says; the cluster is another's to command."""
        name, _, digest = image.partition("@")
        try:
            with self._changed("release.yaml") as patch:
                container = patch["spec"]["template"]["spec"]["containers"][0]
                next(one for one in container["env"] if one["name"] == IMAGE_VARIABLE)["value"] = image
            with self._changed("kustomization.yaml") as overlay:
                entry = next(one for one in overlay["images"] if one["name"] == "catsdogs")
                entry.update({"newName": name, "digest": digest})
        except (OSError, YAMLError, StopIteration, LookupError, TypeError):
            raise CatsdogsError(f"{self._folder} has no place for an image; restore it from git") from None
        rollout = "kubectl -n catsdogs rollout"
        return (
            f"{OVERLAY} names it; commit that. Next: kubectl apply -k {OVERLAY} && "
            f"{rollout} status deployment/catsdogs --timeout 5m || {rollout} undo deployment/catsdogs"
        )

    @contextmanager
    def _changed(self, name: str) -> Iterator[Any]:
        document = self._yaml.load(self._folder / name)
        yield document
        with files.replacing(self._folder / name) as partial, partial.open("w", encoding="utf-8") as stream:
            self._yaml.dump(document, stream)


LAMBDA = (
    "Next: scripts/sam deploy --template-file template.yaml --stack-name STACK --resolve-s3"
    " --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND --image-repository ${{image%@*}}"
    " --parameter-overrides ImageUri=$image, with image={image}"
)


@dataclass(frozen=True)
class ExternalTarget:
    """Somewhere that others put it: here it is only said how."""

    name: str
    how: str

    def put(self, image: str) -> str:
        """Say what to do."""
        return self.how.format(image=image)


def target_named(name: str, project: Path, key: str = "") -> Target:
    """Find a place by the name that the command line has for it."""
    match name:
        case "compose":
            return ComposeTarget(project, key)
        case "kubernetes":
            return KubernetesTarget(project)
        case "lambda":
            return ExternalTarget(name, LAMBDA)
        case _:
            return ExternalTarget(name, "{image} is in its registry, in service nowhere yet")
