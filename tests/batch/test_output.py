"""What a kill must not lose, and what must not be mixed."""

import json
import tracemalloc

import pandas as pd
import pyarrow.parquet as pq
import pytest

from catsdogs_lib.batch.output import Output, OutputUnusableError
from catsdogs_lib.batch.parquet import PartCorruptError
from catsdogs_lib.batch.photos import LocalPhoto
from catsdogs_lib.batch.rows import Row, error_row

ROWS = 5


def photos(count, first=0):
    return [LocalPhoto(f"{number:05d}.jpg") for number in range(first, first + count)]


def row(path, version="v") -> Row:
    return Row(
        path=path,
        prediction="cat",
        confidence=0.75,
        probabilities={"cat": 0.75, "dog": 0.25},
        confident=True,
        reason=None,
        error=None,
        model_version=version,
    )


@pytest.fixture
def description(bundle):
    return bundle.description


@pytest.fixture
def fill(tmp_path, description):
    """Answer photos until so many are answered; gives the photos that were."""

    def answer(named, until=None, source="a", described=description, add=row):
        with Output.opened(tmp_path / "out", source, described, ROWS) as output:
            seen = []
            for position, photo in output.missing(iter(named)):
                if until is not None and len(seen) == until:
                    break
                output.add(position, add(photo.path))
                seen.append(photo.path)
            return seen, output

    return answer


def table(folder):
    return pd.read_parquet(folder / "out")


def names(folder):
    return sorted(path.name for path in (folder / "out").iterdir())


def test_every_so_many_photos_are_a_part_and_nothing_else_is_left(fill, tmp_path, description):
    fill(photos(12))
    assert names(tmp_path) == ["_score.json", *(f"part-0000{number}.parquet" for number in range(3))]
    found = table(tmp_path)
    assert list(found) == [
        "path",
        "prediction",
        "confidence",
        "probability_cat",
        "probability_dog",
        "confident",
        "reason",
        "error",
        "model_version",
    ]
    assert found["path"].tolist() == [photo.path for photo in photos(12)]
    assert found["probability_dog"].tolist() == [0.25] * 12
    metadata = pq.read_schema(tmp_path / "out" / "part-00001.parquet").metadata
    assert metadata[b"catsdogs.bundle"].decode() == description.digest


@pytest.mark.parametrize("until", range(12))
def test_whatever_is_answered_before_an_end_is_not_asked_again(fill, tmp_path, until):
    before, _ = fill(photos(12), until)
    after, output = fill(photos(12))
    assert before + after == [photo.path for photo in photos(12)]
    assert (output.done, output.kept) == (12, until)
    assert table(tmp_path)["path"].tolist() == [photo.path for photo in photos(12)]


def test_answers_may_come_in_any_order(tmp_path, description):
    with Output.opened(tmp_path / "out", "a", description, ROWS) as output:
        tasks = list(output.missing(iter(photos(12))))
        for position, photo in reversed(tasks):
            output.add(position, row(photo.path))
    assert table(tmp_path)["path"].tolist() == [photo.path for photo in photos(12)]


def test_a_photo_without_an_answer_is_a_row_that_says_why(fill, tmp_path):
    _, output = fill(photos(7), add=lambda path: error_row(path, f"bad \udcff {path}", "v"))
    found = table(tmp_path)
    assert found["error"].tolist() == [f"bad \\udcff {photo.path}" for photo in photos(7)]
    assert found[["prediction", "confidence", "probability_cat", "confident", "reason"]].isna().all(axis=None)
    assert output.unanswered == 7
    assert fill(photos(7))[1].unanswered == 7, "also when they were there before"


@pytest.mark.parametrize(
    "tail", [b'{"position": 3, "ro', b"\0\0\0\0", b'{"position": 3}\n{"position": 4}\n', b"\xff\n"]
)
def test_a_line_that_a_crash_left_half_written_is_cut_off(fill, tmp_path, tail):
    fill(photos(12), 3)
    with (tmp_path / "out" / "_part-00000.jsonl").open("ab") as journal:
        journal.write(tail)
    assert len(fill(photos(12), 1)[0]) == 1
    assert len(fill(photos(12))[0]) == 8, "what was added behind the cut was read again"
    assert len(table(tmp_path)) == 12


def test_a_kill_between_a_part_and_the_end_of_its_journal_costs_nothing(fill, tmp_path):
    fill(photos(5), 3)
    journal = tmp_path / "out" / "_part-00000.jsonl"
    kept = journal.read_bytes()
    fill(photos(5))
    journal.write_bytes(kept)
    assert fill(photos(5))[0] == []
    assert not journal.exists()


def test_a_kill_before_a_part_is_there_costs_nothing(fill, tmp_path):
    fill(photos(12))
    rows = [row(photo.path) for photo in photos(5)]
    lines = [json.dumps({"position": number, "row": one}) for number, one in enumerate(rows)]
    (tmp_path / "out" / "part-00000.parquet").unlink()
    (tmp_path / "out" / "_part-00000.jsonl").write_text("\n".join(lines) + "\n")
    assert fill(photos(12))[0] == []
    assert len(table(tmp_path)) == 12


@pytest.mark.parametrize("until", [3, 7, 12])
@pytest.mark.parametrize("changed", [photos(12, 1), photos(2), photos(11), [*photos(12), *photos(1)]])
def test_a_source_that_has_changed_is_refused(fill, until, changed):
    fill(photos(12), until)
    grown_later = len(changed) > until and changed[:until] == photos(12)[:until] and until % ROWS
    if grown_later and until < 10:
        assert fill(changed)[0], "the photos that were answered are still there"
        return
    with pytest.raises(OutputUnusableError, match="the source has changed"):
        fill(changed)


def test_another_bundle_is_refused(fill, description):
    fill(photos(12), 3)
    other = description.model_copy(update={"digest": "f" * 64})
    with pytest.raises(OutputUnusableError, match=f"model {description.digest[:12]}, not of ffffffffffff"):
        fill(photos(12), described=other)


def test_another_source_is_refused(fill):
    fill(photos(12), 3)
    with pytest.raises(OutputUnusableError, match="for 'a', not for 'b'"):
        fill(photos(12), source="b")


def test_a_folder_with_something_else_is_refused_and_left_alone(fill, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(OutputUnusableError, match="not empty"):
        fill(photos(12))
    assert names(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize("name", ["file", "answers.parquet"])
def test_what_is_no_folder_is_refused(tmp_path, description, name):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputUnusableError, match="no name for a folder"),
        Output.opened(tmp_path / name, "a", description),
    ):
        pass


def test_two_runs_cannot_have_one_folder(fill, tmp_path, description):
    busy = pytest.raises(OutputUnusableError, match="in use by another run")
    with Output.opened(tmp_path / "out", "a", description, ROWS), busy:
        fill(photos(12))
    assert len(fill(photos(12))[0]) == 12


def test_a_damaged_part_is_named(fill, tmp_path):
    fill(photos(12))
    part = tmp_path / "out" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(PartCorruptError, match="part-00001"):
        fill(photos(12))
    part.unlink()
    assert len(fill(photos(12))[0]) == ROWS


def test_memory_does_not_grow_with_the_photos(tmp_path, description):
    def peak(count):
        named = (LocalPhoto(f"{number:08d}.jpg") for number in range(count))
        tracemalloc.start()
        with Output.opened(tmp_path / str(count), "a", description, 500) as output:
            for position, photo in output.missing(named):
                output.add(position, row(photo.path))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(500)
    assert peak(10_000) < 1.2 * peak(1_000)
