import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catsdogs_lib.data.checks import CheckedPhoto, Reason, check_photo, check_photos
from catsdogs_lib.imaging import decoding

ROOT = Path(__file__).parents[2]
EDGE = ROOT / "../shared/data/edge"
HOSTILE = EDGE.parent / "hostile"
MEASURE_EDGE = """
import resource, sys
from pathlib import Path
from catsdogs_lib.data.checks import check_photos
paths = sorted(path for path in Path(sys.argv[1]).rglob("*") if path.is_file())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path, checked in zip(paths, check_photos(paths, 32, workers=2), strict=True):
    print(path.relative_to(sys.argv[1]).as_posix(), bool(checked.phash), checked.excluded, checked.warning, sep="|")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def smooth(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, name: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


def checked(folder: Path, name: str, data: bytes, min_side: int = 32) -> CheckedPhoto:
    path = folder / name
    path.write_bytes(data)
    return check_photo(path, min_side)


def test_a_good_photo_has_every_number(tmp_path: Path) -> None:
    data = encode(smooth(1))
    found = checked(tmp_path, "a.jpg", data)
    assert (found.excluded, found.warning) == ("", "")
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert (found.size, found.format, found.width, found.height) == (len(data), "JPEG", 96, 64)
    assert (found.mode, found.orientation, found.grayscale) == ("RGB", 1, False)
    assert len(found.phash) == 16
    assert len(found.thumbnail) == 32 * 32
    assert 0.3 < found.brightness < 0.7


@pytest.mark.parametrize("keep", [0.4, 0.9])
@pytest.mark.parametrize(("name", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})])
def test_a_cut_photo_is_corrupt(tmp_path: Path, name: str, options: dict[str, object], keep: float) -> None:
    # Large enough that JPEG is decoded at an eighth: the cut has to show all the same.
    data = encode(smooth(1, 2400, 1800), name, **options)
    found = checked(tmp_path, f"a.{name.lower()}", data[: int(len(data) * keep)])
    assert Reason.of(found.excluded) is Reason.CORRUPT
    assert (found.width, found.height) == (2400, 1800)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.CORRUPT),
        (b"\xff\xd8\xff\xe0 and no more", Reason.CORRUPT),
        (b"<!DOCTYPE html><title>404</title>", Reason.NOT_AN_IMAGE),
        (b"%PDF-1.7 " * 50, Reason.NOT_AN_IMAGE),
    ],
)
def test_what_cannot_be_opened_has_a_reason(tmp_path: Path, data: bytes, reason: Reason) -> None:
    found = checked(tmp_path, "a.jpg", data)
    assert Reason.of(found.excluded) is reason
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert np.isnan(found.brightness)


def test_too_many_bytes_are_not_read_and_too_many_pixels_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = encode(Image.new("1", (9000, 9000)), "PNG")
    assert Reason.of(checked(tmp_path, "a.png", bomb).excluded) is Reason.TOO_LARGE
    monkeypatch.setattr(decoding, "MAX_BYTES", 1000)
    data = encode(smooth(1), "PNG")
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    large = checked(tmp_path, "b.png", data)
    assert Reason.of(large.excluded) is Reason.TOO_LARGE
    assert large.format == ""
    assert large.sha256 == hashlib.sha256(data).hexdigest()


def test_running_out_of_memory_costs_the_photo_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoding, "decode", starve)
    assert Reason.of(checked(tmp_path, "a.jpg", encode(smooth(1))).excluded) is Reason.TOO_LARGE


@pytest.mark.parametrize(("width", "height", "small"), [(32, 90, False), (90, 31, True), (31, 90, True)])
def test_the_shorter_side_decides_what_is_too_small(tmp_path: Path, width: int, height: int, small: bool) -> None:
    found = checked(tmp_path, "a.jpg", encode(smooth(1, width, height)))
    assert (Reason.of(found.excluded) is Reason.TOO_SMALL) == small


@pytest.mark.parametrize(
    ("name", "warning"),
    [("a.webp", ""), ("a.PNG", "ending says PNG, bytes are WEBP"), ("a", "ending says nothing, bytes are WEBP")],
)
def test_a_wrong_ending_is_only_a_warning(tmp_path: Path, name: str, warning: str) -> None:
    found = checked(tmp_path, name, encode(smooth(1), "WEBP"))
    assert (found.excluded, found.warning, found.format) == ("", warning, "WEBP")


def test_what_is_no_file_is_unreadable_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    found = check_photos([tmp_path / "pipe.jpg", tmp_path / "gone.jpg"])
    assert [Reason.of(one.excluded) for one in found] == [Reason.UNREADABLE] * 2
    assert len({one.sha256 for one in found}) == 2


def test_hash_and_thumbnail_are_of_the_upright_photo(tmp_path: Path) -> None:
    upright = checked(tmp_path, "a.png", encode(smooth(3), "PNG"))
    exif = Image.Exif()
    exif[0x0112] = 6
    lain = checked(tmp_path, "b.png", encode(smooth(3).transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif))
    assert (lain.orientation, lain.width, lain.warning) == (6, 64, "")
    assert (lain.phash, lain.thumbnail) == (upright.phash, upright.thumbnail)


def test_numbers_mean_what_they_say(tmp_path: Path) -> None:
    black = checked(tmp_path, "black.png", encode(Image.new("L", (64, 64)), "PNG"))
    white = checked(tmp_path, "white.png", encode(Image.new("RGB", (64, 64), "white"), "PNG"))
    assert (black.brightness, white.brightness) == (0.0, pytest.approx(1.0))
    assert black.sharpness == pytest.approx(0)
    assert black.grayscale
    fine = smooth(2, 224, 224)
    coarse = checked(tmp_path, "coarse.png", encode(fine.resize((40, 40)), "PNG"))
    sharp = checked(tmp_path, "sharp.png", encode(fine, "PNG"))
    checks = Image.fromarray(np.indices((224, 224)).sum(axis=0).astype(np.uint8) % 2 * 255)
    # Every neighbour of a pixel of a chessboard has the other value: the Laplacian is 4 or -4 everywhere.
    assert checked(tmp_path, "checks.png", encode(checks, "PNG")).sharpness == pytest.approx(16)
    assert coarse.sharpness != sharp.sharpness
    assert not sharp.grayscale
    assert checked(tmp_path, "gray.jpg", encode(fine.convert("L").convert("RGB"), quality=60)).grayscale


def test_a_large_jpeg_is_measured_like_the_same_photo_as_png(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    large = Image.fromarray(noise).resize((1000, 750), Image.Resampling.BICUBIC)
    jpeg, png = checked(tmp_path, "a.jpg", encode(large)), checked(tmp_path, "a.png", encode(large, "PNG"))
    assert jpeg.sharpness == pytest.approx(png.sharpness, rel=0.1)


def test_threads_answer_in_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for number, path in enumerate(paths):
        smooth(number).save(path)
    assert check_photos(paths, workers=4) == [check_photo(path) for path in paths]


def test_every_reason_is_found_again() -> None:
    assert all(Reason.of(f"{reason} of something") is reason for reason in Reason)
    assert Reason.of("") is None


@pytest.mark.skipif(not EDGE.is_dir(), reason="the hostile files of ../shared/data/edge are not here")
def test_hostile_files_get_an_answer_or_a_reason_in_bounded_memory() -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE_EDGE, str(EDGE)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *lines, megabytes = run.stdout.splitlines()
    answers = {path: rest for path, *rest in (line.split("|") for line in lines)}
    assert len(answers) == sum(path.is_file() for path in EDGE.rglob("*"))
    for path, (measured, excluded, _) in answers.items():
        reason = Reason.of(excluded)
        assert measured == "True" or reason is not None, path
        expected = {"exif_orientation": None, "color_modes": None, "wrong_extension": None, "bombs": Reason.TOO_LARGE}
        folder = path.split("/")[0]
        assert folder not in expected or reason is expected[folder], path
    for name in ("truncated_half.jpg", "truncated.png", "zero_bytes.jpg", "only_jpeg_magic.jpg"):
        assert answers[f"corrupt/{name}"][1].startswith(Reason.CORRUPT)
    assert answers["corrupt/not_an_image.jpg"][1].startswith(Reason.NOT_AN_IMAGE)
    assert answers["wrong_extension/Cat1035.png"][2] == "ending says PNG, bytes are WEBP"
    assert int(megabytes) < 300


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="needs real photos: ../shared/data/hostile is not here")
def test_a_photo_that_takes_too_much_memory_is_excluded_and_the_others_are_checked(tmp_path: Path) -> None:
    smooth(1).save(tmp_path / "photo.jpg")
    paths = [HOSTILE / "webp_65536_prefix_groups.webp", tmp_path / "photo.jpg"]
    excluded = [photo.excluded for photo in check_photos(paths, workers=1)]
    assert Reason.of(excluded[0]) is Reason.TOO_LARGE
    assert "memory" in excluded[0]
    assert excluded[1] == ""
