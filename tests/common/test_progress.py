import io

import pytest

from catsdogs_lib.common import progress


def test_items_pass_through_unchanged():
    assert list(progress.track(iter([3, 1, 2]), "work")) == [3, 1, 2]


def test_quick_work_says_nothing(capsys):
    list(progress.track(range(100), "work"))
    assert capsys.readouterr().err == ""


def test_slow_work_says_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_INTERVAL_SECONDS", 0.0)
    list(progress.track(iter("ab"), "looking", total=2))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == ["looking: 1 of 2", "looking: 2 of 2"]
    assert lines[2].startswith("looking: 2 done in")


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert list(progress.track(range(3), "looking")) == [0, 1, 2]
    assert "looking" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_an_error_in_the_work_goes_through():
    with pytest.raises(ZeroDivisionError):
        for item in progress.track([1, 0], "work"):
            1 / item
