"""What the stacks for AWS grant and set, and that they agree with each other, the image, the Makefile and the code."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN_LINES = {"logs:CreateLogStream", "logs:PutLogEvents"}
TRACES = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
GRANTED = {
    "Role": {
        "Logs.Arn": OWN_LINES,
        "*": TRACES,
        "${Data.Outputs.BucketArn}/uploads/*": {"s3:GetObject", "s3:PutObject"},
        "Data.Outputs.BucketArn": {"s3:ListBucket"},
    },
    "HookRole": {
        "Logs.Arn": OWN_LINES,
        "*": TRACES,
        "${Function.Arn}:*": {"lambda:InvokeFunction"},
        "codedeploy:deploymentgroup:${ServerlessDeploymentApplication}/*": {
            "codedeploy:PutLifecycleEventHookExecutionStatus"
        },
    },
    "ReleaseRole": {
        "Function.Arn": {"lambda:GetAlias", "lambda:UpdateAlias", "lambda:GetProvisionedConcurrencyConfig"},
        "${Function.Arn}:*": {"lambda:GetAlias", "lambda:UpdateAlias", "lambda:GetProvisionedConcurrencyConfig"},
        "Hook.Arn": {"lambda:InvokeFunction"},
        "*": {"cloudwatch:DescribeAlarms"},
    },
    "QueueRole": {
        "BatchLogs.Arn": OWN_LINES,
        "*": TRACES,
        "Data.Outputs.QueueArn": {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"},
        "Data.Outputs.DeadLettersArn": {"sqs:SendMessage"},
        "Data.Outputs.TableArn": {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"},
        "${Data.Outputs.BucketArn}/incoming/*": {"s3:GetObject"},
        "${Data.Outputs.BucketArn}/results/*": {"s3:GetObject", "s3:PutObject"},
        "Data.Outputs.BucketArn": {"s3:ListBucket"},
    },
    "MapRole": {
        "BatchLogs.Arn": OWN_LINES,
        "*": TRACES,
        "${Data.Outputs.BucketArn}/incoming/*": {"s3:GetObject"},
        "Data.Outputs.BucketArn": {"s3:ListBucket"},
    },
    "ScoreRole": {
        "Map.Arn": {"lambda:InvokeFunction"},
        "states:stateMachine:${AWS::StackName}-score": {"states:StartExecution"},
        "states:execution:${AWS::StackName}-score/*": {"states:DescribeExecution", "states:StopExecution"},
        "Data.Outputs.BucketArn": {"s3:ListBucket"},
        "${Data.Outputs.BucketArn}/maps/*": {
            "s3:GetObject",
            "s3:PutObject",
            "s3:ListMultipartUploadParts",
            "s3:AbortMultipartUpload",
        },
    },
}
"""What each role may do to what; nothing beside it."""


@pytest.fixture(scope="module")
def template(templates):
    return templates["template"]


@pytest.fixture(scope="module")
def properties(template):
    return {name: resource["Properties"] for name, resource in template["Resources"].items()}


@pytest.fixture(scope="module")
def functions(template):
    """Properties of each function by its name."""
    return {
        name: resource["Properties"]
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
    }


@pytest.fixture(scope="module")
def kept(templates):
    """What the stack with the data holds."""
    return {name: resource["Properties"] for name, resource in templates["data"]["Resources"].items()}


@pytest.fixture(scope="module")
def dockerfile():
    return (ROOT / "Dockerfile.lambda").read_text()


def walk(node):
    """Every mapping in a template."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def refs(node):
    """Every name that is referred to: parameters, conditions and resources, attributes left out."""
    for found in walk(node):
        yield from (found[key] for key in ("Ref", "Condition") if isinstance(found.get(key), str))
        if "Fn::If" in found:
            yield found["Fn::If"][0]
        if "Fn::GetAtt" in found:
            yield found["Fn::GetAtt"].partition(".")[0]
        if "Fn::Sub" in found:
            text = found["Fn::Sub"] if isinstance(found["Fn::Sub"], str) else found["Fn::Sub"][0]
            yield from (name.partition(".")[0] for name in re.findall(r"\$\{([^}]+)\}", text))


def named(resource):
    """A resource of a policy in short."""
    if isinstance(resource, str):
        return resource
    ((kind, value),) = resource.items()
    return (
        re.sub(r"^arn:\$\{AWS::Partition\}:(\w+):.*\$\{AWS::AccountId\}:", r"\1:", value)
        if kind == "Fn::Sub"
        else value
    )


def statements(role):
    for policy in role["Policies"]:
        policy = policy["Fn::If"][1] if "Fn::If" in policy else policy  # noqa: PLW2901
        yield from policy["PolicyDocument"]["Statement"]


def test_the_url_asks_for_credentials_unless_public_is_chosen(template, properties):
    assert template["Parameters"]["Access"]["Default"] == "iam"
    assert template["Conditions"]["IsPublic"] == {"Fn::Equals": [{"Ref": "Access"}, "public"]}
    assert properties["Function"]["FunctionUrlConfig"]["AuthType"] == {"Fn::If": ["IsPublic", "NONE", "AWS_IAM"]}


def test_a_public_url_gets_both_permissions_on_the_alias_and_no_other_does(template):
    to_all = {
        name: resource
        for name, resource in template["Resources"].items()
        if resource["Properties"].get("Principal") == "*"
    }
    assert {resource["Condition"] for resource in to_all.values()} == {"IsPublic"}
    granted = {resource["Properties"]["Action"]: resource["Properties"] for resource in to_all.values()}
    assert set(granted) == {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}
    assert granted["lambda:InvokeFunctionUrl"]["FunctionUrlAuthType"] == "NONE"
    assert granted["lambda:InvokeFunction"]["InvokedViaFunctionUrl"] is True
    assert {str(one["FunctionName"]) for one in granted.values()} == {str({"Ref": "Function.Alias"})}


def test_a_public_url_has_a_ceiling(template, properties):
    rule = template["Rules"]["PublicHasACeiling"]
    assert rule["RuleCondition"] == template["Conditions"]["IsPublic"]
    assert rule["Assertions"][0]["Assert"] == template["Conditions"]["IsReserved"]
    reserved = properties["Function"]["ReservedConcurrentExecutions"]["Fn::If"]
    assert reserved[:2] == ["IsReserved", {"Ref": "ReservedConcurrency"}]
    # An account may have too few to reserve any: without a public URL none are.
    assert template["Parameters"]["ReservedConcurrency"]["Default"] == 0


def test_each_role_may_do_what_it_needs_and_nothing_else(properties):
    roles = {name: role for name, role in properties.items() if "AssumeRolePolicyDocument" in role}
    assert not [name for name, role in roles.items() if "ManagedPolicyArns" in role]
    found = {}
    for name, role in roles.items():
        granted = found[name] = {}
        for one in statements(role):
            assert one["Effect"] == "Allow"
            for resource in one["Resource"] if isinstance(one["Resource"], list) else [one["Resource"]]:
                granted.setdefault(named(resource), set()).update(one["Action"])
    assert found == GRANTED
    listed = [one for one in statements(roles["ScoreRole"]) if one["Action"] == ["s3:ListBucket"]]
    assert listed[0]["Condition"] == {"StringLike": {"s3:prefix": "incoming/*"}}


def test_nobody_writes_without_a_key(template, properties):
    rule = template["Rules"]["UploadsNeedAKey"]
    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "Uploads"}, "true"]}
    assert rule["Assertions"][0]["Assert"] == template["Conditions"]["HasKey"]
    assert {"Condition": "HasKey"} in template["Conditions"]["HasUploads"]["Fn::And"]
    given = properties["Function"]["Environment"]["Variables"]
    assert given["CATSDOGS_UPLOADS"]["Fn::If"][0] == "HasUploads"
    assert given["CATSDOGS_KEY_SHA256"] == {"Fn::If": ["HasKey", {"Ref": "KeySha256"}, {"Ref": "AWS::NoValue"}]}
    (conditional,) = [policy["Fn::If"][0] for policy in properties["Role"]["Policies"] if "Fn::If" in policy]
    assert conditional == "HasUploads"
    assert template["Parameters"]["Uploads"]["Default"] == template["Parameters"]["Batch"]["Default"] == "false"


def test_every_value_that_a_version_is_made_of_makes_a_new_version(template, properties):
    """SAM compares no parameters: what the alias serves would go on with old values."""
    function = dict(properties["Function"])
    described = set(refs(function.pop("VersionDescription")))
    # Not part of a version: the URL, the ceiling, how releases go. Another image is another address already.
    for name in ("FunctionUrlConfig", "ReservedConcurrentExecutions", "DeploymentPreference", "ImageUri"):
        function.pop(name)
    used, open_names = set(), set(refs(function))
    while open_names:
        name = open_names.pop()
        if name in template["Parameters"]:
            used.add(name)
        elif name in template["Conditions"]:
            open_names |= set(refs(template["Conditions"][name]))
    # Where the bucket is there the environment follows uploads alone.
    assert used - {"ImageUri"} == described
    # Two digests with a comma between; no other value is longer than twelve characters.
    longest = re.sub(
        r"\$\{(\w+)\}",
        lambda match: "x" * (129 if match[1] == "KeySha256" else 12),
        properties["Function"]["VersionDescription"]["Fn::Sub"],
    )
    assert len(longest) <= 256
    assert properties["Function"]["AutoPublishAliasAllProperties"] is True


@pytest.mark.slow
def test_sam_publishes_a_version_for_another_image_and_describes_another_key(tool):
    code = """
import json, sys
from samcli.yamlhelper import yaml_parse
from samtranslator.translator.transform import transform
def resources(**given):
    template = yaml_parse(open("template.yaml").read())
    template["Resources"]["Score"]["Properties"]["DefinitionUri"] = "s3://bucket/key"
    values = {name: str(one.get("Default", "")) for name, one in template["Parameters"].items()}
    return transform(template, values | given, type("None_", (), {"load": lambda self: {}})())["Resources"]
print(json.dumps([resources(ImageUri="a"), resources(ImageUri="b")]))
"""
    environment = {"AWS_DEFAULT_REGION": "us-east-1", "PATH": "/usr/bin:/bin"}
    command = [tool("sam") / "python", "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = json.loads(done.stdout)
    versions = [
        {name for name, one in found.items() if one["Type"] == "AWS::Lambda::Version"} for found in (first, second)
    ]
    assert all(len(found) == 1 for found in versions)
    assert versions[0] != versions[1]
    (version,) = versions[0]
    assert "${KeySha256}" in first[version]["Properties"]["Description"]["Fn::Sub"]
    update = first["FunctionAliaslive"]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    assert update["BeforeAllowTrafficHook"] == {"Ref": "Hook"}
    guarded = first["FunctionDeploymentGroup"]["Properties"]
    assert "DEPLOYMENT_STOP_ON_ALARM" in guarded["AutoRollbackConfiguration"]["Events"]
    assert len(guarded["AlarmConfiguration"]["Alarms"]) == 6
    assert first["FunctionUrl"]["Properties"]["TargetFunctionArn"] == {"Ref": "FunctionAliaslive"}
    assert first["QueueArrived"]["Condition"] == "HasBatch"


@pytest.mark.slow
def test_a_pushed_image_is_deployed_without_a_build(tool, aws, moto, tmp_path):
    """SAM uploads the nested stacks and the state machine, and leaves the image to the parameter."""
    aws("s3").create_bucket(Bucket="artifacts")
    repository = "123456789012.dkr.ecr.us-east-1.amazonaws.com/catsdogs"
    where = ("--s3-bucket", "artifacts", "--image-repository", repository, "--output-template-file", tmp_path / "out")
    command = [tool("sam") / "sam", "package", "--template-file", "template.yaml", *where]
    environment = {**moto, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SAM_CLI_TELEMETRY": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    packaged = (tmp_path / "out").read_text()
    assert len(re.findall(r"ImageUri:\n +Ref: ImageUri\n", packaged)) == 4
    assert len(re.findall(r"TemplateURL: http\S+/artifacts/\w+\.template", packaged)) == 2
    assert re.search(r"DefinitionUri:\n +Bucket: artifacts\n", packaged)


def test_only_the_template_speaks_of_cors(properties):
    assert "AllowOrigins" in properties["Function"]["FunctionUrlConfig"]["Cors"]["Fn::If"][1]
    # The application has CORS for uvicorn; tests/lambda/test_handler.py shows that the handler turns it off.
    assert "CATSDOGS_CORS_ORIGINS" not in properties["Function"]["Environment"]["Variables"]
    assert not re.search("access-control-|CORSMiddleware", (ROOT / "lambda" / "handler.py").read_text(), re.I)


def test_a_local_rest_api_takes_photos(template, properties):
    assert template["Resources"]["Rest"]["Condition"] == "HasRestApi"
    assert properties["Rest"]["BinaryMediaTypes"] == ["*~1*"]
    paths = properties["Rest"]["DefinitionBody"]["paths"]
    assert set(paths) == {"/", "/{path+}"}
    for path in paths.values():
        integration = path["x-amazon-apigateway-any-method"]["x-amazon-apigateway-integration"]
        assert integration["uri"]["Fn::Sub"].endswith("/functions/${Function.Arn}:live/invocations")
    assert properties["RestInvoke"]["FunctionName"] == {"Ref": "Function.Alias"}


def test_template_image_and_makefile_agree(template, functions, dockerfile):
    makefile = (ROOT / "Makefile").read_text()
    base = template["Parameters"]["BaseImage"]["Default"]
    assert re.search(r"^ARG BASE_IMAGE=(.*)$", dockerfile, re.M)[1] == base
    assert re.search(r"^BASE_IMAGE \?= (.*)$", makefile, re.M)[1] == base
    assert re.search(r"^ARG BUNDLE=(.*)$", dockerfile, re.M)[1] == template["Parameters"]["Bundle"]["Default"]
    stages = re.findall(r" AS (\w+)$", dockerfile, re.M)
    assert template["Resources"]["Function"]["Metadata"]["DockerBuildTarget"] in stages
    set_by_image = dict(re.findall(r"(POWERTOOLS_\w+)=(\S+)", dockerfile))
    set_by_template = functions["Function"]["Environment"]["Variables"]
    assert set(set_by_image) <= set(set_by_template)
    assert set_by_image["POWERTOOLS_METRICS_NAMESPACE"] == set_by_template["POWERTOOLS_METRICS_NAMESPACE"]


def test_all_functions_run_one_image_with_a_command_that_it_holds(template, functions, dockerfile):
    # SAM builds once what is described alike.
    assert len({json.dumps(template["Resources"][name]["Metadata"]) for name in functions}) == 1
    copied = re.search(r"^COPY (lambda/handler\.py.*) \./$", dockerfile, re.M)[1].split()
    for name, function in functions.items():
        command = function.get("ImageConfig", {}).get("Command", ["handler.handler"])
        module, _, attribute = command[0].partition(".")
        assert f"lambda/{module}.py" in copied, name
        assert re.search(rf"^def {attribute}\(", (ROOT / "lambda" / f"{module}.py").read_text(), re.M), name


def test_functions_are_told_the_names_that_the_code_asks_for(functions):
    told = {name: set(one["Environment"]["Variables"]) for name, one in functions.items()}
    settings = (ROOT / "catsdogs_lib" / "serving" / "settings.py").read_text()
    assert {"CATSDOGS_KEY_SHA256", "CATSDOGS_KEY_COVERS", "CATSDOGS_UPLOADS"} <= told["Function"]
    assert all(name in settings for name in ("CATSDOGS_KEY_SHA256", "CATSDOGS_KEY_COVERS", "CATSDOGS_UPLOADS"))
    for function, file in (("Hook", "hook"), ("Queue", "batch")):
        asked = set(re.findall(r'environ\["(\w+)"\]', (ROOT / "lambda" / f"{file}.py").read_text()))
        assert asked, file
        assert asked <= told[function]


def test_the_dockerfile_keeps_the_contract_of_the_base(dockerfile):
    lines = [line for line in dockerfile.splitlines() if line and not line.startswith((" ", "#"))]
    words = [line.split()[0] for line in lines]
    assert "ENTRYPOINT" not in words
    assert words.count("CMD") == 1
    assert "syntax=" not in dockerfile  # it would pull
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.M)) == {"${BASE_IMAGE}", "function"}


@pytest.mark.parametrize(("name", "stack"), [("data", "Data"), ("watch", "Watch")])
def test_a_nested_stack_gets_what_it_asks_for_and_gives_what_is_used(templates, properties, name, stack):
    assert properties[stack]["TemplateURL"] == f"deploy/aws/{name}.yaml"
    assert set(properties[stack]["Parameters"]) == set(templates[name]["Parameters"])
    used = set(re.findall(rf"{stack}\.Outputs\.(\w+)", json.dumps(templates["template"])))
    assert used == set(templates[name]["Outputs"])


def test_the_bucket_is_private_and_forgets(kept):
    assert set(kept["Bucket"]["PublicAccessBlockConfiguration"].values()) == {True}
    assert kept["Bucket"]["BucketEncryption"]
    rules = kept["Bucket"]["LifecycleConfiguration"]["Rules"]
    days = {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "Prefix" in rule}
    keep = {"Ref": "KeepDays"}
    assert days == {"uploads/": 1, "incoming/": keep, "results/": keep, "maps/": keep}
    assert {"DaysAfterInitiation": 1} in [rule.get("AbortIncompleteMultipartUpload") for rule in rules]
    cors = kept["Bucket"]["CorsConfiguration"]["Fn::If"]
    assert (cors[0], cors[1]["CorsRules"][0]["AllowedMethods"]) == ("HasUploads", ["POST"])


def test_what_is_kept_is_reached_over_tls_alone(kept):
    denied = {}
    for name, policy in kept.items():
        for one in policy.get("PolicyDocument", {}).get("Statement", []):
            if one["Effect"] == "Deny":
                assert one["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
                denied[name] = (one["Principal"], one["Action"])
    assert denied == {"BucketPolicy": ("*", "s3:*"), "Announce": ("*", "sqs:*"), "DeadLettersPolicy": ("*", "sqs:*")}


def test_a_photo_comes_again_and_ends_among_the_dead_letters(kept, functions):
    # AWS: six times the function's timeout at least.
    assert kept["Queue"]["VisibilityTimeout"] >= 6 * functions["Queue"]["Timeout"]
    assert kept["Queue"]["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": "DeadLetters.Arn"}
    assert kept["DeadLetters"]["MessageRetentionPeriod"] > kept["Queue"]["MessageRetentionPeriod"]
    arrived = functions["Queue"]["Events"]["Arrived"]["Properties"]
    assert arrived["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    filtered = kept["Bucket"]["NotificationConfiguration"]["Fn::If"][1]["QueueConfigurations"][0]["Filter"]
    assert filtered["S3Key"]["Rules"] == [{"Name": "prefix", "Value": "incoming/"}]
    assert kept["Table"]["TimeToLiveSpecification"] == {"AttributeName": "expiration", "Enabled": True}


def test_parameters_and_outputs_are_documented(template):
    page = (ROOT / "docs" / "aws.md").read_text()
    rows = []
    for name, one in template["Parameters"].items():
        default = f"`{one['Default']}`" if one["Default"] != "" else ""
        rows.append(f"| `{name}` | {default} | {one['Description']} |")
    rows += [f"| `{name}` | {one['Description']} |" for name, one in template["Outputs"].items()]
    assert [row for row in rows if row not in page] == []
    documented = [name for name in re.findall(r"^\| `(\w+)` \|", page, re.M) if not name.endswith("Alarm")]
    assert sorted(documented) == sorted([*template["Parameters"], *template["Outputs"]])
