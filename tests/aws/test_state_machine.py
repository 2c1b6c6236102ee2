"""The state machine: its definition is valid, and moto runs it over a bucket for the real function."""

import json
import re
import subprocess
import time
import uuid
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

ROOT = Path(__file__).parents[2]
DEFINITION = ROOT / "deploy" / "aws" / "score.asl.json"
ROLE = "arn:aws:iam::123456789012:role/score"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:map"

pytestmark = pytest.mark.slow


def substituted(**values):
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], DEFINITION.read_text())


@pytest.fixture(scope="module")
def machine():
    return json.loads(DEFINITION.read_text())


@pytest.fixture(scope="module")
def resources(templates):
    return templates["template"]["Resources"]


def test_the_definition_is_valid_for_amazon_states_language(tool, tmp_path):
    """cfn-lint holds AWS's schema of state machines, but reads no file that a template names."""
    whole = substituted(Partition="aws", Bucket="bucket", Function=FUNCTION)
    machine = {"Type": "AWS::StepFunctions::StateMachine", "Properties": {"RoleArn": ROLE, "DefinitionString": whole}}

    def lint(text):
        machine["Properties"]["DefinitionString"] = text
        (tmp_path / "template.json").write_text(json.dumps({"Resources": {"Score": machine}}))
        command = [tool("sam") / "cfn-lint", "--include-checks", "I", "--", tmp_path / "template.json"]
        return subprocess.run(command, capture_output=True, text=True)

    assert (lint(whole).returncode, lint(whole).stdout) == (0, "")
    assert (
        "E3601" in lint(whole.replace('"Next"', '"Nxt"').replace('"StartAt": "Batch"', '"StartAt": "Nothing"')).stdout
    )


def test_limits_fit_into_each_other(machine, resources):
    score = machine["States"]["Score"]
    task = score["ItemProcessor"]["States"]["Batch"]
    # An express execution, which each batch is, may take five minutes.
    assert resources["Map"]["Properties"]["Timeout"] < task["TimeoutSeconds"] < 300
    assert score["ItemProcessor"]["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS"}
    assert all(one["JitterStrategy"] == "FULL" and one["BackoffRate"] > 1 for one in task["Retry"])
    assert 0 < score["ToleratedFailurePercentage"] < 100
    names = set(re.findall(r"\$\{(\w+)\}", DEFINITION.read_text()))
    assert names == set(resources["Score"]["Properties"]["DefinitionSubstitutions"])
    assert score["ResultWriter"]["Parameters"]["Prefix"] == "maps"


def for_moto(definition):
    """The definition as moto can run it: it knows no batches, so each holds one item, and writes no results."""
    whole = json.loads(definition)
    score = whole["States"]["Score"]
    given = score.pop("ItemBatcher")["BatchInput"]
    score["ItemSelector"] = {"BatchInput": given, "Items.$": "States.Array($$.Map.Item.Value)"}
    score["ToleratedFailurePercentage"] = float(score["ToleratedFailurePercentage"])
    del score["ItemProcessor"]["ProcessorConfig"]["ExecutionType"], score["ResultWriter"]
    return json.dumps(whole)


def test_the_machine_hands_the_function_what_lies_under_the_prefix(aws, moto, stack, functions, pictures):
    """moto plays Step Functions; in the place of Lambda it gives back what the function would get."""
    states = aws("stepfunctions")
    keys = [f"incoming/may/{number:02} é+.jpg" for number in range(20)]
    for key, picture in zip(keys, pictures, strict=False):
        stack.put(key, picture)
    stack.put("incoming/june/other.jpg", pictures[20])
    stack.put("uploads/private.jpg", pictures[21])
    configure(moto, {"lambda": {"use_docker": False}, "stepfunctions": {"execute_state_machine": True}})
    definition = for_moto(substituted(Partition="aws", Bucket=stack.bucket, Function=FUNCTION))
    made = states.create_state_machine(name=stack.bucket, roleArn=ROLE, definition=definition)
    ended = run(states, made["stateMachineArn"], {"prefix": "incoming/may/"})
    assert ended["status"] == "SUCCEEDED", ended
    events = json.loads(ended["output"])
    rows = [row for event in events for row in functions.map_items(event)]
    assert sorted(row["path"] for row in rows) == keys
    assert all(row["error"] is None and row["confidence"] > 0 for row in rows)
    # Without a prefix nothing is read: it does not stand for the whole bucket.
    assert run(states, made["stateMachineArn"], {})["status"] == "FAILED"


def configure(moto, settings):
    body = json.dumps(settings).encode()
    with urlopen(Request(f"{moto['AWS_ENDPOINT_URL']}/moto-api/config", body, {"content-type": "application/json"})):
        pass


def run(states, machine, given, seconds=60):
    started = states.start_execution(stateMachineArn=machine, name=uuid.uuid4().hex, input=json.dumps(given))
    end = time.monotonic() + seconds
    while (found := states.describe_execution(executionArn=started["executionArn"]))["status"] == "RUNNING":
        assert time.monotonic() < end, found
        time.sleep(0.1)
    return found
