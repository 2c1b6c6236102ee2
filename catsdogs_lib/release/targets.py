"""Deployment targets. Each is given an image by its digest, never by a tag, which may move."""

import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.release import engine, verification
from catsdogs_lib.serving.schemas import IMAGE_VARIABLE

COMPOSE_FOLDER = Path("deploy/compose")
OVERLAY = Path("deploy/kubernetes/overlays/production")


class ComposeTarget:
    """The Compose service on this machine.

    Parameters
    ----------
    project
        Root of the project. The image's name goes into ``.env`` beside the compose file, so a restart keeps it.
    key
        API key of the service; "" if it needs none.
    """

    def __init__(self, project: Path, key: str = "") -> None:
        self._key = key
        self._folder = project / COMPOSE_FOLDER
        self._file = self._folder / ".env"
        # A team shares the ledger, but each machine has its own Compose service.
        self.name = f"compose on {platform.node()}"

    def deploy(self, image: str) -> str:
        """Start the service from an image and verify it.

        Raises
        ------
        ReleaseFailedError
            The image fails its smoke tests; the previous one is back in service.
        """
        if not self._folder.is_dir():
            raise CatsdogsError(f"{self._folder} is missing; run this in a checkout of the project")
        # The bundle inside the image is the reference, so that an old release can be verified, too.
        with engine.bundle_of_image(image) as bundle:
            settings, container = self._settings(), self._compose("ps", "--quiet", "service")
            try:
                url, passed = self._start(image, bundle)
            except CatsdogsError as error:
                outcome = self._restore(settings, bool(container))
                raise verification.ReleaseFailedError(f"{image} was not put into service: {error}. {outcome}") from None
        return f"{url} answers from it, {passed} smoke tests passed"

    def _start(self, image: str, bundle: Bundle) -> tuple[str, int]:
        others = [line for line in self._settings() if not line.startswith(f"{IMAGE_VARIABLE}=")]
        self._write([*others, f"{IMAGE_VARIABLE}={image}"])
        self._compose("up", "--detach", "--no-deps", "service", image=image)
        container = self._compose("ps", "--all", "--quiet", "service", image=image)
        return verification.verify(container, bundle, image, self._key)

    def _restore(self, settings: list[str], was_running: bool) -> str:
        self._write(settings)
        image = next((line.partition("=")[2] for line in settings if line.startswith(f"{IMAGE_VARIABLE}=")), "")
        try:
            if image:
                with engine.bundle_of_image(image) as bundle:
                    self._start(image, bundle)
                return f"Taken back: {image} answers again"
            if was_running:
                self._compose("up", "--detach", "--no-deps", "service")
                return "Nothing was released here before: what ran without a release runs again"
            self._compose("stop", "service")
            return "Nothing was released here before: the service is stopped"
        except CatsdogsError as error:
            return f"It could not be taken back to {image or 'nothing'} either: {error}"

    def _settings(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []

    def _write(self, lines: list[str]) -> None:
        with files.replacing(self._file) as partial:
            partial.touch()
            if self._file.exists():
                # The file may hold secrets of other settings.
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
    """The production overlay for Kubernetes: files in git that a cluster follows."""

    name = "kubernetes"

    def __init__(self, project: Path) -> None:
        self._folder = project / OVERLAY
        self._yaml = YAML()
        # Keep quotes and long lines as they are.
        self._yaml.preserve_quotes, self._yaml.width = True, 1000
        self._yaml.indent(mapping=2, sequence=4, offset=2)

    def deploy(self, image: str) -> str:
        """Write the image into the overlay, also as the image that ``/version`` names; applying it is left to you."""
        name, _, digest = image.partition("@")
        try:
            with self._changed("release.yaml") as patch:
                container = patch["spec"]["template"]["spec"]["containers"][0]
                next(entry for entry in container["env"] if entry["name"] == IMAGE_VARIABLE)["value"] = image
            with self._changed("kustomization.yaml") as overlay:
                entry = next(entry for entry in overlay["images"] if entry["name"] == "catsdogs")
                entry.update({"newName": name, "digest": digest})
        except (OSError, YAMLError, StopIteration, LookupError, TypeError):
            raise CatsdogsError(f"{self._folder} does not name an image where expected; restore it from git") from None
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


LAMBDA_INSTRUCTIONS = (
    "Next: scripts/sam deploy --template-file template.yaml --stack-name STACK --resolve-s3"
    " --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND --image-repository ${{image%@*}}"
    " --parameter-overrides ImageUri=$image, with image={image}"
)


class ExternalTarget(NamedTuple):
    """A target that is deployed by other means; this one returns instructions."""

    name: str
    instructions: str

    def deploy(self, image: str) -> str:
        """Return the instructions for an image."""
        return self.instructions.format(image=image)


Target = ComposeTarget | KubernetesTarget | ExternalTarget
"""A place that runs releases: its `name` is that in the ledger, `deploy` says what was done or is left to do."""


def target_named(name: str, project: Path, key: str = "") -> Target:
    """Return the target with a name, as the command line spells it."""
    match name:
        case "compose":
            return ComposeTarget(project, key)
        case "kubernetes":
            return KubernetesTarget(project)
        case "lambda":
            return ExternalTarget(name, LAMBDA_INSTRUCTIONS)
        case _:
            return ExternalTarget(name, "{image} is in its registry, in service nowhere yet")
