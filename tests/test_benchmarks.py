"""What benchmarks say of two sides: ratios with intervals, a table and a picture."""

import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import figures
import sizes
from figures import Part, Ratio

TIMES = Ratio("answer", "ms", "the other", [10.0, 11.0, 12.0], [30.0, 33.0, 36.0], bar=2.5)
RATES = Ratio("throughput", "/s", "the other", [100.0, 90.0, 110.0], [50.0, 100.0, 60.0], bar=2.0, more=True)


def test_a_ratio_says_how_many_times_better_ours_is():
    assert TIMES.value == pytest.approx(3.0)
    assert TIMES.interval == pytest.approx((3.0, 3.0))
    assert RATES.value == pytest.approx(100 / 60)
    low, high = RATES.interval
    assert low < RATES.value < high


def test_a_part_is_kept_as_a_page_and_a_picture_and_says_whether_bars_are_reached(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
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
    found = sizes.closure(["starlette"])
    assert {"starlette", "anyio"} <= set(found)
    assert found["starlette"] > 100_000
