"""A champion becomes a release, another follows, one command goes back; what answers wrongly is taken back alone."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from catsdogs_lib.cli.command_line import cli
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.git import git_commit
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.registry import models, tracking
from catsdogs_lib.release import ledger, targets
from catsdogs_lib.release.ledger import Entry, LedgerError, Release

ROOT = Path(__file__).parents[2]
CATSDOGS = Path(sys.executable).parent / "catsdogs"
REFERENCE = ROOT / "models" / "reference"
COMPOSE = Path("deploy/compose")
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def git(folder, *arguments):
    settings = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", folder, *settings, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def checkout(folder: Path) -> Path:
    """A clone without changes that holds the files as they are here, committed or not."""
    git(ROOT, "clone", "--quiet", ROOT, folder)
    for name in filter(None, git(ROOT, "ls-files", "-z", "-m", "-o", "--exclude-standard").split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "As it is here")
    return folder


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def ask(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A registry in a folder, as ``make registry`` starts it; its address."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs a container registry: apt-get install docker-registry")
    port = free_port()
    command = [ROOT / "scripts" / "registry", tmp_path_factory.mktemp("registry"), str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        wait_for(process, port)
        yield f"127.0.0.1:{port}"
        process.terminate()


@pytest.fixture
def shop(tmp_path, packaged, engine, base_image, registry, docker):
    """A checkout with a champion in its store, Compose on a free port, and a repository in the registry."""
    ws, made = packaged
    project = checkout(tmp_path / "project")
    # The champion as the pipeline made it; what is registered from now on lies in a place of its own.
    shutil.copy(ws.root / "mlflow.db", project / "mlflow.db")
    artifacts = tmp_path / "artifacts"
    with contextlib.closing(sqlite3.connect(project / "mlflow.db")) as store, store:
        store.execute("UPDATE experiments SET artifact_location = ?", [artifacts.as_uri()])
    repository = f"{registry}/{tmp_path.name.replace('_', '-')}"
    settings = {
        "CATSDOGS_PORT": "0",
        "CATSDOGS_REGISTRY": repository,
        "CATSDOGS_BASE_IMAGE": base_image,
        "COMPOSE_PROJECT_NAME": f"catsdogs-release-{os.getpid()}",
    }
    mine = {name: value for name, value in engine.items() if not name.startswith(("CATSDOGS_", "MLFLOW_"))}
    environment = {**mine, **settings}

    def catsdogs(*arguments, status=0, **more):
        done = subprocess.run(
            [CATSDOGS, *arguments], cwd=project, env={**environment, **more}, capture_output=True, text=True
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def compose(*arguments):
        command = ["docker", "compose", *arguments]
        done = subprocess.run(command, cwd=project / COMPOSE, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def version():
        return ask(f"http://{compose('port', 'service', '8000')}/version")

    yield SimpleNamespace(
        project=project,
        first=made.bundle,
        model=made.registered,
        repository=repository,
        catsdogs=catsdogs,
        compose=compose,
        version=version,
        artifacts=artifacts,
        environment=environment,
    )
    compose("down", "--timeout", "1")
    for one in set(docker("image", "ls", "--quiet", "--filter", f"reference={repository}").split()):
        docker("image", "rm", "--force", one)


@contextlib.contextmanager
def tracking_server(shop):
    """The project's store behind a server, as a team has it; gives its address."""
    port = free_port()
    command = [
        CATSDOGS.with_name("mlflow"),
        "server",
        "--backend-store-uri",
        f"sqlite:///{shop.project / 'mlflow.db'}",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    environment = shop.environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # The server is a child of this process: both are ended by their group.
    with subprocess.Popen(
        command,
        cwd=shop.project.parent,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            wait_for(process, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def wait_for(process, port):
    deadline = time.monotonic() + 60
    while not listens(port):
        assert process.poll() is None, "the process ended"
        assert time.monotonic() < deadline, "nothing listens"
        time.sleep(0.05)


def promote(shop, **changes) -> Bundle:
    """Register a second champion: the bundle that comes with the clone, in a run of its own."""
    tracking.connect(f"sqlite:///{shop.project / 'mlflow.db'}", shop.artifacts)
    reference = Bundle.load(REFERENCE)
    with tracking.run("second") as run_id:
        tracking.log_parameters({"data_hash": reference.description.data.sha256})
        origin = {"mlflow_run": run_id, "git_commit": git(shop.project, "rev-parse", "HEAD").strip()}
        description = reference.description.model_copy(update={**origin, **changes})
        second = Bundle.write(shop.project.parent / "second", description, reference.graph)
        models.promote(models.register(second, shop.model))
    return second


def layers(image):
    repository, _, digest = image.partition("@")
    host, _, name = repository.partition("/")
    manifest = ask(f"http://{host}/v2/{name}/manifests/{digest}", accept=MANIFEST)
    return {layer["digest"]: layer["size"] for layer in manifest["layers"]}


def in_registry(shop) -> bool:
    host, _, name = shop.repository.partition("/")
    return name in ask(f"http://{host}/v2/_catalog")["repositories"]


def lines(shop):
    return [json.loads(line) for line in shop.catsdogs("release", "--list").stdout.splitlines()]


@pytest.mark.slow
def test_a_champion_is_released_another_follows_and_one_command_goes_back(shop, docker):
    settings = shop.project / COMPOSE / ".env"
    settings.write_text("OTHER=1\n")
    settings.chmod(0o600)
    first = shop.catsdogs("release", "--to", "compose").stdout.strip()
    assert first.startswith(f"{shop.repository}@sha256:")
    found = shop.version()
    assert (found["image"], found["model_version"]) == (first, shop.first.version)
    assert in_registry(shop)
    assert settings.read_text() == f"OTHER=1\nCATSDOGS_IMAGE={first}\n"
    assert settings.stat().st_mode & 0o777 == 0o600
    labels = json.loads(docker("image", "inspect", first))[0]["Config"]["Labels"]
    assert labels["catsdogs.bundle"] == found["model_version"]
    assert labels["catsdogs.mlflow-run"] == found["mlflow_run"] == shop.first.description.mlflow_run
    assert labels["catsdogs.data"] == found["data_sha256"]
    assert labels["org.opencontainers.image.revision"] == git(shop.project, "rev-parse", "HEAD").strip()

    second_bundle = promote(shop)
    done = shop.catsdogs("release", "--to", "compose")
    second = done.stdout.strip()
    assert "pushed 1 of 4 layers" in done.stderr
    new = {digest: size for digest, size in layers(second).items() if digest not in layers(first)}
    print(f"second release: {sum(new.values()) / 1e6:.1f} MB of {sum(layers(second).values()) / 1e6:.1f} MB pushed")
    assert sum(new.values()) < 10_000_000
    assert sum(layers(second).values()) > 100_000_000
    found = shop.version()
    assert (found["image"], found["model_version"]) == (second, second_bundle.version)
    url = f"http://{shop.compose('port', 'service', '8000')}"
    said = shop.catsdogs("trace", url).stdout.splitlines()
    assert [line.split(":")[0] for line in said] == [
        f"ok  {station}"
        for station in ("endpoint", "image", "built from", "released", "registered", "run", "data", "trained from")
    ]
    assert f"{shop.model} version 2, champion" in said[4]

    assert shop.catsdogs("release", "--back", "--to", "compose").stdout.strip() == first
    found = shop.version()
    assert (found["image"], found["model_version"]) == (first, shop.first.version)
    assert [(line["image"], line["back"], line["stands"]) for line in lines(shop)] == [
        (first, False, False),
        (second, False, False),
        (first, True, True),
    ]
    refused = shop.catsdogs("release", "--back", "--to", "compose", status=2)
    assert f"only {first} was released" in refused.stderr

    # The champion that the pipeline made is traced to where it was trained, if that was a commit.
    dirty = git_commit(ROOT).endswith("-dirty")
    url = f"http://{shop.compose('port', 'service', '8000')}"
    said = shop.catsdogs("trace", url, status=int(dirty)).stdout.splitlines()
    assert [line for line in said if line.startswith("FAILED")] == (said[-1:] if dirty else [])


@pytest.mark.slow
def test_a_release_that_answers_wrongly_where_it_runs_is_taken_back_without_a_hand(shop):
    # On its own the image answers well; here an old bundle lies over its own, as somebody forgot.
    override = shop.project / COMPOSE / "compose.override.yaml"
    forgotten = 'services: {{service: {{volumes: ["{}:/opt/bundle:ro"]}}}}\n'
    second = promote(shop)
    override.write_text(forgotten.format(shop.project / "models/reference"))
    done = shop.catsdogs("release", "--to", "compose", status=1)
    assert done.stderr.splitlines()[-1].startswith("catsdogs: ")
    assert done.stderr.strip().endswith("Nothing was released here before: the service is stopped")
    assert shop.compose("ps", "--services", "--status", "running") == ""
    assert (shop.project / COMPOSE / ".env").read_text() == ""

    override.unlink()
    first = shop.catsdogs("release", "--to", "compose", "--bundle", str(shop.first.folder)).stdout.strip()
    override.write_text(forgotten.format(shop.first.folder))
    with tracking_server(shop) as server:
        done = shop.catsdogs("release", "--to", "compose", status=1, MLFLOW_TRACKING_URI=server)
    assert done.stdout == ""
    sentence = done.stderr.splitlines()[-1]
    print(sentence)
    assert f"model {shop.first.version} answers" in sentence
    assert second.version in sentence
    assert sentence.endswith(f"Taken back: {first} answers again")
    found = shop.version()
    assert (found["image"], found["model_version"]) == (first, shop.first.version)
    assert [(line["status"], line["stands"]) for line in lines(shop)] == [
        ("FAILED", False),
        ("FINISHED", True),
        ("FAILED", False),
    ]


@pytest.mark.slow
def test_an_image_that_answers_wrongly_is_not_pushed(shop, docker):
    # A mistake in the code of the commit: the bundle is well, and answers well outside.
    schemas = shop.project / "catsdogs_lib" / "serving" / "schemas.py"
    text = schemas.read_text()
    wrong = text.replace("confidence=answer.confidence,", "confidence=answer.confidence / 2,", 1)
    assert wrong != text
    schemas.write_text(wrong)
    git(shop.project, "commit", "--quiet", "--all", "--message", "Halve the confidence")
    done = shop.catsdogs("release", status=1)
    assert " smoke tests failed, shape: prediction" in done.stderr.splitlines()[-1]
    assert not in_registry(shop)
    assert docker("image", "ls", "--quiet", shop.repository) == ""
    assert lines(shop) == []


@pytest.mark.slow
def test_what_cannot_be_released_is_one_sentence_and_leaves_nothing(
    shop, docker, empty_store, tmp_path, monkeypatch, capsys
):
    # In this process, for speed: how the command line prints such a sentence has its own test.
    monkeypatch.chdir(shop.project)
    for name, value in shop.environment.items():
        monkeypatch.setenv(name, value)

    def refused(*arguments, **settings):
        with monkeypatch.context() as inner:
            for name, value in settings.items():
                inner.setenv(name, value)
            with pytest.raises(CatsdogsError) as error:
                cli.main(["release", *arguments], standalone_mode=False)
        assert capsys.readouterr().out == ""
        assert len(str(error.value).splitlines()) == 1
        return str(error.value)

    closed = f"127.0.0.1:{free_port()}/catsdogs"
    assert f"{closed} does not take the image" in refused("--registry", closed)
    assert docker("image", "ls", "--quiet", closed) == ""
    assert "must be lowercase" in refused("--registry", "Catsdogs")
    assert "no Docker engine answers" in refused(DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert "docker is not installed" in refused(PATH=str(without_docker(tmp_path)))
    assert "nothing was released yet" in refused("--back")

    golden = shop.first.description.golden[0]
    swapped = dict(zip(golden.probabilities, reversed(golden.probabilities.values()), strict=True))
    other = golden.model_copy(update={"probabilities": swapped})
    promote(shop, golden=(other,))
    assert "differ from its golden answers" in refused()
    (shop.project / "README.md").write_text("changed")
    assert "commit or stash them" in refused()
    git(shop.project, "checkout", "--quiet", "README.md")

    shutil.rmtree(shop.artifacts)
    assert "cannot be fetched" in refused()
    empty = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'empty.db')}"
    assert "the registry has no champion" in refused(MLFLOW_TRACKING_URI=empty)
    assert "no champion of nobody" in refused("--model", "nobody")
    client = MlflowClient()
    client.create_registered_model("another")
    client.create_model_version("another", source=tmp_path.as_uri())
    client.set_registered_model_alias("another", models.CHAMPION, "1")
    assert f"several champions, another, {shop.model}" in refused()
    assert lines(shop) == []
    assert not in_registry(shop)


def without_docker(folder: Path) -> Path:
    programs = folder / "bin"
    programs.mkdir()
    (programs / "git").symlink_to(shutil.which("git"))
    return programs


@pytest.mark.slow
def test_the_trace_of_an_endpoint_that_nobody_released_names_every_gap(tmp_path, empty_store, plain_environment):
    store = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'empty.db')}"
    environment = {**plain_environment, "MLFLOW_TRACKING_URI": store}
    command = [CATSDOGS, "serve", "--port", "0", "--bundle", REFERENCE]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as one:
        url = one.stderr.readline().split()[0]
        done = subprocess.run([CATSDOGS, "trace", url], cwd=ROOT, env=environment, capture_output=True, text=True)
        one.terminate()
    assert done.returncode == 1, done.stderr
    said = dict(line.removeprefix("FAILED").strip().split(": ", 1) for line in done.stdout.splitlines())
    assert said["ok  endpoint"].endswith(f"serves bundle {Bundle.load(REFERENCE).version}")
    assert "CATSDOGS_IMAGE" in said["image"]
    assert all("MLFLOW_TRACKING_URI" in said[station] for station in ("released", "registered"))
    assert all("not found" in said[station] for station in ("run", "data"))
    done = subprocess.run([CATSDOGS, "trace", url], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "gives no answer" in done.stderr


def entry(bundle, status="FINISHED", place="here", back=False):
    return Entry(Release(place, f"name@sha256:{bundle}", bundle, "c", back=back), datetime.now(UTC), status, "")


def standing(*entries):
    return [release.bundle for release in ledger.release_stack(list(entries), "here")]


def test_going_back_takes_one_release_off_and_failed_ones_never_lay_there():
    a, b, c, a_again = entry("a"), entry("b"), entry("c"), entry("a", back=True)
    assert standing(a, b) == ["a", "b"]
    assert standing(a, b, a_again) == ["a"]
    assert standing(a, b, a_again, c) == ["a", "c"]
    assert standing(a, a) == ["a"], "the same again is nothing to go back from"
    assert standing(a, entry("x", "FAILED")) == ["a"]
    assert standing(a, entry("x", "FAILED"), b) == ["a", "b"]
    assert standing(a, entry("x", place="there"), b) == ["a", "b"]
    assert standing(a, b, entry("a", "FAILED", back=True)) == ["a", "b"]


def test_what_a_killed_release_began_can_be_gone_back_from():
    a, b, killed = entry("a"), entry("b"), entry("x", "RUNNING")
    assert standing(a, killed) == ["a", "x"]
    assert standing(a, killed, b) == ["a", "b"]
    assert standing(a, b, entry("a", "RUNNING", back=True)) == ["a", "b"]
    assert ledger.previous_release([a, killed], "here").bundle == "a"
    with pytest.raises(LedgerError, match="only name@sha256:a"):
        ledger.previous_release([a], "here")


def yaml_of(text, kind):
    return next(one for one in YAML(typ="safe").load_all(text) if one["kind"] == kind)


def test_the_overlay_names_the_image_by_its_digest(tmp_path):
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    shutil.copytree(ROOT / "deploy" / "kubernetes", tmp_path / "deploy" / "kubernetes")
    digest = "sha256:" + "0123456789abcdef" * 4
    said = targets.target_named("kubernetes", tmp_path).deploy(f"ghcr.io/someone/catsdogs@{digest}")
    assert "kubectl apply -k deploy/kubernetes/overlays/production" in said
    for before in (ROOT / targets.OVERLAY).iterdir():
        after = (tmp_path / targets.OVERLAY / before.name).read_text().splitlines()
        changed = [line for line in after if line not in before.read_text().splitlines()]
        assert all("someone" in line or digest in line for line in changed), "the rest stays as it was"
    command = ["kubectl", "kustomize", tmp_path / targets.OVERLAY]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    container = yaml_of(done.stdout, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"ghcr.io/someone/catsdogs@{digest}"
    assert {"name": "CATSDOGS_IMAGE", "value": container["image"]} in container["env"]
