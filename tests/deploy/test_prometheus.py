"""Alert rules: their unit tests, and a real Prometheus that watches a real service on which faults are provoked."""

import contextlib
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image
from ruamel.yaml import YAML

from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = YAML(typ="safe").load(FOLDER / "alerts.yml")["groups"][0]["rules"]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "catsdogs.json").read_text())
SHORTER = {"5m": "6s", "10m": "6s", "1h": "6s", "1d": "120s"}
"""Windows of the rules and what they are here, so that minutes pass in seconds; the expressions stay."""
FEWER = {"> 100\n": "> 20\n"}
"""Fewest answers in such a window that a rule judges: what a slow machine gives in 6 s, too."""

needs_prometheus = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus: Debian's prometheus")

SERVICE = """
import sys, time
from pathlib import Path
from catsdogs_lib.serving import server
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry

model = Model.load(Path(sys.argv[1]))
prepare = model.classifier.prepare

def faulty(data):
    if data.endswith(b"CRASH"):
        raise RuntimeError("provoked")
    if data.endswith(b"SLOW"):
        time.sleep(1.5)
    return prepare(data)

model.classifier.prepare = faulty
app = create_app(model, ServerTelemetry(model.classifier.bundle))
server.serve(app, port=0, on_start=lambda address: print(address, flush=True))
"""

WITHOUT_MODEL = """
from catsdogs_lib.serving import server
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry

app = create_app(Model(reason="the bundle is torn"), ServerTelemetry())
server.serve(app, port=0, on_start=lambda address: print(address, flush=True))
"""


@needs_prometheus
def test_config_and_rules_are_valid_and_the_rules_pass_their_unit_tests():
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_unit_tested_and_has_its_place_in_the_runbook():
    unit_tests = YAML(typ="safe").load(FOLDER / "alerts.test.yml")["tests"]
    fired = {case["alertname"] for one in unit_tests for case in one["alert_rule_test"] if case["exp_alerts"]}
    silent = {case["alertname"] for one in unit_tests for case in one["alert_rule_test"] if not case["exp_alerts"]}
    names = {rule["alert"] for rule in RULES}
    assert fired == silent == names
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.M)
    assert set(headings) == names
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")


@contextlib.contextmanager
def service(bundle, program=SERVICE):
    command = [sys.executable, "-c", program, bundle]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().strip().removeprefix("http://")
        finally:
            process.kill()


class Prometheus:
    """A process that scrapes every second what `targets` names, by the committed rules with shorter windows."""

    def __init__(self, folder):
        self.targets_file = folder / "targets.json"
        rules = (FOLDER / "alerts.yml").read_text()
        rules = re.sub(r"\[(\w+)\]", lambda found: f"[{SHORTER[found[1]]}]", rules)
        for usual, here in FEWER.items():
            assert usual in rules
            rules = rules.replace(usual, here)
        (folder / "alerts.yml").write_text(re.sub(r"for: \w+", "for: 1s", rules))
        config = YAML(typ="safe").load(FOLDER / "prometheus.yml")
        config["global"] = dict.fromkeys(config["global"], "1s")
        del config["scrape_configs"][0]["static_configs"]
        config["scrape_configs"][0]["file_sd_configs"] = [{"files": ["targets.json"], "refresh_interval": "1s"}]
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self.scrape([])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.client = httpx.Client(base_url=f"http://{address}/api/v1", timeout=10)
        self.process = subprocess.Popen(
            [
                "prometheus",
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                "--log.level=error",
                f"--web.listen-address={address}",
            ],
            cwd=folder,
        )

    def scrape(self, targets):
        partial = self.targets_file.with_suffix(".partial")
        partial.write_text(json.dumps([{"targets": targets}]))
        partial.replace(self.targets_file)

    def query(self, expression):
        answer = self.client.get("/query", params={"query": expression}).json()
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def firing(self):
        found = self.client.get("/alerts").json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    def close(self):
        self.client.close()
        self.process.terminate()
        self.process.wait(20)


def until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.3)
    return found


class Traffic(threading.Thread):
    """Sends what `photos` holds, round and round, one at a time, until it is stopped."""

    def __init__(self, address, photos):
        super().__init__()
        self.url, self.photos, self.stopped = f"http://{address}/predict", photos, threading.Event()

    def run(self):
        with httpx.Client(timeout=30, headers={"content-type": "image/png"}) as client:
            while not self.stopped.is_set():
                for photo in self.photos:
                    client.post(self.url, content=photo)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()


@pytest.fixture(scope="module")
def golden(familiar_bundle):
    """The drawn photos that look most like a cat and most like a dog."""
    found = sorted(familiar_bundle.description.golden, key=lambda one: one.probabilities["dog"])
    return found[0], found[-1]


@pytest.fixture(scope="module")
def deployed(familiar_bundle, golden, tmp_path_factory):
    """A bundle that is sure of both."""
    least = min(max(one.probabilities.values()) for one in golden)
    thresholds = familiar_bundle.description.thresholds.model_copy(update={"confident": least - 0.01})
    description = familiar_bundle.description.model_copy(update={"thresholds": thresholds})
    return Bundle.write(tmp_path_factory.mktemp("deployed") / "bundle", description, familiar_bundle.graph)


@pytest.fixture(scope="module")
def photos(deployed, golden):
    """A sure cat, a sure dog, and a blend of which the model is not sure."""
    classifier = Classifier(deployed)
    cat, dog = (one.data for one in golden)
    assert all(classifier.predict(data).confident for data in (cat, dog))
    pictures = [Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224)) for data in (cat, dog)]
    for step in range(1, 100):
        buffer = io.BytesIO()
        Image.blend(*pictures, step / 100).save(buffer, "PNG")
        if not classifier.predict(buffer.getvalue()).confident:
            return cat, dog, buffer.getvalue()
    raise AssertionError("every blend of a cat and a dog gets a sure answer")


@needs_prometheus
@pytest.mark.slow
def test_every_panel_has_data_and_every_alert_fires_on_its_fault(tmp_path, photos, deployed):
    cat, dog, unsure = photos
    later = deployed.description.model_copy(update={"git_commit": "another"}).sealed()
    other = Bundle.write(tmp_path / "other", later, deployed.graph)
    with contextlib.ExitStack() as stack:
        _, address = stack.enter_context(service(deployed.folder))
        second, second_address = stack.enter_context(service(other.folder))
        _, empty_address = stack.enter_context(service(deployed.folder, WITHOUT_MODEL))
        prometheus = Prometheus(tmp_path)
        stack.callback(prometheus.close)

        def fires(alert, seconds=40):
            until(lambda: alert in prometheus.firing(), seconds, f"{alert} fires")

        with Traffic(address, [*[cat, dog] * 15, b"no photo"]), contextlib.suppress(httpx.TransportError):
            prometheus.scrape([address])
            until(lambda: _answers(prometheus), 30, "Prometheus answers")
            until(lambda: _value(prometheus, "min_over_time(up[15s])") and _age(prometheus) > 14, 60, "15 s of figures")
            for panel in DASHBOARD["panels"]:
                for target in panel["targets"]:
                    query = target["expr"].replace("$__rate_interval", "6s")
                    assert prometheus.query(query), f"{panel['title']}: no data for {query}"
            assert prometheus.firing() == set()
        with Traffic(address, [dog, unsure]):
            fires("UnsureAnswers")
        with Traffic(address, [dog]):
            fires("ClassShift")
        with Traffic(address, [cat, dog, b"no photo", b"no photo"]):
            fires("ManyRefusals")
        with Traffic(address, [dog] * 20 + [dog + b"CRASH"]):
            fires("UnhandledErrors")
            fires("ServerErrors")
        with Traffic(address, [dog] * 20 + [dog + b"SLOW"]):
            fires("SlowAnswers")
        prometheus.scrape([address, second_address])
        fires("ModelsDiffer")
        second.kill()
        second.wait()
        fires("ServiceDown")
        assert "NoModel" not in prometheus.firing()
        prometheus.scrape([address, empty_address])
        fires("NoModel")


def _answers(prometheus):
    with contextlib.suppress(httpx.TransportError):
        return prometheus.client.get("/query", params={"query": "up"}).status_code == 200
    return False


def _value(prometheus, expression):
    found = prometheus.query(expression)
    return float(found[0]["value"][1]) if found else 0.0


def _age(prometheus):
    return _value(prometheus, "count_over_time(up[60s])")


def test_labels_have_few_values_whatever_is_sent(tmp_path):
    with service(ROOT / "models" / "reference") as (_, address), httpx.Client(base_url=f"http://{address}") as client:
        before = len(client.get("/metrics").text.splitlines())
        for number in range(30):
            name = f"photo-{number}.png"
            client.post("/predict", files={"file": (name, b"no photo", f"image/x-{number}")})
            client.request(f"M{number}", f"/nowhere/{number}", headers={"user-agent": str(number)})
        after = client.get("/metrics").text
        assert len(after.splitlines()) == before
        assert 'problems_total{problem="not-a-photo"} 30.0' in after
