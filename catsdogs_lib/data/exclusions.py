"""What a person decided of single photos: left out, or under another label."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from catsdogs_lib.common import class_names, errors


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
                raise errors.SettingsError("exclusions", f"{name} needs a first line 'path,reason' or 'sha256,reason'")
            decisions = {}
            for row in rows:
                reason = " ".join((row["reason"] or "").split()) or "no reason given"
                for key in (row.get("path"), (row.get("sha256") or "").lower()):
                    if key:
                        decisions[key] = Decision(reason, (row.get("label") or "").strip())
            return decisions
    except (OSError, UnicodeError, csv.Error) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no UTF-8 CSV"
        raise errors.SettingsError(
            "exclusions", f"{name} cannot be read ({what}); check the path and the file"
        ) from None


def relabelled(path: str, label: str, decision: Decision | None, labels: Sequence[str]) -> str:
    """Give the label that a person wants for a photo, else its own; raises `SettingsError` for an unknown class."""
    if decision is None or not decision.label:
        return label
    wanted = class_names.canonical_class(decision.label, labels)
    if wanted not in labels:
        raise errors.SettingsError(
            "exclusions", f"label '{decision.label}' of {path} is no class; use one of {', '.join(labels)}"
        )
    return wanted
