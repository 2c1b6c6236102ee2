"""Compose: what it would start, and its core started for real."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "compose" / "compose.yaml"


@pytest.fixture(scope="module")
def configured(plain):
    """All services as Compose reads them."""
    command = ["docker", "compose", "--file", FILE, "--profile", "monitoring", "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, env=plain)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def plain(engine):
    """The engine's environment, without settings of whoever runs the tests."""
    mine = ("CATSDOGS_", "MLFLOW_", "COMPOSE_", "GRAFANA_", "PROMETHEUS_")
    return {name: value for name, value in engine.items() if not name.startswith(mine)}


def test_the_core_is_the_service_and_mlflow_and_the_rest_is_a_profile(configured):
    profiles = {name: one.get("profiles") for name, one in configured["services"].items()}
    assert profiles == {"service": None, "mlflow": None, "prometheus": ["monitoring"], "grafana": ["monitoring"]}


def test_every_service_is_limited_and_open_to_this_machine_alone(configured):
    for name, service in configured["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) <= 2**31, name
        assert service["cpus"] > 0, name
        assert [port["host_ip"] for port in service["ports"]] == ["127.0.0.1"], name


def test_images_have_versions_and_health_checks(configured):
    for name in ("prometheus", "grafana"):
        assert re.fullmatch(r"\S+:v?\d+\.\d+\.\d+", configured["services"][name]["image"]), name
        assert configured["services"][name]["healthcheck"]["test"], name
    for dockerfile in (ROOT / "Dockerfile.lambda", FILE.parent / "Dockerfile.mlflow"):
        assert re.search(r"^HEALTHCHECK ", dockerfile.read_text(), re.M), dockerfile


def test_no_file_holds_a_secret(configured):
    for name, service in configured["services"].items():
        for key, value in (service.get("environment") or {}).items():
            assert not re.search("password|secret|token", key, re.I) or not value, f"{name}: {key}"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_the_core_answers_and_keeps_runs_over_a_restart(plain, base_image, image, docker, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a server that is lost is a failure, not a wait
    name, port, store = f"catsdogs-test-{os.getpid()}", free_port(), free_port()
    environment = plain | {
        "COMPOSE_PROJECT_NAME": name,
        "CATSDOGS_IMAGE": image.name,
        "CATSDOGS_PORT": str(port),
        "MLFLOW_PORT": str(store),
        "MLFLOW_IMAGE": "catsdogs-mlflow-test",
        "BASE_IMAGE": base_image,
    }

    def make(target):
        command = ["make", target, f"BASE_IMAGE={base_image}"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]

    note = tmp_path / "note.txt"
    note.write_text("kept")
    # A client of its own: the process-wide address and experiment would outlive this test.
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{store}")
    try:
        make("up")  # waits until both are healthy
        served = docker("inspect", "--format", "{{.Image}} {{.State.Health.Status}}", f"{name}-service-1").split()
        assert served == [docker("image", "inspect", "--format", "{{.Id}}", image.name).strip(), "healthy"]
        smoke = [sys.executable, "-m", "catsdogs_lib", "smoke", f"http://127.0.0.1:{port}", "--wait", "20", "--bundle"]
        done = subprocess.run([*smoke, ROOT / "models" / "reference"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        # Not /health or /version: those MLflow gives to any name.
        ask = "import urllib.request as u; print(u.urlopen(u.Request('http://mlflow:5000/', headers={})).status)"
        inside = ("exec", f"{name}-service-1", "python", "-c")
        assert docker(*inside, ask.format({})).strip() == "200"
        with pytest.raises(AssertionError, match="403"):  # a page elsewhere under a name of its own
            docker(*inside, ask.format({"host": "elsewhere.example"}))
        run_id = client.create_run("0").info.run_id
        client.log_metric(run_id, "accuracy", 0.5)
        client.log_artifact(run_id, str(note))
        make("down")
        make("up")
        assert client.get_run(run_id).data.metrics == {"accuracy": 0.5}
        (tmp_path / "back").mkdir()
        kept = client.download_artifacts(run_id, "note.txt", str(tmp_path / "back"))
        assert Path(kept).read_text() == "kept"
    finally:
        down = ["docker", "compose", "--file", FILE, "--profile", "monitoring", "down", "--volumes", "--timeout", "5"]
        subprocess.run(down, env=environment, capture_output=True, check=True)
