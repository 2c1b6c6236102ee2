import pytest

from catsdogs_lib.common import files


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "below" / "value.json"
    files.write_json(path, {"a": "ü"})
    assert files.read_json(path) == {"a": "ü"}
    assert [left.name for left in path.parent.iterdir()] == ["value.json"]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "value.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError, match="stop"), files.replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_a_folder(tmp_path):
    folder = tmp_path / "bundle"
    for content in ("first", "second"):
        with files.replacing(folder) as partial:
            partial.mkdir()
            (partial / "file").write_text(content)
    assert (folder / "file").read_text() == "second"
    assert list(tmp_path.iterdir()) == [folder]


def test_sweeping_removes_what_a_kill_left(tmp_path):
    (tmp_path / f"{files.PARTIAL}1234-table.csv").write_text("half")
    (tmp_path / f"{files.PARTIAL}1234-folder").mkdir()
    (tmp_path / "whole").write_text("kept")
    files.sweep(tmp_path)
    assert [left.name for left in tmp_path.iterdir()] == ["whole"]


def test_sweeping_puts_back_a_folder_whose_successor_never_came(tmp_path):
    aside = tmp_path / f"{files.PARTIAL}1234-old-bundle"
    aside.mkdir()
    (aside / "file").write_text("kept")
    files.sweep(tmp_path)
    assert (tmp_path / "bundle" / "file").read_text() == "kept"
    assert not aside.exists()


def test_a_removed_folder_goes_as_a_whole(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "state").write_text("x")
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)  # killed before anything was deleted
    files.remove(folder)
    assert not folder.exists()
    files.remove(folder)
    monkeypatch.undo()
    files.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sweeping_a_missing_folder_is_fine(tmp_path):
    files.sweep(tmp_path / "nowhere")


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert files.digest({"a": 1, "b": [2]}) == files.digest({"b": [2], "a": 1})
    assert files.digest({"a": 1}) != files.digest({"a": 2})


def test_digests_of_a_file_and_its_bytes_agree(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(path) == files.sha256_bytes(b"abc") == expected


@pytest.mark.parametrize("text", [b"NaN", b'{"a": [-Infinity]}', b"[" * 100_000, b"\xff", b"{", b""])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - json words it
        files.parse_json(text)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_not_written(tmp_path, number):
    path = tmp_path / "value.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": number})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.digest([number])
    assert not path.exists()
