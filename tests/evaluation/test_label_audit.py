"""The dataset doctor finds what was made wrong on purpose; a person confirms; the manifest obeys."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from catsdogs_lib.cli.data import data
from catsdogs_lib.data import manifest, review
from catsdogs_lib.data.synthetic.dataset import write_sample
from catsdogs_lib.evaluation import label_audit
from catsdogs_lib.training import trainer as training
from catsdogs_lib.training.features import FeatureCache
from catsdogs_lib.training.models import LITE0, build


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> label_audit.AuditData:
    """Three drawn classes with their right labels."""
    folder = tmp_path_factory.mktemp("three")
    write_sample(folder / "raw", 60, kinds=("cat", "dog", "rabbit"), faults=False)
    rows = manifest.used(manifest.build_manifest(folder / "raw", manifest.PrepareSettings()))
    classes = manifest.classes(rows)
    paths = training.photo_paths(rows, folder / "raw")
    shas = rows["sha256"].tolist()
    features = FeatureCache(folder / "features", build(LITE0, 3), "fp32").get(paths, shas)
    labels = training.label_indices(rows, classes)
    return label_audit.AuditData(paths, rows["path"].tolist(), shas, labels, rows["group"].tolist(), classes, features)


@pytest.mark.slow
def test_most_flipped_labels_are_among_the_first_few(photos):
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(photos.labels), len(photos.labels) // 20, replace=False)
    labels = photos.labels.copy()
    labels[chosen] = (labels[chosen] + rng.integers(1, 3, len(chosen))) % 3
    flipped = replace(photos, labels=labels)
    margin = label_audit.margins(label_audit.cross_validated(flipped), labels)
    first = set(np.argsort(margin)[: 2 * len(chosen)].tolist())
    assert len(first & set(chosen.tolist())) >= 0.8 * len(chosen)
    wrong = label_audit.audit(flipped).query("finding == 'wrong label'")
    assert len(wrong) > 0
    right = {photos.sha256[i]: f"relabel:{photos.classes[photos.labels[i]]}" for i in chosen}
    agreed = [right.get(sha) == proposal for sha, proposal in zip(wrong["sha256"], wrong["proposal"], strict=True)]
    assert np.mean(agreed) >= 0.8
    assert (wrong["action"] == "").all()


@pytest.mark.slow
def test_a_class_with_fewer_photos_than_folds_is_refused(photos):
    keep = np.r_[np.flatnonzero(photos.labels != 0), np.flatnonzero(photos.labels == 0)[:4]]
    few = replace(
        photos, labels=photos.labels[keep], features=photos.features[keep], groups=[photos.groups[i] for i in keep]
    )
    with pytest.raises(label_audit.EvaluationError, match="fewer than 5 photos"):
        label_audit.cross_validated(few)


def test_confident_learning_compares_with_the_usual_probability_of_each_class():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    first = np.array([0.9, 0.8, 0.1, 0.1, 0.2, 0.3, 0.9])
    # Levels: 0.6 for class 0, 0.625 for class 1.
    others = label_audit.confident_other(np.stack([first, 1 - first], axis=1), labels)
    assert others.tolist() == [-1, -1, 1, -1, -1, -1, 0]
    assert label_audit.margins(np.stack([first, 1 - first], axis=1), labels)[2] == pytest.approx(-0.8)


def proposals(path: Path, *actions: tuple[str, str]) -> Path:
    rows = [
        f"{name},{sha},wrong label,it says so,{action}" for (name, action), sha in zip(actions, "abc", strict=False)
    ]
    path.write_text("\n".join(["path,sha256,finding,reason,action", *rows]) + "\n")
    return path


def test_only_what_a_person_decided_is_kept_and_a_later_decision_counts(tmp_path):
    target = tmp_path / "mine.csv"
    first = proposals(tmp_path / "p.csv", ("x.jpg", "exclude"), ("y.jpg", "relabel:dog"), ("z.jpg", ""))
    assert review.apply_review(first, target) == (1, 1)
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert [(row["sha256"], row["label"]) for row in rows] == [("a", ""), ("b", "dog")]
    assert rows[0]["reason"] == "wrong label: it says so"
    review.apply_review(proposals(tmp_path / "p.csv", ("x.jpg", "keep")), target)
    assert [row["sha256"] for row in csv.DictReader(target.read_text().splitlines())] == ["b"]


@pytest.mark.parametrize("action", ["drop", "relabel:"])
def test_an_unknown_action_is_refused_with_its_line(tmp_path, action):
    path = proposals(tmp_path / "p.csv", ("x.jpg", "exclude"), ("y.jpg", action))
    with pytest.raises(review.ProposalError, match=r"p\.csv, line 3"):
        review.apply_review(path, tmp_path / "mine.csv")
    assert not (tmp_path / "mine.csv").exists()


@pytest.mark.slow
def test_what_is_confirmed_is_obeyed(prepared, tmp_path):
    ran = CliRunner().invoke(data, ["doctor", "--workspace", str(prepared.root), "-o", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    page = (tmp_path / "findings.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert "http" not in page.replace("http-equiv", "")
    # The doctor may find nothing in so few clean drawings of a class: two photos are decided by hand.
    table = manifest.read_manifest(prepared.manifest)
    out, other = manifest.used(table, "train").groupby("label").head(1).itertuples()
    text = f"path,sha256,finding,reason,action\n,{out.sha256},outlier,odd,exclude\n"
    (tmp_path / "filled.csv").write_text(text + f",{other.sha256},wrong label,odd,relabel:{out.label}\n")
    target = tmp_path / "mine.csv"
    ran = CliRunner().invoke(data, ["confirm", str(tmp_path / "filled.csv"), "--to", str(target)])
    assert ran.exit_code == 0, ran.output
    after = manifest.build_manifest(prepared.raw, manifest.PrepareSettings(exclusions=str(target)))
    by_sha = after.set_index("sha256")
    assert by_sha.loc[[out.sha256], "excluded"].str.contains("odd").all()
    assert (by_sha.loc[[other.sha256], "label"] == out.label).all()
    assert manifest.data_hash(after) != manifest.data_hash(table)
