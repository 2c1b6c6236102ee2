from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.common.files import sha256
from catsdogs_lib.data.synthetic import dataset
from catsdogs_lib.data.synthetic.dataset import DrawnSample, write_sample
from catsdogs_lib.data.synthetic.render import KINDS, draw
from catsdogs_lib.imaging.decoding import PhotoError, UndecodableError, open_photo, read, read_header


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "sample"
    return folder, write_sample(folder, per_class=6, seed=3)


def fault(written, name) -> tuple[Path, DrawnSample]:
    folder, sown = written
    (found,) = [one for one in sown if one.name == name]
    return folder / found.path, found


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


def grey(path: Path) -> np.ndarray:
    return np.asarray(read(path).convert("L").resize((32, 32)), dtype=float).ravel()


def test_each_class_has_its_pictures_and_they_vary(written):
    folder, sown = written
    assert sorted(path.name for path in folder.iterdir()) == ["cats", "dogs"]
    bad = {one.path for one in sown}
    good = [name for name in files(folder) if name not in bad]
    assert sorted(good) == [f"{kind}s/{kind}-{n:04d}.jpg" for kind in ("cat", "dog") for n in range(1, 7)]
    headers = [read_header(open_photo(folder / name)) for name in good]
    assert all(header.format == "JPEG" and header.mode == "RGB" for header in headers)
    assert all(240 <= max(header.width, header.height) <= 480 for header in headers)
    assert len({(header.width, header.height) for header in headers}) > 6
    assert any(header.width > header.height for header in headers)
    assert any(header.width < header.height for header in headers)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_none_of_them(written, tmp_path):
    folder, sown = written
    assert write_sample(tmp_path / "again", per_class=6, seed=3) == sown
    assert files(tmp_path / "again") == files(folder)
    write_sample(tmp_path / "other", per_class=6, seed=4, faults=False)
    assert not set(files(tmp_path / "other").values()) & set(files(folder).values())


def test_samples_of_other_seeds_and_small_seeds_of_draw_share_no_scene(tmp_path, monkeypatch):
    asked: dict[int, set[int]] = {0: set(), 1: set()}
    for seed, seen in asked.items():

        def noted(kind, number, size, seen=seen):
            seen.add(number)
            return draw(kind, number, size)

        monkeypatch.setattr(dataset, "draw", noted)
        write_sample(tmp_path / str(seed), per_class=2, seed=seed)
    assert not asked[0] & asked[1]
    assert min(asked[0] | asked[1]) > 100_000


def test_every_fault_is_sown_once_and_is_a_file_of_its_own(written):
    folder, sown = written
    assert {one.name for one in sown} == {
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
    assert len({one.path for one in sown}) == len(sown)
    assert all((folder / one.path).is_file() and one.what for one in sown)


def test_the_truncated_one_has_a_header_but_no_pixels(written):
    path, _ = fault(written, "truncated")
    assert read_header(open_photo(path)).format == "JPEG"
    with pytest.raises(UndecodableError):
        read(path)


def test_the_text_is_no_photo(written):
    path, _ = fault(written, "text")
    assert path.suffix == ".jpg"
    assert path.read_bytes().isascii()
    with pytest.raises(PhotoError):
        read(path)


def test_the_exact_duplicate_has_the_bytes_of_one_other_of_its_class(written):
    folder, _ = written
    path, found = fault(written, "exact_duplicate")
    same = [name for name, digest in files(folder).items() if digest == sha256(path) and name != found.path]
    assert len(same) == 1
    assert Path(same[0]).parent == Path(found.path).parent
    assert same[0] in found.what


def test_the_picture_with_two_labels_has_the_bytes_of_one_in_another_class(written):
    folder, _ = written
    path, found = fault(written, "two_labels")
    same = [name for name, digest in files(folder).items() if digest == sha256(path) and name != found.path]
    assert len(same) == 1
    assert Path(same[0]).parent != Path(found.path).parent


def test_the_near_duplicate_looks_like_its_original_alone(written):
    imagehash = pytest.importorskip("imagehash")
    folder, sown = written
    path, found = fault(written, "near_duplicate")
    bad = {one.path for one in sown}
    mine = imagehash.phash(read(path))
    near = {
        name
        for name in files(folder)
        if name not in bad
        and imagehash.phash(read(folder / name)) - mine <= 6
        and np.corrcoef(grey(folder / name), grey(path))[0, 1] > 0.97
    }
    assert len(near) == 1
    original = near.pop()
    assert original in found.what
    assert sha256(folder / original) != sha256(path)


def test_the_rotated_one_is_upright_only_by_its_tag(written):
    path, _ = fault(written, "exif_rotated")
    header, upright = read_header(open_photo(path)), read(path)
    assert header.orientation == 6
    assert upright.size == (header.height, header.width)
    number = int(path.stem.split("-")[1])
    drawn, _ = dataset._Plan("cat", number, 3).picture()
    assert np.abs(np.asarray(upright, dtype=float) - np.asarray(drawn)).mean() < 6


@pytest.mark.parametrize(
    ("name", "form", "mode"), [("grayscale", "JPEG", "L"), ("cmyk", "JPEG", "CMYK"), ("alpha", "PNG", "RGBA")]
)
def test_other_colour_modes_are_stored_as_such_and_can_be_read(written, name, form, mode):
    path, _ = fault(written, name)
    header = read_header(open_photo(path))
    assert (header.format, header.mode) == (form, mode)
    assert np.asarray(read(path)).std() > 5
    if name == "alpha":
        assert Image.open(path).getchannel("A").getextrema() == (0, 255)


def test_without_faults_there_are_only_good_pictures(tmp_path):
    assert write_sample(tmp_path / "s", per_class=2, kinds=KINDS, faults=False) == ()
    assert len(files(tmp_path / "s")) == 8
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["cats", "dogs", "owls", "rabbits"]


def test_one_kind_and_one_picture_are_enough(tmp_path):
    sown = write_sample(tmp_path / "s", per_class=1, kinds=("rabbit",))
    assert "two_labels" not in {one.name for one in sown}
    assert len(sown) == 8


def test_a_failure_leaves_what_was_there_and_nothing_half_written(tmp_path, monkeypatch):
    folder = tmp_path / "s"
    write_sample(folder, per_class=1, faults=False)
    before, asked = files(folder), []

    def tires(kind, seed, size):
        asked.append(seed)
        if len(asked) > 3:
            raise RuntimeError("no more ink")
        return draw(kind, seed, size)

    monkeypatch.setattr(dataset, "draw", tires)
    with pytest.raises(RuntimeError, match="no more ink"):
        write_sample(folder, per_class=5)
    assert files(tmp_path) == {f"s/{name}": digest for name, digest in before.items()}
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_an_earlier_sample_is_replaced_whole(tmp_path):
    folder = tmp_path / "s"
    write_sample(folder, per_class=3, kinds=KINDS)
    (folder / ".gitignore").write_text("*")
    write_sample(folder, per_class=1, faults=False)
    assert sorted(files(folder)) == ["cats/cat-0001.jpg", "dogs/dog-0001.jpg"]


def test_a_folder_with_anything_else_is_left_alone(tmp_path):
    mine = tmp_path / "cats" / "holiday.jpg"
    mine.parent.mkdir()
    mine.write_bytes(b"precious")
    with pytest.raises(SettingsError, match=r"holiday\.jpg"):
        write_sample(tmp_path, per_class=1)
    assert mine.read_bytes() == b"precious"
    with pytest.raises(SettingsError, match="is a file"):
        write_sample(mine, per_class=1)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"per_class": 0}, "per_class"),
        ({"seed": -1}, "seed"),
        ({"kinds": ("cat", "cow")}, "kinds"),
        ({"kinds": ()}, "kinds"),
        ({"kinds": ("cat", "cat")}, "kinds"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path, settings, field):
    with pytest.raises(SettingsError) as refused:
        write_sample(tmp_path / "s", **settings)
    assert refused.value.field == field
    assert not (tmp_path / "s").exists()


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Image.Image]]:
    """320 small pictures of each kind."""
    return {kind: [draw(kind, seed, (64, 64)) for seed in range(320)] for kind in KINDS}


@pytest.mark.slow
@pytest.mark.parametrize(("kinds", "side"), [(("cat", "dog"), 32), (("cat", "dog"), 64), (KINDS, 32)])
def test_colours_at_fixed_places_do_not_tell_the_kinds_apart(kinds, side, drawn):
    from sklearn.linear_model import LogisticRegression

    pictures = [picture for same_seed in zip(*map(drawn.get, kinds), strict=True) for picture in same_seed]
    small = [picture.resize((side, side), Image.Resampling.BOX) for picture in pictures]
    pixels = np.stack([np.asarray(picture, dtype=np.float64).ravel() / 255 for picture in small])
    labels = np.arange(len(pictures)) % len(kinds)
    train = np.arange(len(labels)) < 200 * len(kinds)  # 200 a class, as the pretrained features get
    pixels -= pixels[train].mean(axis=0)
    # The weights of a penalised linear model lie in the span of its training pictures: nothing is lost, much time won.
    span = np.linalg.svd(pixels[train], full_matrices=False)[2]
    inputs = pixels @ span.T
    best = max(
        LogisticRegression(C=c, max_iter=1000).fit(inputs[train], labels[train]).score(inputs[~train], labels[~train])
        for c in (1e-3, 1e-2, 1e-1, 1.0)
    )
    assert best < 0.75


@pytest.mark.slow
def test_no_two_drawn_pictures_are_near_duplicates():
    imagehash = pytest.importorskip("imagehash")
    pictures = [draw(kind, seed, (96, 96)) for seed in range(150) for kind in ("cat", "dog")]
    bits = np.stack([imagehash.phash(picture).hash.ravel() for picture in pictures]).astype(np.int32)
    thumbs = np.stack([np.asarray(p.convert("L").resize((32, 32)), dtype=float).ravel() for p in pictures])
    apart = (bits[:, None] != bits[None]).sum(axis=2)
    alike = np.triu((apart <= 6) & (np.corrcoef(thumbs) > 0.97), k=1)
    assert not alike.any(), np.argwhere(alike)
