"""The manifests as kustomize renders them: valid, agreeing with one another and with the service."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from catsdogs_lib.serving import server
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry
from catsdogs_lib.serving.model import Model

ROOT = Path(__file__).parents[2]
OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
READY = """
import time, urllib.request
for _ in range(100):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:8000/ready").status)
        break
    except OSError:
        time.sleep(0.2)
"""


@pytest.fixture(scope="module", params=["local", "production"])
def rendered(request, tmp_path_factory):
    """An overlay as one file."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl: Debian's kubernetes-client")
    command = ["kubectl", "kustomize", OVERLAYS / request.param]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = tmp_path_factory.mktemp(request.param) / "all.yaml"
    path.write_text(done.stdout)
    return path


@pytest.fixture
def documents(rendered):
    return {document["kind"]: document for document in YAML(typ="safe").load_all(rendered.read_text())}


@pytest.fixture
def pod(documents):
    return documents["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod):
    (only,) = pod["containers"]
    return only


@pytest.mark.slow
def test_every_document_is_valid_in_the_schemas_of_kubernetes(rendered, tool):
    command = [tool("checks") / "kubernetes-validate", "--strict", rendered]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") + done.stderr.count("passed") >= 7


@pytest.mark.slow
def test_checkov_finds_nothing_but_what_has_a_reason(rendered, tool):
    command = [tool("checkov") / "checkov", "--framework", "kubernetes", "--file", rendered, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = json.loads(done.stdout)
    failed = {check["check_id"] for check in found["results"]["failed_checks"]}
    # In a local cluster the image is the one just loaded into it: no digest, a tag that moves, nothing to pull.
    assert failed == ({"CKV_K8S_14", "CKV_K8S_15", "CKV_K8S_43"} if rendered.parent.name.startswith("local") else set())
    assert found["summary"]["passed"] > 80
    assert all(check["check_result"]["suppress_comment"] for check in found["results"]["skipped_checks"])


def test_probes_ask_what_the_service_has(container):
    app = create_app(Model(reason="none"), ServerTelemetry())
    paths = {route.path for route in app.routes if "GET" in (getattr(route, "methods", None) or ())}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[name]["httpGet"]["path"] in paths
        assert container[name]["httpGet"]["port"] == container["ports"][0]["name"]
    # A service without a model is alive: a restart would not mend it.
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"


def test_selectors_names_and_ports_agree(documents, container):
    wanted = {"app.kubernetes.io/name": "catsdogs"}
    deployment = documents["Deployment"]["spec"]
    assert deployment["selector"]["matchLabels"] == wanted
    assert wanted.items() <= deployment["template"]["metadata"]["labels"].items()
    assert documents["Service"]["spec"]["selector"] == wanted
    assert documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == wanted
    assert documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == wanted
    target = documents["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", documents["Deployment"]["metadata"]["name"])
    port = container["ports"][0]
    assert str(port["containerPort"]) == container["command"][container["command"].index("--port") + 1]
    assert documents["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert documents["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"] == port["containerPort"]
    annotations = deployment["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_a_rollout_leaves_no_gap(documents, pod, container):
    deployment = documents["Deployment"]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    drain = int(command[-1].partition("sleep(")[2].rstrip(")"))
    assert pod["terminationGracePeriodSeconds"] > drain + server.GRACE_SECONDS
    fewest = documents["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
    assert documents["PodDisruptionBudget"]["spec"]["minAvailable"] < fewest == deployment["replicas"]


def test_the_pod_may_do_nothing_but_answer(documents, pod, container):
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]["requests"]) == set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert documents["NetworkPolicy"]["spec"]["egress"] == []


def test_production_names_the_image_by_digest(rendered, container):
    if rendered.parent.name.startswith("production"):
        name, _, digest = container["image"].partition("@sha256:")
        assert "." in name
        assert len(digest) == 64
    else:
        assert container["image"] == "catsdogs-lambda:latest"


@pytest.mark.slow
def test_the_image_runs_as_the_pod_says_and_waits_before_it_stops(docker, image, pod, container):
    user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    entry, *arguments = container["command"]
    memory = container["resources"]["limits"]["memory"].removesuffix("Mi") + "m"
    name = docker(
        "run",
        "--detach",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--user",
        user,
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--memory",
        memory,
        "--cpus",
        "1",
        "--entrypoint",
        entry,
        image.name,
        *arguments,
    ).strip()
    try:
        assert docker("exec", name, "python", "-c", READY).strip() == "200"
        docker("exec", name, *container["lifecycle"]["preStop"]["exec"]["command"])
    finally:
        docker("rm", "--force", name)
