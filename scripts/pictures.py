"""Assemble the README's pictures from the executed notebooks of a run on the drawn sample.

make pipeline && python scripts/pictures.py
"""

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).parents[1]
WIDTH = 1600


SHEETS = {
    "sample": [[("01_explore", "photos_figure(")]],
    "evaluation": [
        [("04_evaluate", "comparison_figure(")],
        [("04_evaluate", "confusion_figure("), ("04_evaluate", "reliability_figure(")],
        [("04_evaluate", "slices_figure(")],
    ],
    "mistakes": [[("04_evaluate", "gallery_figure(")]],
}
"""Name of the picture -> its rows of figures, each as a notebook and what the cell that shows it calls."""


def figure(notebook: str, call: str) -> Image.Image:
    """Return the figure of the one cell of an executed notebook that makes a call."""
    book = nbformat.read(ROOT / "reports" / f"{notebook}.ipynb", as_version=4)
    (picture,) = [
        output["data"]["image/png"]
        for cell in book.cells
        if cell.cell_type == "code" and call in cell.source
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    return Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")


def stacked(rows: list[list[Image.Image]]) -> Image.Image:
    """Stack rows of pictures, each row as wide as the sheet."""
    lines = []
    for row in rows:
        height = int((WIDTH - 20 * (len(row) + 1)) / sum(picture.width / picture.height for picture in row))
        line = Image.new("RGB", (WIDTH, height + 20), "white")
        left = 20
        for picture in row:
            part = picture.resize((int(picture.width * height / picture.height), height), Image.Resampling.LANCZOS)
            line.paste(part, (left, 10))
            left += part.width + 20
        lines.append(line)
    sheet = Image.new("RGB", (WIDTH, sum(line.height for line in lines)), "white")
    top = 0
    for line in lines:
        sheet.paste(line, (0, top))
        top += line.height
    return sheet


def main() -> None:
    """Write the pictures below docs/pictures."""
    folder = ROOT / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in SHEETS.items():
        sheet = stacked([[figure(notebook, call) for notebook, call in row] for row in rows])
        sheet.quantize(128, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
