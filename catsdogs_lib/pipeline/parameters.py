"""The parameters in params.yaml: read, check and set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError, SettingsError
from catsdogs_lib.data.manifest import PrepareSettings
from catsdogs_lib.training.settings import TrainingSettings

PARAMETERS_FILE = "params.yaml"


def check_settings(document: Mapping[str, Any]) -> None:
    """Hold the content of `PARAMETERS_FILE` to the settings that its sections stand for.

    Raises
    ------
    SettingsError
        Names the first value that cannot be used.
    """
    for name, least in (("per_class", 1), ("seed", 0)):
        value = document["data"][name]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise SettingsError(f"data.{name}", f"{value!r} is not right; use a whole number, {least} or more")
    if "'" in document["data"]["source"] + document["prepare"]["exclusions"] + document["train"]["model"]:
        raise SettingsError("data.source", "an apostrophe in a path or name cannot be passed on; rename it")
    PrepareSettings(**document["prepare"])
    epochs = document["train"]["baseline_epochs"]
    if not isinstance(epochs, int) or epochs < 0:
        raise SettingsError("train.baseline_epochs", f"{epochs!r} is not right; use a whole number, 0 for no baseline")
    training_settings(document)
    int8 = document["package"]["int8"]
    if not isinstance(int8, bool):
        raise SettingsError("package.int8", f"{int8!r} is not right; use true or false")


def training_settings(document: Mapping[str, Any]) -> TrainingSettings:
    """The candidate's settings in the content of `PARAMETERS_FILE`; raises `SettingsError`."""
    return TrainingSettings.checked(
        **{name: value for name, value in document["train"].items() if name != "baseline_epochs"}
    )


def parse_value(text: str) -> Any:
    """Read a value as YAML would: ``3`` is a number, ``true`` a truth value, anything else text."""
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError:
        return text
    return value if isinstance(value, bool | int | float) else text


def set_parameters(root: Path, values: Mapping[str, Any]) -> None:
    """Write values into `PARAMETERS_FILE`, keeping its comments; the file is touched only if one differs.

    Parameters
    ----------
    root
        The project.
    values
        By dotted name, e.g. ``{"data.source": "sample"}``.

    Raises
    ------
    SettingsError
        The file has no such name.
    """
    path = root / PARAMETERS_FILE
    yaml = YAML()
    yaml.preserve_quotes = True
    try:
        document = yaml.load(path)
    except (OSError, YAMLError) as error:
        raise CatsdogsError(f"{path} cannot be read ({str(error).splitlines()[0]}); restore it from git") from None
    before = files.digest(document)
    for name, value in values.items():
        *above, last = name.split(".")
        part = document
        for key in above:
            part = part.get(key) if isinstance(part, dict) else None
        if not isinstance(part, dict) or last not in part or isinstance(part[last], dict):
            raise SettingsError(name, f"{PARAMETERS_FILE} has no such parameter")
        part[last] = value
    check_settings(document)
    if files.digest(document) != before:
        with files.replacing(path) as partial, partial.open("w", encoding="utf-8") as stream:
            yaml.dump(document, stream)
