"""What watches the stack: alarms and dashboard ask for figures that are sent, and a shift is told from chance."""

import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from catsdogs_lib.inference.classifier import Prediction
from catsdogs_lib.serving.telemetry import RequestRecord

ROOT = Path(__file__).parents[2]
VALUES = {
    "Service": "stack",
    "Function": "function",
    "Version": "7",
    "Queue": "queue",
    "DeadLetters": "letters",
    "AWS::Region": "us-east-1",
}
BY_ALIAS = {"FunctionName": {"Ref": "Function"}, "Resource": {"Fn::Sub": "${Function}:live"}}
SHIFTS = {"ConfidenceAlarm": "Confidence", "BalanceAlarm": "ClassPosition"}


@pytest.fixture(scope="module")
def watch(templates):
    return templates["watch"]["Resources"]


@pytest.fixture(scope="module")
def alarms(watch):
    return {name: one["Properties"] for name, one in watch.items() if one["Type"] == "AWS::CloudWatch::Alarm"}


@pytest.fixture
def sent(monkeypatch, capsys):
    """Every figure that the service sends: its name, and the names of its dimensions."""
    from aws_lambda_powertools import Logger, Metrics

    from catsdogs_lib.serving.metrics_cloudwatch import LambdaTelemetry

    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "7")
    metrics = Metrics(service="stack", namespace="Catsdogs")
    metrics.clear_metrics()

    @metrics.log_metrics(capture_cold_start_metric=True)
    def handler(event, context):
        telemetry = LambdaTelemetry(Logger(service="stack", location=None), metrics)
        telemetry.model_version = "abc"
        answer = Prediction("cat", 0.9, {"cat": 0.9, "dog": 0.1}, 0.1, True, None)
        telemetry.record(RequestRecord("1", route="/predict", status=200, prediction=answer, prediction_id="1"))

    from aws_lambda_powertools.metrics.provider import cold_start

    monkeypatch.setattr(cold_start, "is_cold_start", True)
    handler({}, SimpleNamespace(function_name="function"))
    telemetry = LambdaTelemetry(Logger(service="stack", location=None), metrics)
    telemetry.record(RequestRecord("2", route="/predict", status=415, problem="not-a-photo"))
    metrics.clear_metrics()
    found = set()
    for line in capsys.readouterr().out.splitlines():
        for directive in json.loads(line).get("_aws", {}).get("CloudWatchMetrics", ()):
            assert directive["Namespace"] == "Catsdogs"
            names, sets = (one["Name"] for one in directive["Metrics"]), map(frozenset, directive["Dimensions"])
            found |= set(itertools.product(names, sets))
    return found


def substituted(value, has_batch):
    """What ``Fn::Sub`` and ``Fn::If`` make of a text."""
    if isinstance(value, str):
        return value
    ((kind, content),) = value.items()
    if kind == "Fn::If":
        return substituted(content[1 if has_batch else 2], has_batch)
    text, more = content if isinstance(content, list) else (content, {})
    more = {name: substituted(one, has_batch) for name, one in more.items()}
    return re.sub(r"\$\{([^}]+)\}", lambda found: more.get(found[1], VALUES.get(found[1], found[1])), text)


def test_a_release_is_guarded_by_alarms_on_its_alias_and_its_service(templates, alarms):
    guarding = templates["template"]["Resources"]["Function"]["Properties"]["DeploymentPreference"]["Alarms"]
    names = [one["Fn::GetAtt"].rpartition(".")[2] for one in guarding]
    assert names == ["UrlAlarm", "UnhandledAlarm", "FailedAlarm", "SlowAlarm", *SHIFTS]
    outputs = templates["watch"]["Outputs"]
    assert all(outputs[name]["Value"] == {"Ref": name} for name in names)
    for name in ("UrlAlarm", "FailedAlarm", "SlowAlarm"):
        assert {one["Name"]: one["Value"] for one in alarms[name]["Dimensions"]} == BY_ALIAS, name
    assert "WHERE service = '${Service}'" in alarms["UnhandledAlarm"]["Metrics"][0]["Expression"]["Fn::Sub"]
    # A release that nobody asks is no bad release.
    assert {alarm["TreatMissingData"] for alarm in alarms.values()} == {"notBreaching"}


def test_alarms_look_at_figures_that_the_service_sends(alarms, sent):
    query = alarms["UnhandledAlarm"]["Metrics"][0]["Expression"]["Fn::Sub"]
    metric, namespace = re.match(r'SELECT SUM\((\w+)\) FROM "(\w+)"', query).groups()
    assert namespace == "Catsdogs"
    assert any(name == metric and "service" in dimensions for name, dimensions in sent)
    for alarm, name in SHIFTS.items():
        asked = [one["MetricStat"]["Metric"] for one in alarms[alarm]["Metrics"] if "MetricStat" in one]
        assert {one["Namespace"] for one in asked} == {"Catsdogs"}
        assert {one["MetricName"] for one in asked} == {name}
        assert {(name, frozenset(part["Name"] for part in one["Dimensions"])) for one in asked} <= sent


def judged(alarm, new, old):
    """Whether the alarm takes a release back, by its own formulas: the two versions answered with these values."""
    both = [*new, *old]
    known = {"total": sum(both), "count": len(both), "newtotal": sum(new), "newcount": len(new)}
    for one in alarm["Metrics"]:
        if "Expression" in one:
            formula = one["Expression"].replace("^", "**").replace("AND", "and")
            tools = {"IF": lambda condition, yes, no: yes if condition else no, "ABS": abs, "__builtins__": {}}
            try:
                known[one["Id"]] = eval(formula, tools, known)
            except ZeroDivisionError:
                return False  # CloudWatch has no value then, and a value that misses breaches nothing
    return known["shifted"] >= alarm["Threshold"]


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_is_seen_and_few_answers_or_a_small_change_are_none(alarms, name):
    alarm = alarms[name]
    sure, unsure = [0.97, 0.99] * 300, [0.6, 0.75] * 40
    assert judged(alarm, unsure, sure)
    assert judged(alarm, sure, unsure)
    assert not judged(alarm, unsure[:49], sure)
    assert not judged(alarm, sure, unsure[:49])
    assert not judged(alarm, [0.93, 0.94] * 300, sure)
    assert not judged(alarm, unsure, [])
    assert not judged(alarm, [1.0] * 600, [1.0] * 600)


@pytest.mark.parametrize(("name", "share"), [("BalanceAlarm", 0.5), ("BalanceAlarm", 0.1), ("ConfidenceAlarm", 0.95)])
def test_chance_takes_no_release_back(alarms, name, share):
    """The widest spread that values from 0 to 1 can have: each is one of the two."""
    chance = np.random.default_rng(0)
    taken_back = 0
    for _ in range(2000):
        new, old = (list(map(float, chance.random(size) < share)) for size in (60, 540))
        taken_back += judged(alarms[name], new, old)
    assert taken_back <= 2


@pytest.mark.parametrize("has_batch", [True, False])
def test_the_dashboard_asks_for_figures_that_exist(watch, alarms, sent, has_batch):
    page = json.loads(substituted(watch["Page"]["Properties"]["DashboardBody"], has_batch))
    panels = {one["properties"]["title"]: one["properties"] for one in page["widgets"]}
    shown = {one.partition(".")[0] for one in panels.pop("Alarms")["alarms"]}
    batch = {name for name, one in watch.items() if one.get("Condition") == "HasBatch"}
    assert shown == set(alarms) - (set() if has_batch else batch)
    assert ("Photos waiting, and dead letters" in panels) == has_batch
    asked = set()
    for panel in panels.values():
        for metric in panel["metrics"]:
            if isinstance(metric[0], dict):
                found = re.match(
                    r"SEARCH\('\{Catsdogs,([\w,]+)\} MetricName=\"(\w+)\" (.*)', '", metric[0]["expression"]
                )
                assert found[3] == 'service="stack"'
                asked.add((found[2], frozenset(found[1].split(","))))
            elif metric[0] == "Catsdogs":
                asked.add((metric[1], frozenset([part for part in metric[2:] if isinstance(part, str)][::2])))
    assert asked <= sent
    assert {name for name, _ in asked} == {
        "Requests",
        "PredictionsByClass",
        "Confidence",
        "Unsure",
        "ProblemsByType",
        "ColdStart",
    }
    corners = [(one["x"], one["y"]) for one in page["widgets"]]
    assert len(set(corners)) == len(corners)


def test_there_is_a_budget_for_a_public_url_whose_owner_has_an_address(templates, watch):
    given = templates["template"]["Resources"]["Watch"]["Properties"]["Parameters"]
    assert given["BudgetEmail"] == {"Fn::If": ["IsPublic", {"Ref": "BudgetEmail"}, ""]}
    assert watch["Budget"]["Condition"] == "HasBudget"
    assert watch["Budget"]["Properties"]["Budget"]["BudgetLimit"]["Amount"] == {"Ref": "BudgetAmount"}


def test_every_alarm_is_in_the_runbook(alarms):
    runbook = (ROOT / "docs" / "aws.md").read_text()
    assert re.findall(r"^\| `(\w+Alarm)` \|", runbook, re.M) == list(alarms)
