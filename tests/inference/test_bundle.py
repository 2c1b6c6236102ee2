import shutil

import pytest

from catsdogs_lib.common import files
from catsdogs_lib.inference import bundle as module
from catsdogs_lib.inference.bundle import Bundle, BundleCorruptError, BundleMissingError, BundleVersionError, locate


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
