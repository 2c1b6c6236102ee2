"""Unpacking: what comes out, what is refused, and that nothing gets out of the folder."""

import io
import stat
import struct
import tarfile
import zipfile

import pytest

from catsdogs_lib.data import archives
from catsdogs_lib.data.archives import ArchiveError, is_archive, unpack

PHOTO = b"\xff\xd8 not decoded here"


def make_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return path


def make_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as packed:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return path


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refused(archive, tmp_path):
    """Unpack two folders down and check that what is written stays below."""
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, tmp_path / "a" / "b")
    outside = [name for name in written(tmp_path) if not name.startswith("a/b/") and name != archive.name]
    assert outside == []
    message = str(caught.value)
    assert str(archive) in message
    assert "\n" not in message
    return message


GOOD = {
    "cats/1.jpg": PHOTO,
    "cats/nested/2.PNG": PHOTO,
    "dogs/böse katze.jpeg": PHOTO,
    "dogs/read me.txt": b"x",
    "__MACOSX/cats/._1.jpg": b"x",
    "cats/Thumbs.db": b"x",
    ".git/3.jpg": PHOTO,
}


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2"])
def test_photos_come_out_and_junk_stays_behind(tmp_path, mode):
    archive = tmp_path / "photos.bin"
    make_zip(archive, GOOD) if mode == "zip" else make_tar(archive, GOOD, mode)
    assert is_archive(archive)
    unpack(archive, tmp_path / "out")
    assert written(tmp_path / "out") == ["cats/1.jpg", "cats/nested/2.PNG", "dogs/böse katze.jpeg"]
    assert (tmp_path / "out/cats/1.jpg").read_bytes() == PHOTO


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_of_photos_of_every_size_comes_out_byte_for_byte(tmp_path, mode):
    # 512 and its multiples need no padding.
    members = {f"cats/{size}.jpg": bytes(i % 251 for i in range(size)) for size in (0, 1, 511, 512, 513, 2048, 70_000)}
    unpack(make_tar(tmp_path / "photos.tar", members, mode), tmp_path / "out")
    assert {f"cats/{path.name}": path.read_bytes() for path in (tmp_path / "out/cats").iterdir()} == members


def test_paths_parted_by_backslashes_become_folders(tmp_path):
    archive = make_zip(tmp_path / "windows.zip", {"cats?1.jpg": PHOTO})
    archive.write_bytes(archive.read_bytes().replace(b"cats?1.jpg", b"cats\\1.jpg"))
    unpack(archive, tmp_path / "out")
    assert written(tmp_path / "out") == ["cats/1.jpg"]


def test_empty_class_folders_and_inner_archives_leave_their_names(tmp_path):
    archive = make_zip(tmp_path / "competition.zip", {"cats/": b"", "train.zip": b"PK"})
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/cats").is_dir()
    assert (tmp_path / "out/train.zip").read_bytes() == b""


ESCAPES = ["../evil.jpg", "cats/../../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "C:evil.jpg"]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_paths_that_lead_outside_are_refused(tmp_path, make, name):
    assert "outside" in refused(make(tmp_path / "slip", {"cats/1.jpg": PHOTO, name: PHOTO}), tmp_path)


def test_links_in_a_zip_are_refused(tmp_path):
    link = zipfile.ZipInfo("cats/1.jpg")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = tmp_path / "links.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(link, "/etc/passwd")
    assert "link" in refused(archive, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    archive = tmp_path / "links.tar"
    with tarfile.open(archive, "w") as packed:
        info = tarfile.TarInfo("cats/1.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        packed.addfile(info)
    assert "link" in refused(archive, tmp_path)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_bomb_of_zeros_is_refused_before_it_is_out(tmp_path, monkeypatch, make):
    monkeypatch.setattr(archives, "MIN_BYTES_FOR_RATIO", 2**20)
    bomb = make(tmp_path / "bomb", {"cats/1.bmp": bytes(24 * 2**20)})
    assert "100 times" in refused(bomb, tmp_path)
    assert sum(path.stat().st_size for path in (tmp_path / "a/b").rglob("*.bmp")) < 8 * 2**20


def test_many_small_bombs_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MIN_BYTES_FOR_RATIO", 2**20)
    bomb = make_zip(tmp_path / "bomb.zip", {f"cats/{i}.bmp": bytes(2**19) for i in range(8)})
    assert "it unpacks to over 100 times" in refused(bomb, tmp_path)


def test_a_flat_drawing_is_no_bomb(tmp_path):
    unpack(make_zip(tmp_path / "flat.zip", {"cats/1.bmp": bytes(2**21)}), tmp_path / "out")
    assert (tmp_path / "out/cats/1.bmp").stat().st_size == 2**21


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("limit", "value", "says"),
    [("MAX_MEMBERS", 3, "more than 3"), ("MAX_BYTES", 30_000, "more than"), ("MAX_MEMBER_BYTES", 9_999, "no photo")],
)
def test_too_much_of_anything_is_refused(tmp_path, monkeypatch, make, limit, value, says):
    archive = make(tmp_path / "large", {f"cats/{i}.jpg": bytes(10_000) for i in range(4)})
    unpack(archive, tmp_path / "fine")
    for path in (tmp_path / "fine/cats").iterdir():
        path.unlink()
    monkeypatch.setattr(archives, limit, value)
    assert says in refused(archive, tmp_path)


def test_a_size_that_lies_is_not_believed(tmp_path, monkeypatch):
    """The headers claim 10 bytes for a member that unpacks to a million."""
    archive = make_zip(tmp_path / "liar.zip", {"cats/1.jpg": bytes(1_000_000)})
    archive.write_bytes(archive.read_bytes().replace(struct.pack("<L", 1_000_000), struct.pack("<L", 10)))
    assert "damaged" in refused(archive, tmp_path)
    assert (tmp_path / "a/b/cats/1.jpg").stat().st_size <= 10


def test_an_endless_header_of_a_tar_is_refused(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 4 * 2**30
    archive = tmp_path / "header.tar"
    archive.write_bytes(info.tobuf() + bytes(1024))
    assert "absurdly long" in refused(archive, tmp_path)


def test_junk_that_unpacks_without_end_counts_too(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MIN_BYTES_FOR_RATIO", 2**20)
    assert "100 times" in refused(make_tar(tmp_path / "junk", {"notes.txt": bytes(24 * 2**20)}), tmp_path)


def test_an_encrypted_zip_asks_for_the_folder(tmp_path):
    archive = make_zip(tmp_path / "secret.zip", {"cats/1.jpg": PHOTO}, zipfile.ZIP_STORED)
    data = bytearray(archive.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert "it is encrypted; unpack it" in refused(archive, tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_unusual_compression_is_named(tmp_path, method):
    archive = make_zip(tmp_path / "unusual.zip", {"cats/1.jpg": PHOTO}, method)
    assert "ordinary zip" in refused(archive, tmp_path)


def noise(count):
    return bytes((i * i * 31 + i // 7) % 256 for i in range(count))


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_half_an_archive_is_called_incomplete(tmp_path, make, keep):
    archive = make(tmp_path / "half", {f"cats/{i}.jpg": noise(5_000 + i) for i in range(9)})
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * keep)])
    assert "incomplete" in refused(archive, tmp_path)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_flipped_bits_never_raise_anything_else(tmp_path, make):
    archive = make(tmp_path / "flipped", {f"cats/{i}.jpg": noise(300 + i) for i in range(3)})
    whole = archive.read_bytes()
    outcomes = set()
    for at in range(4, len(whole), 5):
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :])
        try:
            unpack(archive, tmp_path / f"out{at}")
            outcomes.add("fine")
        except ArchiveError:
            outcomes.add("refused")
    assert "refused" in outcomes


def test_a_file_twice_is_refused(tmp_path):
    archive = make_zip(tmp_path / "twice.zip", {"cats/1.jpg": PHOTO, "cats?1.jpg": PHOTO})
    archive.write_bytes(archive.read_bytes().replace(b"cats?1.jpg", b"cats/1.jpg"))
    assert "twice" in refused(archive, tmp_path)


def test_other_files_are_no_archives(tmp_path):
    for name, data in {"a.zip": b"", "b.zip": b"text", "c.jpg": PHOTO}.items():
        (tmp_path / name).write_bytes(data)
        assert not is_archive(tmp_path / name)
