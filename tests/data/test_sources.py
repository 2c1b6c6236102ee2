"""Sources of photos: every layout that is read, every way it can go wrong, downloads from local stand-ins."""

import base64
import hashlib
import http.server
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from catsdogs_lib.data import layouts
from catsdogs_lib.data.sources import ArchiveError, DownloadError, Fetched, SourceError, fetch, fingerprint, slug


def photo(seed=0):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (seed * 37 % 256, 90, 10)).save(buffer, "JPEG")
    return buffer.getvalue()


def lay(folder, *names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number) if layouts.is_photo(path.name) else b"not a photo")
    return folder


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def get(source, tmp_path, **more):
    return fetch(str(source), tmp_path / "raw", downloads=tmp_path / "downloads", **more)


def refused(source, tmp_path, kind=SourceError):
    """The message of the error, after a look that nothing was left behind."""
    before = files_in(source) if isinstance(source, Path) and source.is_dir() else None
    with pytest.raises(kind) as caught:
        get(source, tmp_path)
    assert not (tmp_path / "raw").exists()
    assert list(tmp_path.glob(".partial-*")) == []
    if before is not None:
        assert files_in(source) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Folders


def test_one_folder_a_class_is_copied_under_its_own_names(tmp_path):
    source = lay(tmp_path / "My Pets", "cats/1.jpg", "cats/2.JPG", "Höhle & 猫/3.png", "dogs/4.webp")
    (source / "cats/broken.jpg").write_bytes(b"")
    assert get(source, tmp_path) == Fetched(str(source), "my-pets", ("Höhle & 猫", "cats", "dogs"), (), 5)
    assert files_in(tmp_path / "raw") == files_in(source)
    assert (tmp_path / "raw/cats/1.jpg").read_bytes() == (source / "cats/1.jpg").read_bytes()


def test_junk_and_loose_files_are_left_behind(tmp_path):
    source = lay(
        tmp_path / "pets",
        "cats/1.jpg",
        "dogs/2.jpg",
        "cats/Thumbs.db",
        "cats/._1.jpg",
        "dogs/.DS_Store",
        "README.md",
        "labels.csv",
        "__MACOSX/cats/1.jpg",
        ".cache/3.jpg",
        "cats/.hidden/4.jpg",
        "cover.jpg",
    )
    assert get(source, tmp_path).files == 2
    assert files_in(tmp_path / "raw") == ["cats/1.jpg", "dogs/2.jpg"]


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training_Set", "VALIDATION", "test_set"), ("train", "valid", "testing")]
)
def test_a_split_is_kept_under_normal_names(tmp_path, names):
    source = lay(tmp_path / "pets", *(f"{name}/{label}/{name}.jpg" for name in names for label in ("cats", "dogs")))
    assert get(source, tmp_path).splits == ("train", "val", "test")
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == ["test", "train", "val"]
    assert (tmp_path / "raw/val/dogs" / f"{names[1]}.jpg").exists()


def test_folders_around_are_looked_through(tmp_path):
    # As a popular set on Kaggle comes: training_set/training_set/cats.
    source = lay(tmp_path / "x", *(f"a/b/{p}/{p}/{c}/1.jpg" for p in ("training_set", "test_set") for c in "cd"))
    fetched = get(source, tmp_path)
    assert (fetched.classes, fetched.splits, fetched.files) == (("c", "d"), ("train", "test"), 4)


def test_train_alone_is_no_split(tmp_path):
    fetched = get(lay(tmp_path / "x", "train/cats/1.jpg", "train/dogs/1.jpg", "test/17.jpg", "test/18.jpg"), tmp_path)
    assert (fetched.classes, fetched.splits, fetched.files) == (("cat", "dog"), (), 2)


def test_classes_may_be_called_like_parts(tmp_path):
    assert get(lay(tmp_path / "x", "train/1.jpg", "car/2.jpg"), tmp_path).classes == ("car", "train")


@pytest.mark.parametrize("around", ["PetImages/", "wrapped/PetImages/", ""])
def test_the_petimages_layout_gives_cat_and_dog(tmp_path, around):
    source = tmp_path / ("kagglecatsanddogs" if around else "PetImages")
    lay(
        source, f"{around}Cat/0.jpg", f"{around}Cat/Thumbs.db", f"{around}Dog/0.jpg", f"{around}Dog/1.jpg", "readme.txt"
    )
    fetched = get(source, tmp_path)
    assert (fetched.classes, fetched.splits, fetched.files) == (("cat", "dog"), (), 3)
    assert (tmp_path / "raw/dog/1.jpg").exists()


@pytest.mark.parametrize("around", ["", "train/", "dogs-vs-cats/train/"])
def test_the_competition_layout_gives_cat_and_dog(tmp_path, around):
    names = [f"{around}{kind}.{number}.jpg" for kind in ("cat", "dog") for number in range(3)]
    source = lay(tmp_path / "x", *names, *(["dogs-vs-cats/test1/1.jpg"] if "/t" in around else []))
    fetched = get(source, tmp_path)
    assert (fetched.classes, fetched.splits, fetched.files) == (("cat", "dog"), (), 6)
    assert files_in(tmp_path / "raw/cat") == ["cat.0.jpg", "cat.1.jpg", "cat.2.jpg"]


def test_nested_photos_are_flattened_under_unique_names(tmp_path):
    source = lay(tmp_path / "x", "c/1.jpg", "c/a/1.jpg", "c/a/b/1.jpg", "c/a__1.jpg", "c/A/1.JPG", "d/1.jpg")
    assert get(source, tmp_path).files == 6
    # Photos directly in the class keep their names; no two names differ in case alone.
    assert files_in(tmp_path / "raw/c") == ["1.jpg", "A__1-2.JPG", "a__1-3.jpg", "a__1.jpg", "a__b__1.jpg"]


def test_names_that_no_other_system_can_write_are_mended(tmp_path):
    source = lay(tmp_path / "x", "cats/1.jpg", "dogs/1.jpg", f"dogs/{'ü' * 120}.jpg")
    (source / os.fsdecode(b"cats/\xff\n.jpg")).write_bytes(photo())
    assert get(source, tmp_path).files == 4
    for name in files_in(tmp_path / "raw"):
        assert len(name.encode()) < 230
        assert name.isprintable()


def test_links_are_copied_as_files_and_loops_end(tmp_path):
    real = lay(tmp_path / "real", "1.jpg", "2.jpg")
    source = lay(tmp_path / "x", "dogs/1.jpg")
    (source / "cats").symlink_to(real)
    (source / "dogs/2.jpg").symlink_to(real / "2.jpg")
    (source / "dogs/again").symlink_to(source)
    assert get(source, tmp_path).files == 4
    assert not any(path.is_symlink() for path in (tmp_path / "raw").rglob("*"))


def test_pipes_named_like_photos_do_not_block(tmp_path):
    source = lay(tmp_path / "x", "cats/1.jpg", "dogs/1.jpg")
    os.mkfifo(source / "cats/pipe.jpg")
    assert get(source, tmp_path).files == 2


def test_what_was_there_is_replaced_only_by_a_whole(tmp_path):
    lay(tmp_path / "raw", "old/1.jpg")
    with pytest.raises(SourceError):
        get(tmp_path / "nowhere", tmp_path)
    assert files_in(tmp_path / "raw") == ["old/1.jpg"]
    get(lay(tmp_path / "x", "cats/1.jpg", "dogs/1.jpg"), tmp_path)
    assert files_in(tmp_path / "raw") == ["cats/1.jpg", "dogs/1.jpg"]


PROBLEMS = [
    ((), "holds no photos"),
    (("notes.txt",), "holds no photos"),
    (("1.jpg", "2.jpg"), "lie flat"),
    (("cats/1.jpg",), "only one class"),
    (("cats/1.jpg", "cats/more/2.jpg"), "only one class"),
    (("train/cats/1.jpg", "test/cats/1.jpg"), "only one class"),
    (("cat.1.jpg", "cat.2.jpg"), "only one class"),
    (("cat.1.jpg", "cat.2.jpg", "dog.1.jpg", "holiday.jpg"), "'holiday.jpg'"),
    (("cats/1.jpg", "dogs/notes.txt"), "'dogs' holds no photos"),
    (("cats/a.txt", "dogs/b.txt"), "(cats, dogs) hold no photos"),
    (("cats/1.jpg", "Cats/1.jpg", "dogs/1.jpg"), "one name"),
    (("train/cats/1.jpg", "train/dogs/1.jpg", "test/cats/1.jpg", "test/dog/1.jpg"), "'test' has cats, dog"),
    (("train/c/1.jpg", "train/d/1.jpg", "val/1.jpg"), "'val' has no class folders"),
    (("train/c/1.jpg", "train/d/1.jpg", "val/c/1.jpg", "val/d/1.jpg", "valid/c/1.jpg"), "same part"),
    (("train/c/1.jpg", "train/d/1.jpg", "test/c/1.jpg", "test/d/1.jpg", "more/c/1.jpg"), "'more'"),
    (("train.zip", "test1.zip"), "test1.zip"),
    (("/".join("a" * 40) + "/1.jpg",), "32 deep"),
]


@pytest.mark.parametrize(("names", "says"), PROBLEMS)
def test_what_cannot_be_told_apart_is_explained(tmp_path, names, says):
    source = tmp_path / "pets"
    source.mkdir()
    assert says in refused(lay(source, *names), tmp_path)


@pytest.mark.parametrize("source", ["kagle", "", " ", "no/such/folder", "nul\0byte"])
def test_an_unknown_source_lists_the_known_ones(tmp_path, source):
    assert "name sample, kaggle, oxford-pets, or a folder or zip" in refused(source, tmp_path)


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    assert "neither a folder nor a zip" in refused(lay(tmp_path, "one.jpg") / "one.jpg", tmp_path)


@pytest.mark.parametrize("source", ["raw", "raw/inner", "."])
def test_a_destination_in_the_source_never_costs_the_users_photos(tmp_path, source):
    folder = lay(tmp_path / source, "cats/1.jpg", "dogs/1.jpg")
    before = files_in(tmp_path)
    with pytest.raises(SourceError, match="lie in one another"):
        get(folder, tmp_path)
    assert files_in(tmp_path) == before


def run_apart(code, *command, env=None):
    """Run in a process of its own, which may have other rights or limits."""
    return subprocess.run(
        [*command, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
        env=env,
    )


FETCH = "from pathlib import Path; from catsdogs_lib.data.sources import fetch\n"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root to become somebody else")
def test_an_unreadable_folder_is_named(tmp_path):
    source = lay(tmp_path / "pets", "cats/1.jpg", "dogs/1.jpg")
    (source / "dogs").chmod(0o700)
    # pytest's own folders are closed to others; only a process without capabilities sees any of that.
    drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--regid=65534", "--clear-groups")
    for path in (source, source / "dogs"):
        os.chown(path, 12345, 12345)
    code = FETCH + f"fetch({str(source)!r}, Path({str(tmp_path / 'raw')!r}), downloads=Path('/nonexistent'))"
    done = run_apart(code, *drop)
    if done.stderr.startswith("setpriv:"):
        pytest.skip(f"rights cannot be dropped here: {done.stderr}")
    assert "SourceError" in done.stderr
    assert f"not allowed ('{source / 'dogs'}')" in done.stderr
    assert not (tmp_path / "raw").exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, plain_environment):
    """A limit on the size of files stands in for the disk."""
    source = lay(tmp_path / "pets", "cats/1.jpg", "dogs/1.jpg")
    (source / "cats/2.jpg").write_bytes(bytes(100_000))
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
    code = FETCH + limit + f"fetch({str(source)!r}, Path({str(tmp_path / 'raw')!r}), downloads=Path('/nonexistent'))"
    done = run_apart(code, env=plain_environment)
    assert "SourceError" in done.stderr
    assert "there is no room" in done.stderr
    assert list(tmp_path.iterdir()) == [source]


# Archives


def pack(folder, target):
    with zipfile.ZipFile(target, "w") as packed:
        for name in files_in(folder):
            packed.write(folder / name, name)
    return target


def test_a_zip_is_read_like_the_folder_in_it(tmp_path):
    folder = lay(tmp_path / "x", "pets/train/cats/1.jpg", "pets/train/dogs/1.jpg", "pets/test/cats/2.jpg", "a.txt")
    lay(folder, "pets/test/dogs/2.jpg", "__MACOSX/pets/._1.jpg")
    archive = pack(folder, tmp_path / "Meine Tiere.zip")
    fetched = get(archive, tmp_path)
    assert fetched == Fetched(str(archive), "meine-tiere", ("cat", "dog"), ("train", "test"), 4)
    assert files_in(tmp_path / "raw/test") == ["cats/2.jpg", "dogs/2.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Meine Tiere.zip", "raw", "x"]


def test_a_zip_of_petimages_and_a_tar_of_the_competition_are_read(tmp_path):
    pets = pack(lay(tmp_path / "x", "PetImages/Cat/0.jpg", "PetImages/Dog/0.jpg"), tmp_path / "pets.zip")
    assert get(pets, tmp_path).classes == ("cat", "dog")
    lay(tmp_path / "y/train", "cat.0.jpg", "dog.0.jpg")
    with tarfile.open(tmp_path / "y.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "y/train", "train")
    fetched = get(tmp_path / "y.tar.gz", tmp_path)
    assert (fetched.slug, fetched.classes, fetched.files) == ("y", ("cat", "dog"), 2)


def test_a_bad_archive_leaves_nothing(tmp_path):
    slip = tmp_path / "slip.zip"
    with zipfile.ZipFile(slip, "w") as packed:
        packed.writestr("cats/1.jpg", photo())
        packed.writestr("../dogs/1.jpg", photo())
    assert "outside" in refused(slip, tmp_path, ArchiveError)
    half = pack(lay(tmp_path / "x", "cats/1.jpg", "dogs/1.jpg"), tmp_path / "half.zip")
    half.write_bytes(half.read_bytes()[:300])
    assert "incomplete" in refused(half, tmp_path, ArchiveError)
    inner = tmp_path / "inner.zip"
    with zipfile.ZipFile(inner, "w") as packed:
        packed.write(half, "train.zip")
    assert "only an archive (train.zip)" in refused(inner, tmp_path)


# Names and fingerprints


def test_slugs_are_plain(tmp_path):
    names = {"sample": "sample", "/a/Böse Katzen!.tar.gz": "bose-katzen", "/a/猫": "photos", "x/v1.2/": "v1-2"}
    assert {name: slug(name) for name in names} == names


def test_the_sample_is_drawn(tmp_path):
    fetched = get("sample", tmp_path, per_class=4, seed=1)
    assert (fetched.source, fetched.slug, fetched.classes, fetched.splits) == ("sample", "sample", ("cat", "dog"), ())
    assert fetched.files == len([name for name in files_in(tmp_path / "raw") if layouts.is_photo(name)])
    assert fetched.files >= 8


def test_a_fingerprint_follows_every_change_and_nothing_else(tmp_path):
    assert [fingerprint(name) for name in ("sample", "kaggle", "oxford-pets")] == ["", "", ""]
    source = lay(tmp_path / "x", "cats/1.jpg", "dogs/1.jpg")
    seen = [fingerprint(str(source))]
    lay(source, "notes.txt")
    moved = source.rename(tmp_path / "y")
    assert fingerprint(str(moved)) == seen[0]
    lay(moved, "cats/2.jpg")
    seen.append(fingerprint(str(moved)))
    os.utime(moved / "cats/2.jpg", (1e9, 1e9))
    seen.append(fingerprint(str(moved)))
    (moved / "cats/2.jpg").rename(moved / "dogs/2.jpg")
    seen.append(fingerprint(str(moved)))
    archive = pack(moved, tmp_path / "y.zip")
    seen.append(fingerprint(str(archive)))
    os.utime(archive, (1e9, 1e9))
    seen.append(fingerprint(str(archive)))
    assert len(set(seen)) == len(seen)
    with pytest.raises(SourceError, match="no such folder"):
        fingerprint(str(tmp_path / "nowhere"))


# Downloads, from stand-ins on this machine that speak the same protocol


class Server(http.server.ThreadingHTTPServer):
    """Answers from a table of paths; a value is the body, or a status."""

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
        answer = self.server.answers.get(self.path, 404)
        body, status = (b"", answer) if isinstance(answer, int) else (answer, 200)
        if isinstance(answer, str):
            body, status = b"", 302
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.server.url + answer)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/octet-stream")
        if status == 200:
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("x-goog-hash", "md5=" + base64.b64encode(hashlib.md5(body).digest()).decode())
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(answers):
        server = Server(answers)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def at_kaggle(monkeypatch, tmp_path):
    """Point kagglehub at another address, with neither credentials nor cache of this machine."""
    from kagglesdk import kaggle_env

    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLEHUB_CACHE", "KAGGLE_API_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "home/.kaggle"))
    monkeypatch.setenv("NO_PROXY", "*")
    return lambda url: monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, url)


DOWNLOAD = "/v1/datasets.DatasetApiService/DownloadDataset"


def test_kaggle_is_downloaded_once_and_read(tmp_path, serve, at_kaggle, monkeypatch):
    folder = lay(tmp_path / "x", "PetImages/Cat/0.jpg", "PetImages/Cat/1.jpg", "PetImages/Dog/0.jpg")
    lay(folder, "PetImages/Cat/Thumbs.db")
    server = serve({DOWNLOAD: "/gcs/archive.zip", "/gcs/archive.zip": pack(folder, tmp_path / "a.zip").read_bytes()})
    at_kaggle(server.url)
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    assert get("kaggle", tmp_path) == Fetched("kaggle", "kaggle", ("cat", "dog"), (), 3)
    assert files_in(tmp_path / "raw") == ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg"]
    assert server.asked[0] == ("POST", DOWNLOAD, "Basic " + base64.b64encode(b"ada:secret").decode())
    assert server.asked[1][:2] == ("GET", "/gcs/archive.zip")
    at_kaggle(closed_port())
    assert get("kaggle", tmp_path).files == 3
    assert "KAGGLEHUB_CACHE" not in os.environ
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("status", [401, 403])
def test_kaggle_refusing_asks_for_credentials(tmp_path, serve, at_kaggle, status):
    at_kaggle(serve({DOWNLOAD: status}).url)
    message = refused("kaggle", tmp_path, DownloadError)
    for part in (str(status), "kaggle.json", "KAGGLE_USERNAME", "KAGGLE_KEY", "name the folder or zip"):
        assert part in message


@pytest.mark.parametrize("status", [404, 429, 500])
def test_kaggle_in_trouble_says_try_later(tmp_path, serve, at_kaggle, status):
    at_kaggle(serve({DOWNLOAD: status}).url)
    assert f"answers {status}; try again later" in refused("kaggle", tmp_path, DownloadError)


def test_no_connection_to_kaggle_is_one_sentence(tmp_path, at_kaggle):
    at_kaggle(closed_port())
    assert "check the connection, or download it from https://www.kaggle" in refused("kaggle", tmp_path, DownloadError)


def test_a_damaged_download_from_kaggle_is_named(tmp_path, serve, at_kaggle):
    at_kaggle(serve({DOWNLOAD: b"<html>not an archive</html>"}).url)
    assert "damaged" in refused("kaggle", tmp_path, DownloadError)


def test_a_credentials_file_that_cannot_be_read_is_named(tmp_path, at_kaggle):
    at_kaggle(closed_port())
    lay(tmp_path / "home/.kaggle", "kaggle.json")
    assert "Invalid Kaggle credentials file" in refused("kaggle", tmp_path, DownloadError)


def tar_gz(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


PETS = {"Abyssinian_1": 1, "Abyssinian_2": 1, "beagle_1": 2, "beagle_10": 2}
LISTS = {
    "annotations/README": b"",
    "annotations/trainval.txt": b"Abyssinian_1 1 1 1\nbeagle_1 5 2 1\n",
    "annotations/test.txt": b"Abyssinian_2 1 1 1\nbeagle_10 5 2 1\n",
}


@pytest.fixture
def at_oxford(monkeypatch, tmp_path):
    """Point torchvision's set at archives of the same layout elsewhere."""
    from torchvision.datasets import OxfordIIITPet

    monkeypatch.setenv("NO_PROXY", "*")

    def point(url, bodies):
        resources = tuple((f"{url}/{name}.tar.gz", hashlib.md5(body).hexdigest()) for name, body in bodies.items())
        monkeypatch.setattr(OxfordIIITPet, "_RESOURCES", resources)

    return point


def pets_bodies():
    images = {f"images/{name}.jpg": photo(number) for number, name in enumerate(PETS)} | {"images/x.mat": b"matlab"}
    return {"images": tar_gz(images), "annotations": tar_gz(LISTS)}


# From Python 3.12 on, tarfile warns about how torchvision calls it.
tar_warns = pytest.mark.filterwarnings("ignore:Python 3.14:DeprecationWarning")


@tar_warns
def test_oxford_pets_keeps_its_split_and_its_files(tmp_path, serve, at_oxford):
    bodies = pets_bodies()
    server = serve({f"/{name}.tar.gz": body for name, body in bodies.items()})
    at_oxford(server.url, bodies)
    fetched = get("oxford-pets", tmp_path)
    assert fetched == Fetched("oxford-pets", "oxford-pets", ("cat", "dog"), ("train", "test"), 4)
    assert files_in(tmp_path / "raw") == [
        "test/cats/Abyssinian_2.jpg",
        "test/dogs/beagle_10.jpg",
        "train/cats/Abyssinian_1.jpg",
        "train/dogs/beagle_1.jpg",
    ]
    assert (tmp_path / "raw/test/dogs/beagle_10.jpg").read_bytes() == photo(3)
    at_oxford(closed_port(), bodies)
    assert get("oxford-pets", tmp_path).files == 4


@tar_warns
def test_half_unpacked_pets_are_unpacked_again(tmp_path, serve, at_oxford):
    bodies = pets_bodies()
    at_oxford(serve({f"/{name}.tar.gz": body for name, body in bodies.items()}).url, bodies)
    lay(tmp_path / "downloads/oxford-iiit-pet", "images/Abyssinian_1.jpg", "annotations/README")
    assert get("oxford-pets", tmp_path).files == 4


def test_no_connection_to_oxford_is_one_sentence(tmp_path, at_oxford):
    at_oxford(closed_port(), pets_bodies())
    assert "cannot be reached" in refused("oxford-pets", tmp_path, DownloadError)


def test_oxford_in_trouble_is_one_sentence(tmp_path, serve, at_oxford):
    at_oxford(serve({}).url, pets_bodies())
    assert "404" in refused("oxford-pets", tmp_path, DownloadError)


def test_a_changed_archive_of_oxford_is_not_used(tmp_path, serve, at_oxford):
    at_oxford(serve({"/images.tar.gz": b"something else"}).url, pets_bodies())
    assert "damaged" in refused("oxford-pets", tmp_path, DownloadError)


@tar_warns
def test_a_listed_photo_that_is_missing_is_named(tmp_path, serve, at_oxford):
    bodies = pets_bodies() | {"images": tar_gz({"images/Abyssinian_1.jpg": photo()})}
    at_oxford(serve({f"/{name}.tar.gz": body for name, body in bodies.items()}).url, bodies)
    assert "'beagle_1.jpg' is missing" in refused("oxford-pets", tmp_path, DownloadError)


def test_a_server_that_falls_silent_is_given_up(tmp_path, at_oxford, monkeypatch):
    monkeypatch.setattr("catsdogs_lib.data.downloads.TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at_oxford(f"http://127.0.0.1:{silent.getsockname()[1]}", pets_bodies())
        assert "cannot be reached" in refused("oxford-pets", tmp_path, DownloadError)
    assert socket.getdefaulttimeout() is None


def test_importing_sources_imports_no_downloader():
    code = "import sys, catsdogs_lib.data.sources\nassert not {'torch', 'torchvision', 'kagglehub'} & set(sys.modules)"
    done = run_apart(code)
    assert done.returncode == 0, done.stderr
