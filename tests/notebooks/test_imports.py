import ast
import subprocess
import sys
from pathlib import Path

import nbformat

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_explore.ipynb"
HEAVY = {"torch", "mlflow", "sklearn", "scipy", "catsdogs_lib.evaluation.metrics"}


def test_exploring_imports_neither_torch_nor_mlflow_nor_what_only_evaluation_needs():
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    statements = [node for cell in cells for node in ast.parse(cell.replace("%matplotlib inline", "")).body]
    imports = [ast.unparse(node) for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    code = "\n".join([*imports, "import sys", f"print(sorted({HEAVY!r} & sys.modules.keys()))"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
