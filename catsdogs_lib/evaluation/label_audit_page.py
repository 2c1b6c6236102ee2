"""The findings of a label audit as one HTML page with pictures."""

import base64
import io
from html import escape
from pathlib import Path

import pandas as pd

from catsdogs_lib.common.progress import track
from catsdogs_lib.imaging import decoding

THUMBNAIL = 200
"""Shorter side of a picture, in pixels."""
STYLE = """
:root { color-scheme: light dark; --ink: #1b1d1c; --paper: #f7f6f2; --card: #fff; --soft: #5d615e }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eceeec; --paper: #131517; --card: #1b1e20; --soft: #a3a9a6 } }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif }
section { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem }
figure { margin: 0; padding: 0.8rem; border-radius: 0.8rem; background: var(--card) }
img { width: 100%; height: 12rem; object-fit: contain } figcaption { font-size: 0.9rem; overflow-wrap: anywhere }
small { color: var(--soft) }
"""


def page(findings: pd.DataFrame, raw: Path) -> str:
    """Render findings as one self-contained HTML page.

    Parameters
    ----------
    findings
        From `label_audit.audit`.
    raw
        Folder that the paths start from.
    """
    parts = []
    for kind, rows in findings.groupby("finding", sort=False):
        cards = "".join(_card(row, raw) for row in track(list(rows.itertuples()), f"pictures: {kind}"))
        parts.append(f"<h2>{escape(str(kind))} ({len(rows)})</h2>\n<section>{cards}</section>")
    body = "\n".join(parts) or "<p>Nothing to look at.</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Dataset doctor</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n<body>'
        "<h1>Photos to look at</h1><p>Nothing is decided here: write exclude, relabel:CLASS or keep into the column "
        "<code>action</code> of the proposals, then run <code>catsdogs data confirm</code>.</p>\n"
        f"{body}</body></html>\n"
    )


def _card(row: object, raw: Path) -> str:
    path, label, reason, score = (getattr(row, name) for name in ("path", "label", "reason", "score"))
    stream = io.BytesIO()
    photo = decoding.read(raw / path, THUMBNAIL)
    photo.thumbnail((2 * THUMBNAIL, THUMBNAIL))
    photo.save(stream, "JPEG", quality=80)
    data = base64.b64encode(stream.getvalue()).decode()
    return (
        f'<figure><img alt="{escape(path)}" src="data:image/jpeg;base64,{data}"><figcaption><b>{escape(label)}</b>: '
        f"{escape(reason)}<br><small>{escape(path)}, score {score:.3f}, proposal {escape(row.proposal)}</small>"  # type: ignore[attr-defined]
        "</figcaption></figure>"
    )
