"""The base of all settings classes: validated, frozen, and named after their section of params.yaml."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from catsdogs_lib.common.errors import SettingsError


class Settings(BaseModel):
    """Settings of one part of the pipeline; each field declares its type, default, limits and description.

    Use `checked` for values that a person typed: its error names the setting.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
    section: ClassVar[str]
    """The section of params.yaml that holds these settings."""

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """Build settings from `values`.

        Raises
        ------
        SettingsError
            One sentence that names the first setting that is wrong.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in (cls.section, *first["loc"]))
            problem = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
            raise SettingsError(name, f"{problem} (given: {first['input']!r})") from None

    @classmethod
    def from_namespace(cls, namespace: Mapping[str, Any]) -> Self:
        """Build settings from the variables of a notebook: `checked` with those that are settings here."""
        return cls.checked(**{name: namespace[name] for name in cls.model_fields})
