"""The model card (Mitchell et al., 2019): intended use, measured quality and known weaknesses of a model.

All of it comes from the bundle, so every bundle has a card.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from catsdogs_lib.common import files
from catsdogs_lib.evaluation.selective import risk_bound_sentence
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.description import Card, Description, SelectiveMetrics, Slice

STYLE = """
:root { color-scheme: light dark; --ink: #1b1d1c; --paper: #f7f6f2; --line: #d8d5cc; --soft: #5d615e }
@media (prefers-color-scheme: dark) { :root { --ink: #eceeec; --paper: #131517; --line: #34393c; --soft: #a3a9a6 } }
body { max-width: 46rem; margin: 2.5rem auto; padding: 0 1.2rem; background: var(--paper); color: var(--ink);
  font: 1.05rem/1.6 system-ui, sans-serif }
h1, h2 { line-height: 1.2; letter-spacing: -0.015em } h2 { margin-top: 2rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: 0.4rem 0.7rem 0.4rem 0; border-bottom: 1px solid var(--line); text-align: left }
th { color: var(--soft); font-weight: 600 } code { font-size: 0.95em; overflow-wrap: anywhere }
"""


def facts(classes: Sequence[str], source: str, evaluation: Mapping[str, Any]) -> Card:
    """Collect the card's content for a bundle.

    Parameters
    ----------
    classes, source
        Class names, and the name of the data.
    evaluation
        The model's entry in ``evaluation/metrics.json``.
    """
    named = ", ".join(classes)
    return Card(
        intended_use=f"Says which of {named} is on a photo like those of '{source}', one to a photo, and says so when "
        "it is not sure. Not for decisions about people or the treatment of animals without somebody who looks.",
        limits=(
            f"It knows {named} alone. Other things are called unfamiliar most of the time, never always.",
            "It looks at the centre square; what lies outside is not seen.",
            "Two of its classes on one photo get one answer.",
            "Its figures hold for photos like the test photos; other cameras, places and kinds shift them.",
        ),
        slices=tuple(Slice(**part) for part in evaluation["slices"]),
        doubt=SelectiveMetrics(**evaluation["doubt"]),
    )


def markdown(description: Description, verdict: str = "") -> str:
    """Render the card as Markdown; `verdict` is the gate's sentence, if it is known."""
    card, thresholds, size = description.card, description.thresholds, description.preprocessing.size
    doubt, method = card.doubt, description.training.get("method", "unknown")
    photos = ", ".join(f"{count} {split}" for split, count in description.data.photos.items())
    metrics = _table(
        ("on the test photos", "value", "95 % interval"),
        [
            (name.replace("_", " "), f"{m.value:.4f}", f"{m.low:.4f} to {m.high:.4f}")
            for name, m in description.metrics.items()
        ],
    )
    weakest = _table(
        ("slice", "photos", "accuracy", "95 % interval", ""),
        [
            (
                part.name,
                part.photos,
                f"{part.accuracy.value:.4f}",
                f"{part.accuracy.low:.4f} to {part.accuracy.high:.4f}",
                "worse than the rest" if part.worse else "",
            )
            for part in card.slices
        ],
    )
    limits = "\n".join(f"- {line}" for line in card.limits)
    gate = f"\n## The gate\n\n{verdict}\n" if verdict else ""
    sentence = risk_bound_sentence(description.certificate)
    return f"""# {description.model}: {", ".join(description.classes)}

## Intended use

{card.intended_use}

## Data and training

Trained on **{description.data.source}** ({photos} photos; data `{description.data.sha256[:12]}`) with method
`{method}`, input {size} x {size} pixels; code `{description.git_commit[:12]}`, MLflow
run `{description.mlflow_run or "none"}`. Licence of the pretrained weights: {description.weights_licence}.

## Figures

{metrics}

Probabilities are calibrated on validation photos (temperature {description.temperature:.3f}). ONNX and torch differ by
at most {description.parity.max_difference:.1e} on {description.parity.photos} photos.

## When it is not sure

An answer counts as confident from a probability of {thresholds.confident:.3f} on, if the photo's unfamiliarity is at
most {thresholds.unfamiliar:.3f}. {sentence[0].upper()}{sentence[1:]}. A photo like the validation photos is called
unfamiliar with a chance of at most {description.certificate.unfamiliar:.1%}.

Of the test photos {doubt.unsure:.1%} get no confident answer ({doubt.unfamiliar:.1%} are called unfamiliar).
Wrong among the {doubt.confident} confident answers: {doubt.confident_wrong}.

## Where it fails

The weakest slices of the test photos:

{weakest}

{limits}
{gate}"""


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def html(description: Description, verdict: str = "") -> str:
    """Render the card as one self-contained HTML page."""
    body = MarkdownIt("commonmark").enable("table").render(markdown(description, verdict))
    title = escape(f"{description.model}: {', '.join(description.classes)}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body>\n{body}</body></html>\n"
    )


def write(bundle: Bundle, path: Path, verdict: str = "") -> None:
    """Write a bundle's card, as HTML if `path` ends in .html or .htm, else as Markdown."""
    render = html if path.suffix.lower() in (".html", ".htm") else markdown
    files.write_text(path, render(bundle.description, verdict))
