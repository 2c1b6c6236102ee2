import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from catsdogs_lib.common.errors import CatsdogsError, SettingsError
from catsdogs_lib.data.folders import LayoutError, find_photos
from catsdogs_lib.data.manifest import (
    COLUMNS,
    EmptyClassError,
    ManifestError,
    PrepareSettings,
    build_manifest,
    classes,
    data_hash,
    read_manifest,
    split_key,
    used,
    write_manifest,
)
from catsdogs_lib.data.synthetic.dataset import write_sample

SETTINGS = PrepareSettings(validation=0.2, test=0.2)


def smooth(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((80, 60), Image.Resampling.BICUBIC)


def write(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    smooth(seed).save(path, quality=90)
    return path


def shrunk(path: Path, seed: int) -> None:
    smooth(seed).resize((64, 48), Image.Resampling.LANCZOS).save(path, quality=90)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Ten photos of each of two classes."""
    for number in range(10):
        write(tmp_path / f"raw/cats/{number}.jpg", number)
        write(tmp_path / f"raw/dogs/{number}.jpg", 100 + number)
    return tmp_path / "raw"


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """The same with a given split into train and test."""
    for number in range(10):
        write(tmp_path / f"raw/train/cats/{number}.jpg", number)
        write(tmp_path / f"raw/train/dogs/{number}.jpg", 100 + number)
    for number in range(4):
        write(tmp_path / f"raw/test/cats/{number}.jpg", 200 + number)
        write(tmp_path / f"raw/test/dogs/{number}.jpg", 300 + number)
    return tmp_path / "raw"


def reason(table: pd.DataFrame, path: str) -> str:
    return str(table.set_index("path").loc[path, "excluded"])


def counts(table: pd.DataFrame) -> dict[tuple[str, str], int]:
    rows = used(table)
    return Counter(zip(rows["label"], rows["split"], strict=True))


def test_a_clean_folder_is_used_whole(raw: Path) -> None:
    table = build_manifest(raw, SETTINGS)
    assert list(table["path"]) == sorted(f"{label}/{n}.jpg" for label in ("cats", "dogs") for n in range(10))
    assert counts(table) == {(c, s): n for c in ("cat", "dog") for s, n in (("train", 6), ("val", 2), ("test", 2))}
    assert classes(table) == ("cat", "dog")
    assert table["group"].nunique() == 20
    assert (table["excluded"] == "").all()
    assert len(used(table, "val")) == 4


def test_a_manifest_is_read_as_it_was_written(raw: Path, tmp_path: Path) -> None:
    (raw / 'cats/a, "b".jpg').write_bytes(b"no photo")
    (raw / "cats/NA").write_bytes(b"no photo")
    table = build_manifest(raw, SETTINGS)
    write_manifest(table, tmp_path / "one.csv")
    again = read_manifest(tmp_path / "one.csv")
    pd.testing.assert_frame_equal(again, table)
    write_manifest(again.sample(frac=1, random_state=1), tmp_path / "two.csv")
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert b"\r" not in (tmp_path / "one.csv").read_bytes()
    assert data_hash(again) == data_hash(table)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        (b"", "not that of a manifest"),
        (b"\xff\xfe\x00", "not that of a manifest"),
        (b"path,label\na,b\n", "columns"),
        (",".join(COLUMNS).encode() + b"\n" + b"x," * 16 + b"x\n", "not that of a manifest"),
    ],
)
def test_what_is_no_manifest_is_refused_in_a_sentence(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "manifest.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ManifestError, match=words) as caught:
        read_manifest(path)
    assert caught.value.path == path


def test_the_hash_follows_content_and_not_names(raw: Path) -> None:
    table = build_manifest(raw, SETTINGS)
    (raw / "cats/0.jpg").rename(raw / "cats/renamed.jpg")
    assert data_hash(build_manifest(raw, SETTINGS)) == data_hash(table)
    shutil.copy(raw / "cats/1.jpg", raw / "cats/copy.jpg")
    assert data_hash(build_manifest(raw, SETTINGS)) == data_hash(table)
    assert data_hash(build_manifest(raw, PrepareSettings(validation=0.2, test=0.2, seed=1))) != data_hash(table)


def test_of_exact_duplicates_one_is_kept_and_stays_the_one(raw: Path) -> None:
    first = build_manifest(raw, SETTINGS)
    shutil.copy(raw / "cats/3.jpg", raw / "cats/00.jpg")
    assert reason(build_manifest(raw, SETTINGS), "cats/3.jpg") == "exact duplicate of cats/00.jpg"
    table = build_manifest(raw, SETTINGS, first)
    assert reason(table, "cats/00.jpg") == "exact duplicate of cats/3.jpg"
    assert table.set_index("path").loc["cats/00.jpg", "split"] == ""
    groups = table.set_index("path")["group"]
    assert groups["cats/00.jpg"] == groups["cats/3.jpg"]


def test_a_near_duplicate_is_used_in_the_same_split(raw: Path) -> None:
    for number in range(10):
        shrunk(raw / f"cats/small-{number}.jpg", number)
    shutil.copy(raw / "cats/3.jpg", raw / "cats/three.jpg")
    shutil.copy(raw / "cats/small-3.jpg", raw / "cats/small-three.jpg")
    table = build_manifest(raw, SETTINGS)
    assert len(used(table)) == 30
    assert (used(table).groupby("group")["split"].nunique() == 1).all()
    assert Counter(table.loc[table["label"] == "cat", "group"].value_counts()) == {2: 9, 4: 1}


def test_the_same_photo_under_two_labels_is_left_out_under_both(raw: Path) -> None:
    shutil.copy(raw / "cats/3.jpg", raw / "dogs/cat.jpg")
    shrunk(raw / "dogs/small.jpg", 4)
    table = build_manifest(raw, SETTINGS)
    assert reason(table, "cats/3.jpg") == "the same photo under two labels: also dogs/cat.jpg"
    assert reason(table, "dogs/cat.jpg") == "the same photo under two labels: also cats/3.jpg"
    assert reason(table, "cats/4.jpg") == "the same photo under two labels: also dogs/small.jpg"
    assert reason(table, "dogs/small.jpg") == "the same photo under two labels: also cats/4.jpg"
    assert len(used(table)) == 18


def test_flat_pictures_stay_apart_but_not_under_two_labels(raw: Path) -> None:
    for level in (0, 80, 160):
        Image.new("RGB", (64, 64), (level, 0, 0)).save(raw / f"cats/flat-{level}.png")
    shutil.copy(raw / "cats/flat-80.png", raw / "dogs/flat.png")
    table = build_manifest(raw, SETTINGS)
    assert reason(table, "dogs/flat.png") == "the same photo under two labels: also cats/flat-80.png"
    assert reason(table, "cats/flat-0.png") == ""
    assert table["group"].nunique() == 23


def test_a_person_can_exclude_by_path_or_bytes_and_so_settle_a_conflict(raw: Path, tmp_path: Path) -> None:
    shutil.copy(raw / "cats/3.jpg", raw / "dogs/cat.jpg")
    by_path = tmp_path / "exclusions.csv"
    by_path.write_text("path,reason\ndogs/cat.jpg,it is a cat\nelsewhere/1.jpg,not here\n")
    table = build_manifest(raw, PrepareSettings(exclusions=str(by_path)))
    assert reason(table, "dogs/cat.jpg") == "excluded by hand: it is a cat"
    assert reason(table, "cats/3.jpg") == ""
    by_sha256 = tmp_path / "sums.csv"
    by_sha256.write_text(f"sha256,reason\n{table.set_index('path').loc['cats/3.jpg', 'sha256']},blurred\n")
    table = build_manifest(raw, PrepareSettings(exclusions=str(by_sha256)))
    assert {reason(table, "cats/3.jpg"), reason(table, "dogs/cat.jpg")} == {"excluded by hand: blurred"}


@pytest.mark.parametrize("content", [None, b"", b"file,why\na,b\n", b"path,reason\n\xff\xfe\n"])
def test_exclusions_that_cannot_be_read_are_refused(raw: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "exclusions.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="exclusions") as caught:
        build_manifest(raw, PrepareSettings(exclusions=str(path)))
    assert caught.value.field == "exclusions"


def test_a_given_split_is_kept_and_val_is_cut_off_train(halves: Path) -> None:
    table = build_manifest(halves, SETTINGS)
    assert counts(table) == {(c, s): n for c in ("cat", "dog") for s, n in (("train", 8), ("val", 2), ("test", 4))}
    assert used(table, "test")["path"].str.startswith("test/").all()
    (halves / "train").rename(halves / "learn")
    for number in range(3):
        write(halves / f"val/cats/{number}.jpg", 400 + number)
        write(halves / f"val/dogs/{number}.jpg", 500 + number)
    (halves / "learn").rename(halves / "train")
    shutil.copy(halves / "val/cats/1.jpg", halves / "train/cats/copy.jpg")
    table = build_manifest(halves, SETTINGS)
    assert counts(table)["cat", "val"] == 3
    assert reason(table, "train/cats/copy.jpg") == "exact duplicate of val/cats/1.jpg"


def test_the_given_test_set_stays_whole(halves: Path) -> None:
    shutil.copy(halves / "test/cats/0.jpg", halves / "train/cats/00.jpg")
    shrunk(halves / "train/dogs/small.jpg", 301)
    table = build_manifest(halves, SETTINGS)
    assert reason(table, "train/cats/00.jpg") == "exact duplicate of test/cats/0.jpg"
    assert reason(table, "train/dogs/small.jpg") == "near-duplicate of test photo test/dogs/1.jpg"
    assert len(used(table, "test")) == 8


def test_adding_photos_moves_none(raw: Path) -> None:
    before = build_manifest(raw, SETTINGS).set_index("sha256")["split"]
    for number in range(10, 25):
        write(raw / f"cats/new-{number}.jpg", number)
        write(raw / f"dogs/new-{number}.jpg", 100 + number)
    (raw / "dogs/5.jpg").rename(raw / "dogs/renamed.jpg")
    after = build_manifest(raw, SETTINGS, build_manifest_of(before, raw))
    now = after.set_index("sha256")["split"]
    assert (now[before.index] == before).all()
    assert counts(after)["cat", "train"] == 15


def build_manifest_of(split: "pd.Series[str]", raw: Path) -> pd.DataFrame:
    """An earlier manifest, of which only bytes and split matter."""
    return pd.DataFrame({"path": "x", "sha256": split.index, "split": split.to_numpy(), "excluded": ""})


def test_more_classes_and_nested_folders_are_fine(raw: Path) -> None:
    for number in range(5):
        write(raw / f"birds/small/{number}.jpg", 600 + number)
    (raw / "cats/.hidden.jpg").write_bytes(b"x")
    (raw / "notes.txt").write_text("x")
    table = build_manifest(raw, SETTINGS)
    assert classes(table) == ("birds", "cats", "dogs")
    assert "birds/small/0.jpg" in set(table["path"])
    assert len(table) == 25


def test_an_odd_file_name_can_be_written(raw: Path, tmp_path: Path) -> None:
    shutil.copy(raw / "cats/1.jpg", bytes(raw / "cats") + b"/\xff.jpg")
    table = build_manifest(raw, SETTINGS)
    write_manifest(table, tmp_path / "manifest.csv")
    assert reason(read_manifest(tmp_path / "manifest.csv"), "cats/\\udcff.jpg") == "exact duplicate of cats/1.jpg"


def test_a_class_without_usable_photos_is_named_with_the_commonest_reason(raw: Path) -> None:
    for number in range(3):
        write(raw / f"birds/{number}.jpg", number).write_bytes(b"\xff\xd8\xff")
    with pytest.raises(EmptyClassError, match="'birds' has no photo that can be used: 0 of its 3 files") as caught:
        build_manifest(raw, SETTINGS)
    assert (caught.value.label, caught.value.reason, caught.value.split) == ("birds", "corrupt", "")
    shutil.rmtree(raw / "birds")
    for number in range(2):
        write(raw / f"birds/{number}.jpg", 600 + number)
    with pytest.raises(EmptyClassError, match="'birds' has no photo in") as caught:
        build_manifest(raw, SETTINGS)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_folders_without_classes_are_refused_in_a_sentence(tmp_path: Path) -> None:
    def refused(folder: Path, words: str) -> None:
        with pytest.raises(LayoutError, match=words) as caught:
            find_photos(folder)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

    refused(tmp_path / "missing", "no such folder")
    refused(tmp_path, "no folder of photos")
    refused(write(tmp_path / "cats/1.jpg", 1), "this is a file")
    refused(tmp_path, "'cats' is the only class")
    (tmp_path / "cats/1.jpg").unlink()
    (tmp_path / "dogs").mkdir()
    refused(tmp_path, "hold no files")
    (tmp_path / "train/cats").mkdir(parents=True)
    refused(tmp_path, "'cats' lies beside 'train'")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("validation", 0.0),
        ("validation", 1.0),
        ("validation", float("nan")),
        ("test", -0.1),
        ("test", "0.1"),
        ("test", True),
        ("seed", -1),
        ("seed", 0.5),
        ("min_side", 0),
        ("exclusions", None),
    ],
)
def test_settings_that_cannot_be_used_are_named(field: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        PrepareSettings.checked(**{field: value})
    assert caught.value.field == f"prepare.{field}"


def test_shares_leave_something_to_train_on() -> None:
    with pytest.raises(CatsdogsError, match="nothing for training"):
        PrepareSettings(validation=0.5, test=0.5)


def test_the_key_follows_what_decides_the_split() -> None:
    key = split_key(PrepareSettings())
    assert split_key(PrepareSettings(min_side=64, exclusions="x.csv")) == key
    others = {
        split_key(PrepareSettings(validation=0.2)),
        split_key(PrepareSettings(test=0.2)),
        split_key(PrepareSettings(seed=1)),
    }
    assert len(others | {key}) == 4


def test_every_fault_of_the_drawn_sample_is_found(tmp_path: Path) -> None:
    sown = write_sample(tmp_path / "raw", per_class=30, seed=0)
    table = build_manifest(tmp_path / "raw", PrepareSettings()).set_index("path")
    rows = {fault.name: table.loc[fault.path] for fault in sown}
    originals = {fault.name: next((path for path in table.index if path in fault.what), "") for fault in sown}
    assert rows["truncated"]["excluded"].startswith("corrupt")
    assert rows["text"]["excluded"].startswith("not an image")
    copy, original = next(fault.path for fault in sown if fault.name == "exact_duplicate"), originals["exact_duplicate"]
    assert {table.loc[copy, "excluded"], table.loc[original, "excluded"]} == {"", f"exact duplicate of {original}"}
    near, like = rows["near_duplicate"], table.loc[originals["near_duplicate"]]
    assert (near["group"], near["split"]) == (like["group"], like["split"])
    assert rows["two_labels"]["excluded"].startswith("the same photo under two labels")
    assert table.loc[originals["two_labels"], "excluded"].startswith("the same photo under two labels")
    assert (rows["exif_rotated"]["orientation"], rows["exif_rotated"]["excluded"]) == (6, "")
    assert rows["grayscale"]["grayscale"]
    assert (rows["cmyk"]["mode"], rows["cmyk"]["excluded"]) == ("CMYK", "")
    assert (rows["alpha"]["mode"], rows["alpha"]["excluded"]) == ("RGBA", "")
    assert {fault.name for fault in sown} == {
        "truncated",
        "text",
        "exact_duplicate",
        "near_duplicate",
        "two_labels",
        "exif_rotated",
        "grayscale",
        "cmyk",
        "alpha",
    }
    # Nothing but what was sown is left out or grouped: drawn pictures differ enough.
    assert (table["excluded"] != "").sum() == 5
    assert (table["group"].value_counts() > 1).sum() == 3
