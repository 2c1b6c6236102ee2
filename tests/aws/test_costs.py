"""The page about costs says what its script computes, from the limits that the stack has."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def costs():
    spec = importlib.util.spec_from_file_location("costs", ROOT / "scripts" / "costs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_what_the_script_writes(costs):
    page = (ROOT / "docs" / "costs.md").read_text()
    assert costs.page(page) == page, "run python scripts/costs.py"


def test_the_estimate_counts_what_the_stack_has(costs, templates):
    resources = templates["watch"]["Resources"]
    alarms = {name: one for name, one in resources.items() if one["Type"] == "AWS::CloudWatch::Alarm"}
    looked_at = {
        name: max(1, sum("MetricStat" in metric for metric in one["Properties"].get("Metrics", ())))
        for name, one in alarms.items()
    }
    always = sum(count for name, count in looked_at.items() if "Condition" not in alarms[name])
    assert costs.known("alarm_metrics") == always
    assert f"({sum(looked_at.values())} with Batch)" in costs.ASSUMED["alarm_metrics"][1]
    assert templates["template"]["Parameters"]["MemorySize"]["Default"] / 1024 == costs.GIGABYTES
    assert templates["template"]["Parameters"]["KeepDays"]["Default"] / 30 == costs.known("kept")
    definition = json.loads((ROOT / "deploy" / "aws" / "score.asl.json").read_text())
    assert definition["States"]["Score"]["ItemBatcher"]["MaxItemsPerBatch"] == 100
