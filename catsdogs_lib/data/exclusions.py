"""What a person decided of single photos: left out, or under another label."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from catsdogs_lib.common.class_names import canonical_class
from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.data.folders import FoundPhoto


class Decision(NamedTuple):
    """What a person wants of a photo: a label, or where that is empty its exclusion."""

    reason: str
    label: str


def read_exclusions(name: str) -> dict[str, Decision]:
    """Path or SHA-256 to what is wanted."""
    if not name:
        return {}
    try:
        with Path(name).open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            fields = rows.fieldnames or []
            if "reason" not in fields or not {"path", "sha256"} & set(fields):
                raise SettingsError("exclusions", f"{name} needs a first line 'path,reason' or 'sha256,reason'")
            decisions = {}
            for row in rows:
                reason = " ".join((row["reason"] or "").split()) or "no reason given"
                for key in (row.get("path"), (row.get("sha256") or "").lower()):
                    if key:
                        decisions[key] = Decision(reason, (row.get("label") or "").strip())
            return decisions
    except (OSError, UnicodeError, csv.Error) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no UTF-8 CSV"
        raise SettingsError("exclusions", f"{name} cannot be read ({what}); check the path and the file") from None


def relabelled(one: FoundPhoto, decision: Decision | None, labels: Sequence[str]) -> FoundPhoto:
    """The file with the label that a person wants, where there is one; raises `SettingsError` for no class."""
    if decision is None or not decision.label:
        return one
    label = canonical_class(decision.label, labels)
    if label not in labels:
        raise SettingsError(
            "exclusions", f"label '{decision.label}' of {one.name} is no class; use one of {', '.join(labels)}"
        )
    return replace(one, label=label)
