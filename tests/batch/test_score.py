"""The command: the service's numbers, and no photo lost to whatever ends a process."""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import psutil
import pytest
from starlette.testclient import TestClient

from catsdogs_lib.batch.score import score as score_here
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry
from catsdogs_lib.serving.model import Model

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "models" / "reference"


def until(condition, process=None, seconds=60):
    """Wait until a condition holds; while a process is to make it so, it must live."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "in vain"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)
    return found


def answered(out) -> int:
    """Photos with a row that a kill does not lose."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob("_part-*.jsonl"))


def alive(processes) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_each_photo_is_a_row_with_what_the_classifier_and_the_service_answer(folder, tmp_path, commands, bundle):
    _, score = commands
    done = score(folder, tmp_path / "out")
    assert done.returncode == 1, "two photos were not answered"
    # Progress, on a slow machine.
    assert all(line.startswith("scoring: ") for line in done.stderr.splitlines())
    assert done.stdout.startswith(f"7 photos in {tmp_path / 'out'}: 5 answered, 2 not; ")
    found = pd.read_parquet(tmp_path / "out")
    files = [
        os.fsencode(folder) + b"/" + name
        for name in (
            b"bytes\xff.jpg",
            b"cat.jpg",
            b"cut.jpg",
            "katze ä 猫.jpg".encode(),
            b"text.png",
            b"two\nlines.jpg",
            b"below/dog.JPEG",
        )
    ]
    assert found["path"].tolist() == [
        name.decode(errors="backslashreplace").replace("\\xff", "\\udcff") for name in files
    ]
    classifier = Classifier(bundle)
    client = TestClient(create_app(Model(classifier), ServerTelemetry()))
    for row, name in zip(found.to_dict("records"), files, strict=True):
        data = Path(os.fsdecode(name)).read_bytes()
        served = client.post("/predict", content=data, headers={"content-type": "image/jpeg"})
        assert row["model_version"] == bundle.version
        if served.status_code != 200:
            assert row["error"] == served.json()["detail"]
            assert pd.isna(row["prediction"])
            continue
        answer, own = served.json(), classifier.predict(data)
        assert {name: row[f"probability_{name}"] for name in own.probabilities} == pytest.approx(
            own.probabilities, abs=1e-6
        )
        assert {name: row[f"probability_{name}"] for name in own.probabilities} == pytest.approx(
            answer["probabilities"], abs=1e-6
        )
        assert row["confidence"] == pytest.approx(answer["confidence"], abs=1e-6)
        assert (row["prediction"], row["confident"]) == (answer["prediction"], answer["confident"])
        assert pd.isna(row["reason"]) is (answer["reason"] is None)
        assert pd.isna(row["error"])


def test_hostile_files_get_the_sentences_of_predict(edge, tmp_path, bundle):
    summary = score_here(str(edge), tmp_path / "out", bundle)
    found = pd.read_parquet(tmp_path / "out")
    classifier = Classifier(bundle)
    with warnings.catch_warnings(action="ignore"):  # Pillow's, of bombs; the command does not hear them either
        answers = {str(one.path): one for one in classifier.predict_many(Path(path) for path in found["path"])}
    assert summary.photos == len(found) == len(answers) > 50
    assert summary.unanswered == found["error"].notna().sum() > 5
    for row in found.to_dict("records"):
        answer = answers[row["path"]]
        assert (None if pd.isna(row["error"]) else row["error"]) == answer.error
        if answer.prediction:
            assert row["confidence"] == pytest.approx(answer.prediction.confidence, abs=1e-5)


def test_a_finished_run_is_finished(many, tmp_path, commands):
    _, score = commands
    photos = many(20)
    assert score(photos, tmp_path / "out").returncode == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = score(photos, tmp_path / "out")
    assert again.returncode == 0
    assert again.stdout == f"20 photos in {tmp_path / 'out'}, 20 of them before: 20 answered, 0 not\n"
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.slow
def test_killed_again_and_again_it_repeats_less_than_two_in_a_hundred(many, tmp_path, web, commands):
    start, score = commands
    count, moments = 900, (1, 250, 4, 300)
    many(count)
    text = tmp_path / "list.txt"
    text.write_text("".join(f"{web.address}/many/{number:05d}.jpg\n" for number in range(count)))
    for more in moments:
        moment = answered(tmp_path / "out") + more
        with start(text, tmp_path / "out", "--workers", 2) as process:
            until(lambda moment=moment: answered(tmp_path / "out") >= moment, process)
            workers = psutil.Process(process.pid).children()
            decoders = psutil.Process(process.pid).children(recursive=True)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert len(workers) == 2
        until(lambda decoders=decoders: not alive(decoders))
    done = score(text, tmp_path / "out", "--workers", 2)
    assert done.returncode == 0, done.stderr
    repeated = sum(web.asked.values()) - count
    print(f"killed {len(moments)} times over {count} photos, {repeated} photos were read again in all")
    assert repeated < 0.02 * count * len(moments)
    # What was put together from pieces is what comes of one go.
    score_here(str(text), tmp_path / "one", Bundle.load(REFERENCE))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out"), pd.read_parquet(tmp_path / "one"))


@pytest.mark.slow
def test_ctrl_c_ends_it_with_one_sentence_and_the_same_command_goes_on(many, tmp_path, commands):
    start, score = commands
    photos = many(300)
    with start(photos, tmp_path / "out", start_new_session=True) as process:
        until(lambda: answered(tmp_path / "out") >= 50, process)
        workers = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        said, warned = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == ""
    lines = [line for line in warned.splitlines() if line and not line.startswith("scoring: ")]
    assert lines == ["catsdogs: interrupted; the same command goes on from what is finished"]
    assert not alive(workers)
    kept = answered(tmp_path / "out")
    done = score(photos, tmp_path / "out")
    assert f", {kept} of them before: 300 answered, 0 not" in done.stdout


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing(many, tmp_path, commands):
    start, _ = commands
    with start(many(400), tmp_path / "out", "--workers", 2) as process:
        for moment in (20, 120):
            until(lambda moment=moment: answered(tmp_path / "out") >= moment, process)
            psutil.Process(process.pid).children()[-1].kill()
        said, warned = process.communicate(timeout=120)
    assert process.returncode == 0, warned
    assert "400 answered, 0 not" in said


@pytest.mark.slow
def test_a_photo_that_kills_whoever_looks_at_it_is_a_row(many, tmp_path, web, commands):
    start, _ = commands
    many(40)
    deadly = "/many/00020.jpg"
    text = tmp_path / "list.txt"
    text.write_text("".join(f"{web.address}/many/{number:05d}.jpg\n" for number in range(40)))
    with start(text, tmp_path / "out", "--workers", 2) as process:

        def kill(request):
            """End the process that asks for the deadly photo."""
            if request.path == deadly:
                port = request.client_address[1]
                for worker in psutil.Process(process.pid).children():
                    if any(one.laddr.port == port for one in worker.net_connections()):
                        worker.kill()

        web.on_ask = kill
        said, warned = process.communicate(timeout=120)
    assert process.returncode == 1, warned
    assert "39 answered, 1 not" in said
    found = pd.read_parquet(tmp_path / "out").set_index("path")
    assert found.loc[web.address + deadly, "error"].startswith(
        "the process that looked at it ended with SIGKILL, twice"
    )
    assert found["error"].notna().sum() == 1


def test_workers_that_cannot_begin_end_the_run(many, tmp_path):
    shutil.copytree(REFERENCE, tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    graph = bundle.graph
    shutil.rmtree(tmp_path / "bundle")
    with pytest.raises(CatsdogsError, match="cannot be read"):
        score_here(str(many(5)), tmp_path / "out", bundle)
    other = bundle.description.model_copy(update={"model": "another"})
    Bundle.write(tmp_path / "bundle", other, graph)
    with pytest.raises(CatsdogsError, match="has been replaced"):
        score_here(str(tmp_path / "many"), tmp_path / "out", bundle)


def test_workers_that_always_die_end_the_run_with_a_sentence(many, tmp_path, bundle, monkeypatch):
    monkeypatch.setattr("catsdogs_lib.batch.local_worker.__name__", "catsdogs_lib.no_such_module")
    with pytest.raises(CatsdogsError, match="ended with status 1; there may be too little memory for 1 of them"):
        score_here(str(many(5)), tmp_path / "out", bundle, workers=1)


@pytest.mark.parametrize("case", ["empty", "missing", "used", "file"])
def test_what_cannot_begin_is_one_sentence(case, folder, tmp_path, commands):
    _, score = commands
    (tmp_path / "empty").mkdir()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").touch()
    source = {"empty": tmp_path / "empty", "missing": tmp_path / "none"}.get(case, folder)
    out = {"used": tmp_path / "used", "file": folder / "cat.jpg"}.get(case, tmp_path / "out")
    done = score(source, out)
    assert done.returncode == 2
    assert done.stderr.startswith("catsdogs: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("module", ["pyarrow", "fsspec"])
def test_a_missing_module_names_its_extra(module, folder, tmp_path, plain_environment):
    source = folder if module == "pyarrow" else f"file://{folder}"
    code = f"import sys; sys.modules[{module!r}] = None; from catsdogs_lib.cli import main; main()"
    command = [sys.executable, "-c", code, "score", source, tmp_path / "out", "--bundle", REFERENCE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=plain_environment)
    assert done.returncode == 2
    assert "pip install 'catsdogs[score]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_memory_of_all_processes_is_flat(many, tmp_path, commands):
    start, _ = commands
    count = 800
    taken = []
    with start(many(count), tmp_path / "out") as process:
        every = [psutil.Process(process.pid)]
        until(lambda: answered(tmp_path / "out") >= 100, process)
        every += every[0].children()
        while process.poll() is None:
            try:
                taken.append(sum(one.memory_info().rss for one in every))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.1)
        process.communicate()
    assert process.returncode == 0
    taken = taken[: int(len(taken) * 0.95)]  # at the end they go one after another
    quarter = len(taken) // 4
    assert quarter > 3
    early, late = statistics.median(taken[:quarter]), statistics.median(taken[-quarter:])
    print(f"{early / 2**20:.0f} MiB early, {late / 2**20:.0f} MiB late")
    assert late < 1.1 * early
