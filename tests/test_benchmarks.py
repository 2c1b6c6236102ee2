"""Benchmarks: ratios of two sides with intervals, their table and plot, and scripts that fit the library."""

import ast
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import bench
import comparison
import package_sizes
from comparison import Part, Ratio

FOLDER = Path(bench.__file__).parent

TIMES = Ratio("answer", "ms", "the other", [10.0, 11.0, 12.0], [30.0, 33.0, 36.0], bar=2.5)
RATES = Ratio("throughput", "/s", "the other", [100.0, 90.0, 110.0], [50.0, 100.0, 60.0], bar=2.0, more=True)


def test_a_ratio_says_how_many_times_better_ours_is():
    assert TIMES.value == pytest.approx(3.0)
    assert TIMES.interval == pytest.approx((3.0, 3.0))
    assert RATES.value == pytest.approx(100 / 60)
    low, high = RATES.interval
    assert low < RATES.value < high


def test_a_part_is_kept_as_a_page_and_a_picture_and_says_whether_bars_are_reached(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(comparison, "FOLDER", tmp_path)
    rows = {"All": [{"server": "ours", "p99, ms": 12.3456}]}
    assert Part("one", "One way", "In turn.", [TIMES], rows).keep()
    assert not Part("two", "Another way", "In turn.", [TIMES, RATES]).keep()
    assert "times better" in capsys.readouterr().out
    page = (tmp_path / "README.md").read_text()
    assert "| answer | the other | 11 ms | 33 | 3.00 | 3.00 to 3.00 | 2.5 |" in page
    assert "| ours | 12.35 |" in page
    assert page.index("One way") < page.index("Another way")
    with Image.open(tmp_path / "two.png") as drawn:
        assert drawn.size[0] > 800


def test_sizes_count_what_a_package_needs():
    sizes = package_sizes.closure(["starlette"])
    assert {"starlette", "anyio"} <= set(sizes)
    assert sizes["starlette"] > 100_000


def test_the_readme_lists_every_script():
    page = (FOLDER / "README.md").read_text()
    parts = {name: script for name, (script, *_) in bench.commands(Path("photos")).items()}
    assert dict(re.findall(r"^\| `(\w+)` \| `(\w+\.py)` \|", page, re.M)) == parts
    scripts = {str(path.relative_to(FOLDER)) for path in (*FOLDER.glob("*.py"), *FOLDER.glob("studies/*.py"))}
    assert scripts - {"bench.py"} == set(re.findall(r"`([\w/]+\.py)`", page))


def library_names(tree):
    """Every dotted name that a script takes from the library, directly or through a module that it imports."""
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("catsdogs_lib"):
            for alias in node.names:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = modules[node.value.id]
            if isinstance(resolve(module), ModuleType):
                yield f"{module}.{node.attr}"


def resolve(name):
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError:
        return importlib.import_module(name)


@pytest.mark.parametrize("script", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.stem)
def test_a_script_uses_names_that_the_library_has(script):
    for name in library_names(ast.parse(script.read_text())):
        resolve(name)
