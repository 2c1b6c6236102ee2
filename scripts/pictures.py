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


def figures(notebook: str) -> list[Image.Image]:
    """Return all figures in an executed notebook, in order."""
    book = nbformat.read(ROOT / "reports" / f"{notebook}.ipynb", as_version=4)
    return [
        Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))).convert("RGB")
        for cell in book.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


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
    explore, evaluate = figures("01_explore"), figures("04_evaluate")
    comparison, confusion, reliability, _, _, slices, mistakes = evaluate
    sheets = {
        "sample": stacked([[explore[1]]]),
        "evaluation": stacked([[comparison], [confusion, reliability], [slices]]),
        "mistakes": stacked([[mistakes]]),
    }
    for name, sheet in sheets.items():
        sheet.quantize(128, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
