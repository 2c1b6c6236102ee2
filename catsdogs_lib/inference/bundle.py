"""The bundle: a folder that training produces and serving loads, with the graph and its description.

`model.onnx` is the graph, `model.json` the description. Loading rejects files that are truncated, altered
or of another schema version, so that the model in service is the one that was evaluated.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from catsdogs_lib.common import errors, files
from catsdogs_lib.inference.description import GRAPH_FILE, MAX_GRAPH_BYTES, SCHEMA_VERSION, Description
from catsdogs_lib.inference.external_data import has_external_data

DESCRIPTION_FILE = "model.json"
ENVIRONMENT_VARIABLE = "CATSDOGS_BUNDLE"
DEFAULT_FOLDERS = (Path("models/bundle"), Path("models/reference"))
MAX_DESCRIPTION_BYTES = 16 * 2**20
"""Largest description; the golden pictures of the reference bundle take 180 kB."""


class BundleError(errors.CatsdogsError):
    """A bundle cannot be used."""


class BundleMissingError(BundleError):
    """The folder, or one of its two files, is missing."""


class BundleCorruptError(BundleError):
    """A file of the bundle is truncated or altered."""


class BundleVersionError(BundleError):
    """The bundle has a schema version that this release does not read."""

    def __init__(self, folder: Path, schema_version: Any) -> None:
        super().__init__(
            f"bundle {folder}: {DESCRIPTION_FILE} has schema version {str(schema_version)[:20]}, "
            f"this release reads {SCHEMA_VERSION}; package the model again with this release"
        )
        self.schema_version = schema_version


@dataclass(frozen=True)
class Bundle:
    """A loaded and verified bundle.

    Attributes
    ----------
    folder
        Folder of the two files.
    description
        The content of ``model.json``.
    """

    folder: Path
    description: Description

    @property
    def graph_file(self) -> Path:
        """Path of ``model.onnx``, which was verified when the bundle was loaded."""
        return self.folder / self.description.graph.file

    @property
    def graph(self) -> bytes:
        """The bytes of ``model.onnx``, read each time: a service does not need them once its session exists."""
        return self.graph_file.read_bytes()

    @property
    def version(self) -> str:
        """Version of the model and its description: 12 hexadecimal digits of the digest."""
        return self.description.digest[:12]

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read and verify a bundle.

        Raises
        ------
        BundleMissingError
            The folder or one of its two files is missing.
        BundleVersionError
            The bundle has another schema version.
        BundleCorruptError
            A file is truncated or altered, the description is invalid, or the graph keeps weights in another file.
        """
        try:
            description = _parse(folder, _read(folder, DESCRIPTION_FILE, MAX_DESCRIPTION_BYTES))
            graph = _read(folder, description.graph.file, MAX_GRAPH_BYTES)
        except OSError as error:
            # An error of the device, unlike one on opening a file, does not name the file.
            name = Path(error.filename).name if error.filename else "a file"
            raise BundleMissingError(
                f"bundle {folder}: {name} cannot be read ({error.strerror}); name a folder with {DESCRIPTION_FILE} and "
                f"{GRAPH_FILE}"
            ) from None
        _verify(folder, description, graph)
        return cls(folder, description)

    @classmethod
    def write(cls, folder: Path, description: Description, graph: bytes) -> "Bundle":
        """Write both files atomically, with the description's digest filled in.

        Raises
        ------
        BundleCorruptError
            The two do not match, or are not a valid bundle; `folder` is left unchanged.
        """
        text = description.sealed().model_dump_json(indent=2) + "\n"
        _verify(folder, _parse(folder, text.encode()), graph)
        with files.replacing(folder) as partial:
            partial.mkdir()
            files.write_bytes(partial / GRAPH_FILE, graph)
            files.write_text(partial / DESCRIPTION_FILE, text)
        return cls.load(folder)


def locate(folder: Path | None = None) -> Path:
    """Find the bundle to load: `folder`, else ``CATSDOGS_BUNDLE``, else the first of `DEFAULT_FOLDERS` that exists.

    Raises
    ------
    BundleMissingError
        None of `DEFAULT_FOLDERS` exists.
    """
    if folder is not None:
        return folder
    if named := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(named)
    for candidate in DEFAULT_FOLDERS:
        if (candidate / DESCRIPTION_FILE).is_file():
            return candidate
    folders = " or ".join(str(default) for default in DEFAULT_FOLDERS)
    raise BundleMissingError(
        f"no bundle in {folders}; run 'make pipeline' to train one, or name one with --bundle or {ENVIRONMENT_VARIABLE}"
    )


def _read(folder: Path, name: str, max_bytes: int) -> bytes:
    # Checked before opening, since opening a named pipe would block.
    status = (folder / name).stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
        raise BundleCorruptError(
            f"bundle {folder}: {name} is not a file of at most {max_bytes >> 20} MiB; copy the bundle again"
        )
    return (folder / name).read_bytes()


def _parse(folder: Path, raw: bytes) -> Description:
    try:
        value = files.parse_json(raw)
    except ValueError:
        raise BundleCorruptError(
            f"bundle {folder}: {DESCRIPTION_FILE} is not JSON, perhaps cut short; copy the bundle again"
        ) from None
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleVersionError(folder, version if isinstance(version, (int, str)) else None)
    try:
        return Description.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        # An unexpected field may have any name.
        field = ascii(".".join(str(part) for part in first["loc"]))[1:-1][:80]
        location = f"field {field} of {DESCRIPTION_FILE}" if field else DESCRIPTION_FILE
        message = first["msg"].removeprefix("Value error, ")
        raise BundleCorruptError(f"bundle {folder}: {location}: {message}; copy the bundle again") from None


def _verify(folder: Path, description: Description, graph: bytes) -> None:
    """Check what the description says about itself and about the graph."""
    if description.content_digest() != description.digest:
        raise BundleCorruptError(f"bundle {folder}: {DESCRIPTION_FILE} was altered; copy the bundle again")
    if not description.golden:
        raise BundleCorruptError(f"bundle {folder}: {DESCRIPTION_FILE} has no golden answer; package the model again")
    if len(graph) != description.graph.bytes:
        raise BundleCorruptError(
            f"bundle {folder}: {GRAPH_FILE} has {len(graph)} bytes, {description.graph.bytes} expected; "
            "copy the bundle again"
        )
    if (sha256 := files.sha256_bytes(graph)) != description.graph.sha256:
        raise BundleCorruptError(
            f"bundle {folder}: {GRAPH_FILE} was altered (SHA-256 {sha256[:12]}..., "
            f"{description.graph.sha256[:12]}... expected); copy the bundle again"
        )
    if has_external_data(graph):
        raise BundleCorruptError(
            f"bundle {folder}: {GRAPH_FILE} keeps weights in another file, which its SHA-256 does not cover; "
            "package the model again as one file"
        )
