import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catsdogs_lib.data.synthetic.render import draw

ROOT = Path(__file__).parents[2]
CATSDOGS = Path(sys.executable).parent / "catsdogs"


def catsdogs(*arguments, cwd=ROOT, **options):
    return subprocess.run([CATSDOGS, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, **options)


def refused(done):
    """One sentence on stderr, exit status 2, no traceback."""
    assert done.returncode == 2, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("catsdogs: ")
    return lines[0]


@pytest.fixture
def project(tmp_path):
    """What the graph is read from, apart from the project itself: a test that fails must not change that."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for kind in ("cat", "dog"):
        draw(kind, 500).save(folder / f"{kind}.jpg")
    (folder / "text.jpg").write_text("no photo")
    (folder / "notes.txt").write_text("passed over")
    return folder


def test_predict_answers_one_json_object_a_line(photos, bundle_folder):
    done = catsdogs("predict", photos, "--bundle", bundle_folder, "--json")
    assert done.returncode == 1, "one photo could not be answered"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["path"]).name for line in lines] == ["cat.jpg", "dog.jpg", "text.jpg"]
    assert set(lines[0]) == {"path", "prediction", "confidence", "probabilities", "confident", "reason"}
    assert [line["prediction"] for line in lines[:2]] == ["cat", "dog"]
    assert set(lines[2]) == {"path", "error"}
    assert done.stderr == ""


def test_predict_ends_with_zero_when_all_are_answered(photos, bundle_folder):
    assert catsdogs("predict", photos / "cat.jpg", photos / "dog.jpg", "--bundle", bundle_folder).returncode == 0


def test_a_missing_photo_is_an_error_line_and_status_one(bundle_folder, tmp_path):
    done = catsdogs("predict", tmp_path / "none.jpg", "--bundle", bundle_folder, "--json")
    assert done.returncode == 1
    assert "No such file" in json.loads(done.stdout)["error"]


def test_on_a_terminal_the_answer_is_a_table(photos, bundle_folder):
    import pty

    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [CATSDOGS, "predict", photos, "--bundle", bundle_folder], stdout=follower, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert child.wait() == 1
    text = shown.decode()
    assert "probability" in text
    assert "cat.jpg" in text
    assert "not a photo" in text.replace("\r\n", " ")


def test_the_environment_names_the_bundle(photos, bundle_folder):
    environment = {**os.environ, "CATSDOGS_BUNDLE": str(bundle_folder)}
    assert catsdogs("predict", photos / "cat.jpg", env=environment).returncode == 0


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["predict"], ["predict", "--nonsense", "x"], ["run"], ["pipeline", "--set", "x"]]
)
def test_a_wrong_command_is_one_sentence(arguments):
    refused(catsdogs(*arguments))


def test_help_is_shown():
    done = catsdogs("--help")
    assert done.returncode == 0
    assert {"predict", "run", "pipeline", "data"} <= set(done.stdout.split())


def test_an_empty_folder_is_one_sentence(tmp_path, bundle_folder, project):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no photos" in refused(catsdogs("predict", empty, "--bundle", bundle_folder))
    refused(catsdogs("data", "check", empty))
    assert "holds no photos" in refused(catsdogs("pipeline", "--data", empty, cwd=project))
    unchanged(project)


def test_a_folder_of_one_class_only_is_one_sentence(tmp_path, project):
    (tmp_path / "one" / "cats").mkdir(parents=True)
    draw("cat", 1).save(tmp_path / "one" / "cats" / "1.jpg")
    assert "only one class" in refused(catsdogs("pipeline", "--data", tmp_path / "one", cwd=project))
    unchanged(project)
    assert "only class" in refused(catsdogs("data", "check", tmp_path / "one"))


def test_an_unreadable_folder_is_one_sentence(tmp_path, bundle_folder):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "cat.jpg").write_bytes(b"x")
    code = (
        # What the system says to anybody but root.
        "import os, sys\n"
        "def scandir(path, real=os.scandir):\n"
        f"    if str(path) == {str(hidden)!r}:\n"
        "        raise PermissionError(13, 'Permission denied', path)\n"
        "    return real(path)\n"
        "os.scandir = scandir\n"
        f"sys.argv = ['catsdogs', 'predict', {str(hidden)!r}, '--bundle', {str(bundle_folder)!r}]; "
        "from catsdogs_lib.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "Permission denied" in refused(done)


def test_a_missing_source_is_one_sentence(tmp_path, project):
    assert "nowhere" in refused(catsdogs("pipeline", "--data", tmp_path / "nowhere", cwd=project))
    unchanged(project)


@pytest.mark.parametrize("setting", ["train.epochs=-1", "train.model=", "prepare.test=7", "train.nonsense=1"])
def test_a_bad_parameter_is_one_sentence_and_changes_nothing(setting, project):
    name = setting.split("=")[0]
    assert name.split(".")[1] in refused(catsdogs("pipeline", "--set", setting, cwd=project))
    unchanged(project)


def unchanged(project):
    """Nothing was written, and no parameter changed."""
    assert sorted(path.name for path in project.iterdir()) == ["dvc.yaml", "params.yaml"]
    assert (project / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_an_unknown_parameter_of_a_notebook_is_one_sentence():
    said = refused(catsdogs("run", "notebooks/04_evaluate.ipynb", "-p", "colour", "red"))
    assert "colour" in said
    assert "workspace" in said


def test_a_missing_notebook_is_one_sentence():
    assert "none.ipynb" in refused(catsdogs("run", "notebooks/none.ipynb"))


def test_a_missing_bundle_is_one_sentence(tmp_path, photos):
    assert "model.json" in refused(catsdogs("predict", photos, "--bundle", tmp_path / "none"))
    assert "make pipeline" in refused(catsdogs("predict", photos, cwd=tmp_path))


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, plain_environment):
    # No file may grow beyond 20 kB: the kernel refuses the write as it does on a full disk.
    def limit():
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    folder = tmp_path / "sample"
    done = catsdogs("data", "draw", folder, "--per-class", "30", preexec_fn=limit, cwd=tmp_path, env=plain_environment)
    assert "free some space" in refused(done)
    assert list(tmp_path.iterdir()) == []


def test_drawing_fetching_and_checking_from_the_command_line(tmp_path):
    done = catsdogs(
        "data", "draw", tmp_path / "three", "--per-class", 12, "--kind", "cat", "--kind", "rabbit", "--no-faults"
    )
    assert done.returncode == 0, done.stderr
    assert refused(catsdogs("data", "draw", tmp_path / "three"))
    done = catsdogs("data", "fetch", tmp_path / "three", tmp_path / "copy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "24 files of cats, rabbits" in done.stdout
    (tmp_path / "copy" / "cats" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    table = tmp_path / "table.csv"
    done = catsdogs("data", "check", tmp_path / "copy", "--manifest", table)
    assert done.returncode == 0, done.stderr
    assert "25 files, 24 used" in done.stdout
    assert "broken.jpg" in done.stdout
    assert len(table.read_text().splitlines()) == 26


def test_a_closed_pipe_ends_quietly(photos, bundle_folder):
    command = f"{CATSDOGS} predict {photos} {photos} {photos} --bundle {bundle_folder} --json | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_with_a_sentence_and_leaves_nothing_half_written(tmp_path):
    command = [CATSDOGS, "data", "draw", tmp_path / "sample", "--per-class", "2000"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".partial-*/cats/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert said.strip().splitlines()[-1] == "catsdogs: interrupted; the same command goes on from what is finished"
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_every_odd_file_is_answered_or_refused_in_bounded_memory(edge, bundle_folder):
    code = (
        "import resource, sys\n"
        f"sys.argv = ['catsdogs', 'predict', {str(edge)!r}, '--bundle', {str(bundle_folder)!r}, '--json']\n"
        "from catsdogs_lib.cli import main\n"
        "from catsdogs_lib.inference.bundle import Bundle; from catsdogs_lib.inference.classifier import Classifier\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print('status', end.code, file=sys.stderr)\n"
        "print('grown', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == sum(path.is_file() and path.suffix != ".txt" for path in edge.rglob("*"))
    assert "status 1" in done.stderr
    assert "Traceback" not in done.stderr
    assert all("error" in line or line["prediction"] in {"cat", "dog"} for line in lines)
    # Two photos at a time, the runtime and the graph: far from what a bomb would take.
    assert int(done.stderr.split("grown ")[1]) < 500_000, "kilobytes"


def test_a_model_without_a_finite_answer_is_an_error_for_each_photo(nan_bundle, tmp_path):
    draw("cat", 1, (64, 64)).save(tmp_path / "cat.png")
    done = catsdogs("predict", "--json", tmp_path / "cat.png", "--bundle", nan_bundle.folder)
    assert done.returncode == 1, done.stderr
    assert "NaN" not in done.stdout
    row = json.loads(done.stdout)
    assert row.keys() == {"path", "error"}
    assert row["error"] == "the model gives no usable answer: 'logits' is not a finite number"
    done = catsdogs("explain", tmp_path / "cat.png", "-o", tmp_path / "why.png", "--bundle", nan_bundle.folder)
    assert "not a finite number" in refused(done)


def test_score_counts_a_photo_without_a_finite_answer_as_unanswered(nan_bundle, tmp_path):
    import pandas as pd

    (tmp_path / "photos").mkdir()
    draw("cat", 1, (64, 64)).save(tmp_path / "photos" / "cat.png")
    done = catsdogs("score", tmp_path / "photos", tmp_path / "out", "--bundle", nan_bundle.folder)
    assert done.returncode == 1, done.stderr
    assert "0 answered, 1 not" in done.stdout
    (error,) = pd.read_parquet(tmp_path / "out")["error"]
    assert "not a finite number" in error
