"""Which photos a source names, and how each is read."""

import io
import os
import sys
import zipfile
from pathlib import Path

import fsspec
import pytest

from catsdogs_lib.batch.photos import UnreadableError
from catsdogs_lib.batch.sources import SourceUnusableError, open_source
from catsdogs_lib.imaging.decoding import MAX_BYTES


def listed(source) -> list[str]:
    return [photo.path for photo in open_source(str(source)).photos()]


def read(photo) -> bytes:
    found = photo.read()
    return found.read_bytes() if isinstance(found, Path) else found


def contents(source) -> list[bytes]:
    return [read(photo) for photo in open_source(str(source)).photos()]


def problem(source) -> str:
    with pytest.raises(SourceUnusableError) as raised:
        open_source(str(source)).count()
    assert "\n" not in str(raised.value)
    return raised.value.problem


def zipped(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_folder_is_walked_in_the_same_order_each_time(folder):
    names = listed(folder)
    inside = [name.removeprefix(f"{folder}/") for name in names]
    here = ["bytes\\udcff.jpg", "cat.jpg", "cut.jpg", "katze ä 猫.jpg", "text.png", "two\nlines.jpg"]
    assert inside == [*here, "below/dog.JPEG"]
    assert listed(folder) == names
    assert all(contents(folder))


def test_folders_come_by_their_names_however_they_were_made(tmp_path):
    for name in ("b", "c", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").touch()
    assert [Path(name).parent.name for name in listed(tmp_path)] == ["a", "b", "c"]


def test_a_folder_without_photos_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert "no photos" in problem(tmp_path)


def test_what_is_not_there_is_refused(tmp_path):
    assert "no such file" in problem(tmp_path / "none")


def test_one_photo_is_a_source(folder, pictures):
    assert contents(folder / "cat.jpg") == [pictures[0]]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_read_where_it_lies(tmp_path, pictures, method):
    members = {"cats/1.jpg": pictures[0], "dogs/ä\n.jpg": pictures[1]}
    junk = {"__MACOSX/cats/._1.jpg": b"junk", "cats/._1.jpg": b"junk", "readme.txt": b"text", "cats/": b""}
    archive = zipped(tmp_path / "photos.zip", members | junk, method)
    assert listed(archive) == list(members)
    assert contents(archive) == list(members.values())
    assert [path.name for path in tmp_path.iterdir()] == ["photos.zip"]


def test_a_zip_with_something_in_front_and_long_headers_is_read(tmp_path, pictures):
    archive = tmp_path / "photos.zip"
    archive.write_bytes(b"a program that unpacks itself")
    with zipfile.ZipFile(archive, "a") as packed, packed.open("1.jpg", "w", force_zip64=True) as member:
        member.write(pictures[0])
    assert contents(archive) == [pictures[0]]


def test_no_more_of_a_member_is_unpacked_than_a_photo_may_have(tmp_path):
    archive = zipped(tmp_path / "bomb.zip", {"bomb.bmp": bytes(2 * MAX_BYTES)}, zipfile.ZIP_DEFLATED)
    assert [len(data) for data in contents(archive)] == [MAX_BYTES + 1]


def test_a_damaged_member_is_an_error_of_its_own(tmp_path, pictures):
    archive = zipped(tmp_path / "photos.zip", {"1.jpg": pictures[0], "2.jpg": pictures[1]})
    raw = bytearray(archive.read_bytes())
    raw[500] ^= 255
    archive.write_bytes(raw)
    first, second = open_source(str(archive)).photos()
    with pytest.raises(UnreadableError, match="damaged in its zip"):
        first.read()
    assert second.read() == pictures[1]


@pytest.mark.parametrize("change", [{"flag_bits": 1}, {"compress_type": zipfile.ZIP_LZMA}])
def test_a_member_that_is_encrypted_or_packed_oddly_says_so(tmp_path, pictures, change):
    (photo,) = open_source(str(zipped(tmp_path / "photos.zip", {"1.jpg": pictures[0]}))).photos()
    for name, value in change.items():
        setattr(photo.member, name, value)
    with pytest.raises(UnreadableError, match=r"encrypted|compressed in a way"):
        photo.read()


def test_a_zip_that_goes_away_is_an_error_of_its_photos(tmp_path, pictures):
    archive = zipped(tmp_path / "photos.zip", {"1.jpg": pictures[0]})
    (photo,) = open_source(str(archive)).photos()
    archive.unlink()
    with pytest.raises(UnreadableError, match="still there"):
        photo.read()


def test_a_damaged_zip_is_refused(tmp_path, pictures):
    archive = zipped(tmp_path / "photos.zip", {"1.jpg": pictures[0]})
    raw = bytearray(archive.read_bytes())
    at = raw.index(b"PK\x01\x02")
    raw[at : at + 4] = b"XXXX"
    archive.write_bytes(raw)
    assert "damaged" in problem(archive)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_has_a_path_or_address_a_line(tmp_path, folder, end):
    names = [f"{folder}/cat.jpg", f"{folder}/katze ä 猫.jpg", "file:///somewhere/a.jpg"]
    text = tmp_path / "list.txt"
    text.write_bytes(("\ufeff" + end.join([names[0], "", *names[1:], ""])).encode())
    assert listed(text) == names
    assert [photo.remote for photo in open_source(str(text)).photos()] == [False, False, True]


def test_a_list_may_name_files_whose_names_are_no_utf_8(tmp_path, folder, pictures):
    text = tmp_path / "list.txt"
    text.write_bytes(os.fsencode(folder) + b"/bytes\xff.jpg\n")
    assert listed(text) == [f"{folder}/bytes\\udcff.jpg"]
    assert contents(text) == [pictures[4]]


def test_a_csv_names_photos_in_its_column_path(tmp_path, folder, pictures):
    table = tmp_path / "list.csv"
    table.write_text(f'label,path\ncat,{folder}/cat.jpg\ndog,"{folder}/two\nlines.jpg"\n')
    assert contents(table) == [pictures[0], pictures[3]]


def test_a_csv_without_the_column_says_what_it_needs(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("file\ncat.jpg\n")
    assert "column 'path'" in problem(table)


@pytest.mark.parametrize("data", [b"\x7fELF\0\0\0", "cat.jpg\n".encode("utf-16")])
def test_what_is_no_list_is_refused(tmp_path, data):
    odd = tmp_path / "odd"
    odd.write_bytes(data)
    assert "not text" in problem(odd)


def test_an_empty_list_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("\n\n")
    assert "no photos" in problem(tmp_path / "list.txt")


@pytest.fixture
def memory(pictures):
    """A bucket in memory."""
    system = fsspec.filesystem("memory")
    for name, picture in zip(("a.jpg", "b.jpg", "below/c.jpg", "notes.txt"), pictures, strict=False):
        system.pipe_file(f"/bucket/{name}", picture)
    yield system
    system.rm("/bucket", recursive=True)


def test_an_address_is_listed_with_all_below_it(memory, pictures):
    assert listed("memory://bucket") == [f"memory:///bucket/{name}" for name in ("a.jpg", "b.jpg", "below/c.jpg")]
    assert contents("memory://bucket") == pictures[:3]


def test_a_glob_of_addresses_is_expanded(memory, pictures):
    assert contents("memory://bucket/*.jpg") == pictures[:2]
    assert contents("memory://bucket/**/*.jpg") == pictures[:3]


def test_an_address_may_be_one_photo_or_a_list(memory, pictures):
    memory.pipe_file("/bucket/list.csv", b"path\nmemory://bucket/b.jpg\n")
    assert contents("memory://bucket/list.csv") == [pictures[1]]
    assert contents("memory://bucket/a.jpg") == [pictures[0]]


def test_an_address_in_an_archive_elsewhere_is_read(tmp_path, memory, pictures):
    archive = io.BytesIO()
    zipped(archive, {"x/1.jpg": pictures[0], "x/2.jpg": pictures[1]})
    memory.pipe_file("/bucket/photos.zip", archive.getvalue())
    assert contents("zip://**::memory://bucket/photos.zip") == pictures[:2]


def test_photos_on_the_web_are_read(web, tmp_path, folder, pictures):
    text = tmp_path / "list.txt"
    text.write_text(f"{web.address}/photos/cat.jpg\n{web.address}/photos/none.jpg\n")
    first, second = open_source(str(text)).photos()
    assert first.read() == pictures[0]
    with pytest.raises(UnreadableError, match="cannot be read"):
        second.read()
    assert contents(f"{web.address}/photos/below/*.JPEG") == [pictures[1]]


def test_an_address_nobody_answers_is_one_sentence(tmp_path):
    assert "check the address" in problem(f"file://{tmp_path}/none/x.txt")


@pytest.mark.parametrize("in_a_list", [False, True])
def test_an_address_that_cannot_be_read_here_says_why(tmp_path, monkeypatch, in_a_list):
    monkeypatch.setitem(sys.modules, "s3fs", None)

    def source(address):
        (tmp_path / "list.txt").write_text(address)
        return tmp_path / "list.txt" if in_a_list else address

    assert "a module for s3 addresses is missing (Install s3fs" in problem(source("s3://bucket/photos"))
    assert "no addresses of the kind 'nonsense'" in problem(source("nonsense://bucket/photos"))
