"""The parameters in params.yaml: read, checked and set."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError, SettingsError
from catsdogs_lib.common.settings import Settings
from catsdogs_lib.data.settings import PrepareSettings, SourceSettings
from catsdogs_lib.training.settings import RENAMED, TrainingSettings

PARAMETERS_FILE = "params.yaml"


class CandidateSettings(TrainingSettings):
    """Settings of the candidate, and the epochs of the baseline that is trained beside it."""

    baseline_epochs: int = Field(3, ge=0, description="epochs of the CNN from scratch; 0: no baseline")

    @property
    def candidate(self) -> TrainingSettings:
        """The candidate's settings alone."""
        return TrainingSettings(**self.model_dump(exclude={"baseline_epochs"}))


class EvaluateSettings(Settings):
    """Settings of the evaluation."""

    section: ClassVar[str] = "evaluate"

    others: str = Field("", description="folder of photos of other things, to test doubt on beside drawn pictures")


class PackageSettings(Settings):
    """Settings of the bundle."""

    section: ClassVar[str] = "package"

    int8: bool = Field(False, description="quantize the graph: a quarter of the bytes, faster where the CPU has VNNI")


SECTIONS: dict[str, type[Settings]] = {
    settings.section: settings
    for settings in (SourceSettings, PrepareSettings, CandidateSettings, EvaluateSettings, PackageSettings)
}
"""The settings class of each section of `PARAMETERS_FILE`."""


def read_parameters(root: Path, section: str) -> dict[str, Any]:
    """Read a section of a project's `PARAMETERS_FILE`; a setting that it lacks has its default.

    Raises
    ------
    SettingsError
        There is no such section, or a value cannot be used.
    """
    if section not in SECTIONS:
        raise SettingsError(section, f"{PARAMETERS_FILE} has no such section; it has {', '.join(SECTIONS)}")
    document = _load(root / PARAMETERS_FILE)
    return SECTIONS[section].checked(**document.get(section, {})).model_dump()


def parse_value(text: str) -> Any:
    """Parse a value as YAML would: ``3`` is a number, ``true`` a truth value, anything else text."""
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError:
        return text
    return value if isinstance(value, bool | int | float) else text


def set_parameters(root: Path, values: Mapping[str, Any]) -> None:
    """Write values into `PARAMETERS_FILE`, keeping its comments; the file is touched only if one differs.

    Settings that have been renamed since get their new names; one line on stderr lists them.

    Parameters
    ----------
    root
        The project.
    values
        By dotted name, e.g. ``{"data.source": "sample"}``.

    Raises
    ------
    SettingsError
        There is no such setting, or a value cannot be used.
    """
    path = root / PARAMETERS_FILE
    yaml = YAML()
    yaml.preserve_quotes = True
    document = _load(path, yaml)
    before = files.digest(document)
    _rename(document.get(TrainingSettings.section, {}))
    for name, value in values.items():
        section, _, setting = name.partition(".")
        if section == TrainingSettings.section:
            setting = RENAMED.get(setting, setting)
        if section not in SECTIONS or setting not in SECTIONS[section].model_fields:
            raise SettingsError(name, f"{PARAMETERS_FILE} has no such parameter")
        document.setdefault(section, {})[setting] = value
    for section, settings in SECTIONS.items():
        settings.checked(**document.get(section, {}))
    if files.digest(document) != before:
        with files.replacing(path) as partial, partial.open("w", encoding="utf-8") as stream:
            yaml.dump(document, stream)


def _rename(train: Any) -> None:
    renamed = {}
    for position, earlier in enumerate(list(train)):
        name = RENAMED.get(earlier)
        if name and name not in train:
            comment = train.ca.items.pop(earlier, None)
            train.insert(position, name, train.pop(earlier))
            if comment:
                train.ca.items[name] = comment
            renamed[earlier] = name
    if renamed:
        changes = ", ".join(f"{earlier} is now {name}" for earlier, name in renamed.items())
        print(f"settings of {PARAMETERS_FILE} renamed: {changes}", file=sys.stderr)


def _load(path: Path, yaml: YAML | None = None) -> dict[str, Any]:
    try:
        document = (yaml or YAML(typ="safe")).load(path)
    except (OSError, YAMLError) as error:
        raise CatsdogsError(f"{path} cannot be read ({str(error).splitlines()[0]}); restore it from git") from None
    if not isinstance(document, dict):
        raise CatsdogsError(f"{path} has no sections; restore it from git")
    for section in SECTIONS:
        if not isinstance(document.get(section, {}), dict):
            raise SettingsError(section, f"it is a section of {PARAMETERS_FILE}; write its settings below it")
    return document
