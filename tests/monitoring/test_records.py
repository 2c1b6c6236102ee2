import gzip
import json

import pytest

from catsdogs_lib.monitoring import records


def line(name, **changes):
    return {
        "timestamp": "2026-01-02T03:04:05Z",
        "level": "INFO",
        "message": "prediction",
        "prediction_id": name,
        "prediction": "cat",
        "confidence": 0.9,
        "probabilities": {"cat": 0.9, "dog": 0.1},
        "unfamiliarity": 0.2,
        "confident": True,
        "latency_seconds": 0.01,
        "model_version": "abc",
        "photo_format": "JPEG",
        "photo_width": 500,
        "photo_height": 400,
        "photo_brightness": 0.5,
        "photo_sharpness": 0.01,
        **changes,
    }


def feedback(name, truth):
    return {"message": "feedback", "prediction_id": name, "truth": truth}


ROWS = [
    line("a"),
    line("b", prediction="dog"),
    {"message": "request", "route": "/health"},
    feedback("a", "dog"),
    feedback("a", "cat"),
    feedback("nobody", "cat"),
]


def as_lines(path):
    path.write_text("uvicorn says something\n" + "\n".join(json.dumps(row) for row in ROWS) + "\n{cut short")


def as_export(path):
    text = "\n".join(f"2026-01-02T03:04:05.000Z {json.dumps(row)}" for row in ROWS)
    path.write_bytes(gzip.compress(text.encode()))


def as_events(path):
    path.write_text(json.dumps({"events": [{"timestamp": 1, "message": json.dumps(row)} for row in ROWS]}, indent=1))


@pytest.mark.parametrize(
    ("name", "write"), [("log.jsonl", as_lines), ("000000.gz", as_export), ("events.json", as_events)]
)
def test_records_are_found_in_whatever_the_log_comes_as(tmp_path, name, write):
    write(tmp_path / name)
    table = records.read([tmp_path])
    assert table["prediction_id"].tolist() == ["a", "b"]
    assert table["prediction"].tolist() == ["cat", "dog"]
    assert table["truth"].tolist() == ["cat", ""]  # the last word counts, and only for answers that there are
    assert table["photo_width"].tolist() == [500, 500]
    assert str(table["timestamp"].dt.tz) == "UTC"


def test_parquet_holds_the_same(tmp_path):
    pytest.importorskip("pyarrow")
    as_lines(tmp_path / "log.jsonl")
    whole = records.read([tmp_path / "log.jsonl"])
    whole.to_parquet(tmp_path / "records.parquet")
    again = records.read([tmp_path / "records.parquet"])
    assert again[["prediction_id", "prediction", "truth", "confidence"]].equals(
        whole[["prediction_id", "prediction", "truth", "confidence"]]
    )


@pytest.mark.parametrize(("name", "data"), [("empty.jsonl", b""), ("other.jsonl", b'{"message": "request"}\n')])
def test_a_file_without_records_is_one_sentence(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(records.RecordsError, match=f"no record in .*{name}"):
        records.read([tmp_path / name])


def test_a_file_that_is_missing_or_broken_is_one_sentence(tmp_path):
    with pytest.raises(records.RecordsError, match="cannot be read"):
        records.read([tmp_path / "nowhere.jsonl"])
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(records.RecordsError, match="cut.gz cannot be read"):
        records.read([tmp_path / "cut.gz"])
