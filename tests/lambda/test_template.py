"""What template.yaml grants and sets, and that it agrees with Dockerfile, Makefile and service."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor

ROOT = Path(__file__).parents[2]


class _Constructor(SafeConstructor):
    """Reads CloudFormation's short functions: ``!Ref X`` becomes ``{"Ref": "X"}``."""

    def short(self, suffix, node):
        value = getattr(self, f"construct_{node.id}")(node, *([] if node.id == "scalar" else [True]))
        return {suffix if suffix == "Ref" else f"Fn::{suffix}": value}


_Constructor.add_multi_constructor("!", _Constructor.short)


@pytest.fixture(scope="module")
def template():
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    return yaml.load((ROOT / "template.yaml").read_text())


@pytest.fixture(scope="module")
def properties(template):
    return {name: resource["Properties"] for name, resource in template["Resources"].items()}


@pytest.fixture(scope="module")
def dockerfile():
    return (ROOT / "Dockerfile.lambda").read_text()


def test_the_url_asks_for_credentials_unless_public_is_chosen(template, properties):
    assert template["Parameters"]["Access"]["Default"] == "iam"
    assert template["Conditions"]["IsPublic"] == {"Fn::Equals": [{"Ref": "Access"}, "public"]}
    assert properties["Function"]["FunctionUrlConfig"]["AuthType"] == {"Fn::If": ["IsPublic", "NONE", "AWS_IAM"]}


def test_a_public_url_gets_both_permissions_and_no_other_does(template):
    to_all = {name: resource for name, resource in template["Resources"].items()
              if resource["Properties"].get("Principal") == "*"}  # fmt: skip
    assert {resource["Condition"] for resource in to_all.values()} == {"IsPublic"}
    granted = {resource["Properties"]["Action"]: resource["Properties"] for resource in to_all.values()}
    assert set(granted) == {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}
    assert granted["lambda:InvokeFunctionUrl"]["FunctionUrlAuthType"] == "NONE"
    assert granted["lambda:InvokeFunction"]["InvokedViaFunctionUrl"] is True


def test_a_public_url_has_a_ceiling(template, properties):
    rule = template["Rules"]["PublicHasACeiling"]
    assert rule["RuleCondition"] == template["Conditions"]["IsPublic"]
    assert rule["Assertions"][0]["Assert"] == template["Conditions"]["IsReserved"]
    reserved = properties["Function"]["ReservedConcurrentExecutions"]["Fn::If"]
    assert reserved[:2] == ["IsReserved", {"Ref": "ReservedConcurrency"}]
    # An account may have too few to reserve any: without a public URL none are.
    assert template["Parameters"]["ReservedConcurrency"]["Default"] == 0


def test_the_function_may_write_its_own_lines_and_traces_and_nothing_else(properties):
    statements = [one for policy in properties["Role"]["Policies"] for one in policy["PolicyDocument"]["Statement"]]
    granted = {action: one["Resource"] for one in statements for action in one["Action"]}
    own = {"Fn::GetAtt": "Logs.Arn"}
    assert granted == {"logs:CreateLogStream": own, "logs:PutLogEvents": own,
                       "xray:PutTraceSegments": "*", "xray:PutTelemetryRecords": "*"}  # fmt: skip
    assert "ManagedPolicyArns" not in properties["Role"]
    assert properties["Logs"]["RetentionInDays"] == {"Ref": "LogRetention"}


def test_only_the_template_speaks_of_cors(properties):
    assert "AllowOrigins" in properties["Function"]["FunctionUrlConfig"]["Cors"]["Fn::If"][1]
    service = [*(ROOT / "catsdogs_lib" / "service").glob("*.py"), ROOT / "lambda" / "handler.py"]
    assert [file.name for file in service if re.search("access-control-|CORSMiddleware", file.read_text(), re.I)] == []


def test_a_local_rest_api_takes_photos(template, properties):
    assert template["Resources"]["Rest"]["Condition"] == "HasRestApi"
    assert properties["Rest"]["BinaryMediaTypes"] == ["*~1*"]
    assert set(properties["Rest"]["DefinitionBody"]["paths"]) == {"/", "/{path+}"}


def test_template_image_and_makefile_agree(template, properties, dockerfile):
    makefile = (ROOT / "Makefile").read_text()
    base = template["Parameters"]["BaseImage"]["Default"]
    assert re.search(r"^ARG BASE_IMAGE=(.*)$", dockerfile, re.M)[1] == base
    assert re.search(r"^BASE_IMAGE \?= (.*)$", makefile, re.M)[1] == base
    assert re.search(r"^ARG BUNDLE=(.*)$", dockerfile, re.M)[1] == template["Parameters"]["Bundle"]["Default"]
    stages = re.findall(r" AS (\w+)$", dockerfile, re.M)
    assert template["Resources"]["Function"]["Metadata"]["DockerBuildTarget"] in stages
    set_by_image = dict(re.findall(r"(POWERTOOLS_\w+)=(\S+)", dockerfile))
    set_by_template = properties["Function"]["Environment"]["Variables"]
    assert set_by_image.items() <= set_by_template.items()


def test_the_dockerfile_keeps_the_contract_of_the_base(dockerfile):
    words = [line.split()[0] for line in dockerfile.splitlines() if line and not line.startswith((" ", "#"))]
    assert "ENTRYPOINT" not in words
    assert words.count("CMD") == 1
    assert "syntax=" not in dockerfile  # it would pull
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.M)) == {"${BASE_IMAGE}", "function"}


def test_alarms_look_at_figures_that_exist(properties):
    namespace = properties["Function"]["Environment"]["Variables"]["POWERTOOLS_METRICS_NAMESPACE"]
    query = properties["UnhandledAlarm"]["Metrics"][0]["Expression"]
    metric, found = re.fullmatch(r'SELECT SUM\((\w+)\) FROM "(\w+)"', query).groups()
    assert found == namespace
    assert f'"{metric}"' in (ROOT / "catsdogs_lib" / "service" / "emf.py").read_text()
