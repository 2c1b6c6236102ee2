"""Review of the label audit: confirmed proposals become a file of exclusions that the pipeline reads."""

import csv
from pathlib import Path

import pandas as pd

from catsdogs_lib.common import errors, files

FIELDS = ("path", "sha256", "reason", "label")
"""Columns of the file of exclusions: a row with a label relabels its photo, one without excludes it."""
RELABEL = "relabel:"


class ProposalError(errors.CatsdogsError):
    """A row of the proposals cannot be used; the message says which and why."""


def apply_review(proposals: Path, target: Path) -> tuple[int, int]:
    """Add confirmed proposals to a file of exclusions; a new decision replaces an earlier one.

    Parameters
    ----------
    proposals
        CSV file of the label audit, its column ``action`` filled in with ``exclude``, ``relabel:CLASS`` or ``keep``.
        Rows without an action are skipped.
    target
        File of exclusions, created if missing. It names photos by their SHA-256, so it holds wherever they lie.

    Returns
    -------
    excluded, relabelled
        Numbers of photos that this call confirmed.

    Raises
    ------
    ProposalError
        The proposals cannot be read, or a row holds another action.
    """
    kept = {row["sha256"] or row["path"]: row for row in _rows(target)} if target.exists() else {}
    excluded = relabelled = 0
    for number, row in enumerate(_rows(proposals), start=2):
        action = (row.get("action") or "").strip()
        if not action:
            continue
        if not row.get("sha256"):
            raise ProposalError(f"{proposals}, line {number}: there is no sha256; use the file that the doctor wrote")
        if action == "keep":
            kept.pop(row["sha256"], None)
            continue
        label = action.removeprefix(RELABEL).strip() if action.startswith(RELABEL) else ""
        if action != "exclude" and not label:
            raise ProposalError(
                f"{proposals}, line {number}: action '{action}' is none of exclude, {RELABEL}CLASS, keep"
            )
        excluded, relabelled = excluded + (not label), relabelled + bool(label)
        reason = f"{row.get('finding', '')}: {row.get('reason', '')}".strip(": ")
        kept[row["sha256"]] = {"path": "", "sha256": row["sha256"], "reason": reason, "label": label}
    rows = pd.DataFrame(list(kept.values()), columns=list(FIELDS))
    files.write_text(target, rows.to_csv(index=False, lineterminator="\n"))
    return excluded, relabelled


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 CSV"
        raise ProposalError(f"{path} cannot be read ({reason}); name a file that the doctor wrote") from None
    return [{name: row.get(name) or "" for name in (*row, *FIELDS) if name} for row in rows]
