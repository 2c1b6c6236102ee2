import contextlib
import json
import os
import random
import shutil

import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from catsdogs_lib.common import files
from catsdogs_lib.inference import bundle as module
from catsdogs_lib.inference.bundle import (
    Bundle,
    BundleCorruptError,
    BundleError,
    BundleMissingError,
    BundleVersionError,
    locate,
)
from catsdogs_lib.inference.description import Description
from catsdogs_lib.serving import model as serving


@pytest.fixture
def folder(bundle_folder, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


def edit(folder, **changes):
    path = folder / "model.json"
    files.write_json(path, {**files.read_json(path), **changes})


def test_a_bundle_is_two_files_that_load(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.onnx"]
    bundle = Bundle.load(folder)
    assert bundle.description.classes == ("cat", "dog")
    assert len(bundle.version) == 12


def test_the_description_holds_what_the_contract_names(folder):
    value = files.read_json(folder / "model.json")
    names = {
        "schema_version",
        "classes",
        "graph",
        "preprocessing",
        "temperature",
        "thresholds",
        "metrics",
        "golden",
        "data",
        "git_commit",
        "mlflow_run",
        "created",
        "weights_licence",
    }
    assert names <= set(value)
    assert set(value["graph"]) == {"file", "sha256", "bytes", "weights"}
    assert set(value["metrics"]["accuracy"]) == {"value", "low", "high"}
    assert value["data"]["photos"].keys() == {"train", "val", "test"}


def test_a_truncated_graph_is_refused(folder):
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-100])
    with pytest.raises(BundleCorruptError, match=r"model.onnx has \d+ bytes, \d+ expected"):
        Bundle.load(folder)


def test_an_altered_graph_is_refused(folder):
    graph = folder / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with pytest.raises(BundleCorruptError, match="model.onnx was altered"):
        Bundle.load(folder)


@pytest.mark.parametrize("change", [{"thresholds": {"confident": 0.1, "unfamiliar": 0.5}}, {"classes": ["dog", "cat"]}])
def test_an_altered_description_is_refused(folder, change):
    edit(folder, **change)
    with pytest.raises(BundleCorruptError, match="model.json was altered"):
        Bundle.load(folder)


def test_a_truncated_description_is_refused(folder):
    path = folder / "model.json"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BundleCorruptError, match="not JSON"):
        Bundle.load(folder)


@pytest.mark.parametrize("version", [1, 3, None, "2"])
def test_another_schema_version_is_refused(folder, version):
    edit(folder, schema_version=version)
    with pytest.raises(BundleVersionError, match="package the model again") as caught:
        Bundle.load(folder)
    assert caught.value.schema_version == version


@pytest.mark.parametrize(
    "change", [{"classes": ["cat"]}, {"temperature": 0}, {"surprise": 1}, {"graph": None}, {"golden": [{}]}]
)
def test_a_description_of_another_shape_is_refused_with_the_field(folder, change):
    edit(folder, **change)
    with pytest.raises(BundleCorruptError, match=f"field {next(iter(change))}"):
        Bundle.load(folder)


def test_golden_answers_must_name_the_models_classes(folder):
    value = files.read_json(folder / "model.json")
    value["golden"][0]["probabilities"] = {"horse": 1.0}
    edit(folder, golden=value["golden"])
    with pytest.raises(BundleCorruptError, match="other classes"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["model.json", "model.onnx"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleMissingError, match=name):
        Bundle.load(folder)


def test_an_error_survives_pickling_between_processes(tmp_path):
    import pickle

    error = BundleVersionError(tmp_path, 7)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_environment_names_the_bundle(monkeypatch, tmp_path):
    monkeypatch.setenv(module.ENVIRONMENT_VARIABLE, str(tmp_path / "mine"))
    assert locate() == tmp_path / "mine"
    assert locate(tmp_path / "given") == tmp_path / "given"


def test_the_trained_bundle_comes_before_the_reference(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleMissingError, match="make pipeline"):
        locate()
    for folder in reversed(module.DEFAULT_FOLDERS):
        folder.mkdir(parents=True)
        (folder / "model.json").write_text("{}")
        assert locate() == folder


def test_a_failed_write_leaves_the_bundle_that_was_there(folder, monkeypatch):
    before = Bundle.load(folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        Bundle.write(folder, before.description, before.graph)
    assert Bundle.load(folder).version == before.version
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def put(folder, *path_and_value):
    """Set a value deep inside the description, and seal it again if it is a description at all."""
    value = files.read_json(folder / "model.json")
    *path, last, new = path_and_value
    part = value
    for key in path:
        part = part[key]
    part[last] = new
    (folder / "model.json").write_text(sealed(value))


def sealed(value) -> str:
    # What is no description is refused before its digest is compared.
    with contextlib.suppress(ValueError, RecursionError):
        value = {**value, "digest": Description.model_validate_json(json.dumps(value)).content_digest()}
    return json.dumps(value)


@pytest.mark.parametrize(
    ("path_and_value", "says"),
    [
        (("preprocessing", "size", 0), "field preprocessing of model.json: the size is 0, not 16 to 1024 pixels"),
        (("preprocessing", "size", -5), "the size is -5,"),
        (("preprocessing", "size", 12_000), "the size is 12000,"),
        (("preprocessing", "std", [0, 0.5, 0.5]), "a standard deviation of the pixels is outside 0.001..1000"),
        (("preprocessing", "std", [0.5, 1e-30, 0.5]), "a standard deviation"),
        (("preprocessing", "mean", [-3, 0.5, 0.5]), "a mean of the pixels is outside 0..1"),
        (("preprocessing", "std", [float("nan"), 0.5, 0.5]), "not JSON"),
        (("preprocessing", "mean", [0.5, float("inf"), 0.5]), "not JSON"),
        (("training", "size", float("nan")), "not JSON"),
        (("golden", 0, "png", "%%%%"), "field golden.0.png of model.json: the picture is not valid base64"),
        (("golden", 0, "png", "iVBORw0KGgo"), "not valid base64"),
        (("golden", 0, "png", "ключ"), "not valid base64"),
        (("golden", []), "no golden answer"),
        (("classes", ["cat", "cat"]), "two of the 2 classes have the same name"),
        (("graph", "bytes", -1), "field graph.bytes"),
        (("graph", "bytes", 10**30), "field graph.bytes"),
        (("x" * 10_000, 1), "field xxx"),
        (("line\nbreak", 1), r"field line\\nbreak of"),
        (("schema_version", [2] * 10_000), "schema version None"),
        (("schema_version", "2" * 10_000), "schema version 2222"),
    ],
)
def test_an_absurd_value_is_one_sentence(folder, path_and_value, says):
    put(folder, *path_and_value)
    with pytest.raises(BundleError, match=says) as raised:
        Bundle.load(folder)
    assert len(str(raised.value)) < 400
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"schema_version": 2, "training": 1e999}'])
def test_what_json_can_nest_or_name_but_nobody_means_is_one_sentence(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(BundleCorruptError, match=r"model\.json"):
        Bundle.load(folder)


@pytest.mark.parametrize("value", [float("1e999"), "nested"])
def test_a_description_without_a_digest_is_one_sentence(folder, value):
    raw = (folder / "model.json").read_text()
    inner = "[" * 230 + "]" * 230 if value == "nested" else "1e999"
    (folder / "model.json").write_text(raw.replace('"training": {', f'"training": {{"a": {inner}, ', 1))
    with pytest.raises(BundleCorruptError, match="recursion|altered"):
        Bundle.load(folder)


def test_a_file_too_large_or_no_file_is_refused_unread(folder):
    (folder / "model.json").unlink()
    os.mkfifo(folder / "model.json")
    with pytest.raises(BundleCorruptError, match="not a file of at most 16 MiB"):
        Bundle.load(folder)
    (folder / "model.json").unlink()
    with (folder / "model.json").open("wb") as sparse:
        sparse.truncate(10**12)
    with pytest.raises(BundleCorruptError, match="not a file of at most 16 MiB"):
        Bundle.load(folder)


def test_a_graph_with_weights_in_another_file_is_refused(folder, tmp_path):
    graph = onnx.load(folder / "model.onnx")
    convert_model_to_external_data(graph, location="weights.bin")
    onnx.save(graph, tmp_path / "external.onnx")
    moved = (tmp_path / "external.onnx").read_bytes()
    description = Bundle.load(folder).description
    described = description.graph.model_copy(update={"sha256": files.sha256_bytes(moved), "bytes": len(moved)})
    description = description.model_copy(update={"graph": described})
    before = Bundle.load(folder).version
    with pytest.raises(BundleCorruptError, match="keeps weights in another file"):
        Bundle.write(folder, description, moved)
    assert Bundle.load(folder).version == before
    (folder / "model.onnx").write_bytes(moved)
    (folder / "model.json").write_text(description.sealed().model_dump_json())
    with pytest.raises(BundleCorruptError, match="keeps weights in another file"):
        Bundle.load(folder)


ABSURD = (None, True, 0, -1, 12_000, 1e308, -1e-308, 2**70, "", "x", "cat", [], {}, [[]], {"a": 1}, "\x00", "\ud800")


def mutated(value, rng):
    """Copy JSON with one value somewhere replaced, left out or doubled."""
    value = json.loads(json.dumps(value))
    parents = [value]
    for part in parents:
        children = part.values() if isinstance(part, dict) else part
        parents.extend(child for child in children if isinstance(child, (dict, list)) and child)
    parent = rng.choice(parents)
    key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
    change = rng.choice(["replace", "replace", "replace", "leave out", "double", "scale"])
    if change == "leave out":
        del parent[key]
    elif change == "double":
        if isinstance(parent, dict):
            parent[f"{key}{key}"] = parent[key]
        else:
            parent.append(parent[key])
    elif change == "scale" and isinstance(parent[key], (int, float)):
        parent[key] *= rng.choice([-1, 0, 1e-9, 1.5, 1e9])
    else:
        parent[key] = rng.choice(ABSURD)
    return value


def test_mutations_end_in_an_error_of_the_bundle_or_in_a_bundle_that_works(
    tmp_path, tiny_graph, tiny_description, monkeypatch
):
    """Bytes and values: what still is a description gets its seal, so that values reach the model."""
    decoders = serving.decoder_pool(1)  # starting one takes longer than all the rest of loading
    monkeypatch.setattr(serving, "decoder_pool", lambda _: decoders)
    graph = tiny_graph()
    folder = Bundle.write(tmp_path / "tiny", tiny_description(graph), graph).folder
    path, rng = folder / "model.json", random.Random(17)
    original, picture = path.read_text(), Bundle.load(folder).description.golden[0].data
    value, loaded = json.loads(original), 0
    for number in range(400):
        if number % 3:
            path.write_text(sealed(mutated(value, rng)))
        else:
            damaged = bytearray(original.encode())
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            path.write_bytes(damaged)
        try:
            model = serving.Model.load(folder)
        except BundleError as error:
            assert len(str(error)) < 500
        else:
            loaded += 1
            assert 0 <= model.classifier.predict(picture).confidence <= 1
    assert 20 < loaded < 380
