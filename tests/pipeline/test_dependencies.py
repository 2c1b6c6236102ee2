"""A stage of dvc.yaml depends on the modules that its notebook imports, directly or indirectly, and on no others."""

import ast
import copy
import json
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
LIBRARY = "catsdogs_lib"
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
SERVICE = (
    *(f"{LIBRARY}/{name}" for name in ("batch", "cli", "client", "lambda_local", "monitoring", "release", "serving")),
    *(f"{LIBRARY}/{name}" for name in ("common/s3.py", "inference/explanation.py")),
)
"""Parts of the library for which nothing up to the evaluation may run again."""
IMPORTED_SHARE = 0.8
"""A stage depends on a whole package from this share of imported modules on."""
GRAPH = grimp.build_graph(LIBRARY, exclude_type_checking_imports=True, cache_dir=None)


def file_of(module):
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


MODULES = sorted(file_of(module) for module in GRAPH.modules if not GRAPH.find_children(module))


@cache
def imported_files(notebook):
    """Files of the library that a notebook imports, also within functions, directly or indirectly."""
    cells = nbformat.read(ROOT / notebook, as_version=4).cells
    source = "\n".join(TransformerManager().transform_cell(c.source) for c in cells if c.cell_type == "code")
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    modules = names & GRAPH.modules
    assert modules, f"{notebook} imports nothing of the library"
    modules |= {upstream for module in modules for upstream in GRAPH.find_upstream_modules(module)}
    # A package imported on the way to a module of it holds a docstring alone: see below.
    return {file_of(module) for module in modules if (ROOT / f"{module.replace('.', '/')}.py").is_file()}


def notebook_of(stage):
    return shlex.split(stage["cmd"])[2]


def library_dependencies(stage):
    return [dependency for dependency in stage["deps"] if dependency.startswith(f"{LIBRARY}/")]


def covers(dependency, file):
    return file == dependency or file.startswith(f"{dependency}/")


def missing(stage):
    """Files that a stage's notebook imports and that none of its dependencies covers."""
    dependencies = library_dependencies(stage)
    return {f for f in imported_files(notebook_of(stage)) if not any(covers(d, f) for d in dependencies)}


def expected(stage, folder=LIBRARY):
    """Dependencies that a stage should have: packages of which its notebook imports most, else the files."""
    modules = [file for file in MODULES if covers(folder, file)]
    imported = [file for file in modules if file in imported_files(notebook_of(stage))]
    holds_service = any(covers(folder, part) or covers(part, folder) for part in SERVICE)
    if not holds_service and len(imported) >= IMPORTED_SHARE * len(modules):
        return {folder}
    packages = {f"{folder}/{file.removeprefix(folder).split('/')[1]}" for file in imported}
    return {name for package in packages for name in ({package} if package in imported else expected(stage, package))}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_what_its_notebook_imports_and_on_no_more(name):
    dependencies, needed = set(library_dependencies(STAGES[name])), expected(STAGES[name])
    assert {"add": sorted(needed - dependencies), "remove": sorted(dependencies - needed)} == {"add": [], "remove": []}
    assert missing(STAGES[name]) == set()


@pytest.mark.parametrize("name", [name for name in STAGES if name != "package"])
def test_no_model_is_trained_or_measured_again_for_a_change_to_the_service(name):
    service = [f for f in MODULES if any(covers(part, f) for part in SERVICE)]
    assert len(service) > 40
    dependencies = library_dependencies(STAGES[name])
    assert [file for file in service if any(covers(dependency, file) for dependency in dependencies)] == []


@pytest.mark.parametrize(
    ("name", "dependency"), [(name, dep) for name, stage in STAGES.items() for dep in library_dependencies(stage)]
)
def test_a_dependency_that_is_left_out_is_missed(name, dependency):
    stage = copy.deepcopy(STAGES[name])
    stage["deps"].remove(dependency)
    assert missing(stage)


def test_packages_hold_no_code_of_their_own():
    for path in (ROOT / LIBRARY).rglob("__init__.py"):
        (docstring,) = ast.parse(path.read_text()).body if path.parent.name not in (LIBRARY, "cli") else ["exempt"]
        assert docstring == "exempt" or isinstance(docstring.value, ast.Constant), path


@pytest.mark.slow
def test_dvc_sees_a_change_to_the_library_where_it_matters(tmp_path):
    subprocess.run(["git", "-C", ROOT, "checkout-index", "-a", f"--prefix={tmp_path}/"], check=True)
    for output in (output for stage in STAGES.values() for output in stage["outs"]):
        path = tmp_path / (output if isinstance(output, str) else next(iter(output)))
        (path if path.suffix else path / "metrics.json").parent.mkdir(parents=True, exist_ok=True)
        (path if path.suffix else path / "metrics.json").write_text("{}")

    def dvc(*arguments):
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    def stale(module):
        path = tmp_path / LIBRARY / module
        before = path.read_bytes()
        path.write_bytes(before + b"# changed\n")
        status = json.loads(dvc("status", "--json"))
        path.write_bytes(before)
        return set(status)

    dvc("init", "--no-scm", "-q", "-f")
    dvc("commit", "-f", "-q")
    assert stale("serving/app.py") == set()
    assert stale("export/model_card.py") == {"package"}
    assert stale("imaging/decoding.py") == set(STAGES)
    assert stale("training/dataset.py") == set(STAGES) - {"explore"}
