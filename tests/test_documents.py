"""The documents agree with the repository and with each other: links, paths, packages and figures."""

import ast
import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("benchmarks/*.md"),
        *ROOT.glob("deploy/**/*.md"),
    )
}
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^( *)```.*?^\1```", re.M | re.S)
PATH = re.compile(
    r"(?<![\w/.-])(?:catsdogs_lib|tests|scripts|deploy|docs|benchmarks|notebooks|lambda|requirements|\.github|models/reference)"
    r"/[\w./*-]+"
)
MODULE = re.compile(r"(?<![\w.])catsdogs_lib(?:\.[a-z_]+)+")
PLACEHOLDERS = {"notebooks/07_name.ipynb", "requirements/NAME.in"}


def links(name):
    """File and anchor of each relative link, the file from the root."""
    for target in LINK.findall(FENCED.sub("", DOCUMENTS[name])):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            path = (ROOT / name).parent / file if file else ROOT / name
            yield str(path.resolve().relative_to(ROOT)), anchor


def anchors(text):
    """Anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_relative_links_resolve(name):
    for file, anchor in links(name):
        assert (ROOT / file).exists(), file
        assert not anchor or anchor in anchors(DOCUMENTS[file]), f"{file}#{anchor}"


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), ["README.md"]
    while waiting:
        name = waiting.pop()
        if name in DOCUMENTS and name not in reached:
            reached.add(name)
            waiting += [file for file, _ in links(name)]
    assert set(DOCUMENTS) - reached == set()


def test_every_picture_is_shown():
    shown = {file for name in DOCUMENTS for file, _ in links(name)}
    pictures = {str(path.relative_to(ROOT)) for path in ROOT.glob("docs/pictures/*")}
    assert pictures - shown == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_of_the_repository_exist(name):
    paths = {path.rstrip("./") for path in PATH.findall(DOCUMENTS[name])} - PLACEHOLDERS
    assert [path for path in sorted(paths) if not list(ROOT.glob(path))] == []


@pytest.mark.parametrize("name", sorted(set(DOCUMENTS) - {"CHANGELOG.md"}))  # it tells of modules that were
def test_modules_of_the_library_exist(name):
    modules = {ROOT / module.replace(".", "/") for module in MODULE.findall(DOCUMENTS[name])}
    assert [path for path in modules if not path.is_dir() and not path.with_suffix(".py").is_file()] == []


def test_the_architecture_lists_every_package_with_its_docstring():
    docstrings = {
        path.parent.name: " ".join(ast.get_docstring(ast.parse(path.read_text())).split())
        for path in ROOT.glob("catsdogs_lib/*/__init__.py")
    }
    packages = DOCUMENTS["docs/architecture.md"].partition("## Packages")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)/` \| (.+) \|$", packages, re.M)) == docstrings


MODEL = "models/reference/model.json"
README, PERFORMANCE, TRIALS, DOUBT = "README.md", "docs/performance.md", "docs/trials.md", "docs/doubt.md"
COSTS, SECURITY = "docs/costs.md", "SECURITY.md"
REFERENCE_ROW = r"^\| reference \(`PROFILE=best`\), 288 pixels \| "
DEFAULT_ROW = r"^\| default \(frozen\), 224 pixels \| "
SMALL_ROW = r"^\| `PROFILE=small`: taught, 192 pixels, in int8 \| "
# A number in each document, as a regular expression with one group (a path of keys in JSON), and the power of ten that
# brings it to the common unit.
FIGURES = {
    "reference: accuracy, %": [
        (MODEL, "metrics accuracy value", 2),
        (README, r"\(the reference bundle\), 288 pixels \| ([\d.]+) %", 0),
        (PERFORMANCE, REFERENCE_ROW + r"(?:[\d.]+ \| ){4}([\d.]+) %", 0),
        (TRIALS, r"PROFILE=best`\*\*, 288 pixels, [^|]* \| ([\d.]+) %", 0),
        ("CHANGELOG.md", r"trained on 2 800 photos: ([\d.]+) % of 1 200 others", 0),
    ],
    "reference: accuracy from, %": [
        (MODEL, "metrics accuracy low", 2),
        (README, r"\(the reference bundle\), 288 pixels \| [\d.]+ % \(([\d.]+) to", 0),
    ],
    "reference: accuracy to, %": [
        (MODEL, "metrics accuracy high", 2),
        (README, r"\(the reference bundle\), 288 pixels \| [\d.]+ % \([\d.]+ to ([\d.]+)\)", 0),
    ],
    "reference: log loss": [
        (MODEL, "metrics log_loss value", 0),
        (README, r"\(the reference bundle\), 288 pixels \| [^|]+ \| ([\d.]+)", 0),
        (PERFORMANCE, REFERENCE_ROW + r"(?:[\d.]+ \| ){4}[\d.]+ % \| ([\d.]+)", 0),
        (TRIALS, r"PROFILE=best`\*\*, 288 pixels, [^|]* \| [\d.]+ % \| ([\d.]+)", 0),
    ],
    "reference: calibration error": [
        (MODEL, "metrics expected_calibration_error value", 0),
        (TRIALS, r"PROFILE=best`\*\*, 288 pixels, [^|]* \| [\d.]+ % \| [\d.]+ \| ([\d.]+)", 0),
    ],
    "reference: unsure, %": [
        (MODEL, "card doubt unsure", 2),
        (PERFORMANCE, REFERENCE_ROW + r"(?:[\d.]+ \| ){4}[\d.]+ % \| [\d.]+ \| ([\d.]+) %", 0),
        (TRIALS, r"PROFILE=best`\*\*, 288 pixels, .* \| ([\d.]+) % \| [\d.]+ % \|$", 0),
        (DOUBT, r"unfamiliar, ([\d.]+) % get no confident answer", 0),
    ],
    "reference: unfamiliar, %": [
        (MODEL, "card doubt unfamiliar", 2),
        (DOUBT, r"fine-tuned at 288 pixels\): ([\d.]+) % of pets/test", 0),
    ],
    "reference: right among the confident, %": [
        (MODEL, "card doubt confident_accuracy", 2),
        (DOUBT, r"and ([\d.]+) % of the confident ones are right", 0),
        (TRIALS, r"PROFILE=best`\*\*, 288 pixels, .* \| ([\d.]+) % \|$", 0),
    ],
    "reference: MB": [(MODEL, "graph bytes", -6), (PERFORMANCE, REFERENCE_ROW + r"([\d.]+) \|", 0)],
    "reference: other things unsure, %": [
        (README, r"([\d.]+) % of 260 photos of other things get no confident answer", 0),
        (PERFORMANCE, REFERENCE_ROW + r".* \| ([\d.]+) % \|$", 0),
        (DOUBT, r"unfamiliar and ([\d.]+) % get no confident answer", 0),
    ],
    "reference: minutes": [
        (README, r"\(the reference bundle\), .* \| (\d+) min \|", 0),
        (TRIALS, r"PROFILE=best`\*\*, 288 pixels, (\d+) minutes", 0),
    ],
    "default: accuracy, %": [
        (README, r"^\| frozen \(the default\), 224 pixels \| ([\d.]+) %", 0),
        (PERFORMANCE, DEFAULT_ROW + r"(?:[\d.]+ \| ){4}([\d.]+) %", 0),
        (PERFORMANCE, r"a head: the default \| \d+ \| ([\d.]+) %", 0),
        (TRIALS, r"^\| default, 224 pixels, [^|]* \| ([\d.]+) %", 0),
        ("docs/gate.md", r"better: of all photos \| promoted \(([\d.]+) %", 0),
    ],
    "default: log loss": [
        (TRIALS, r"^\| default, 224 pixels, [^|]* \| [\d.]+ % \| ([\d.]+)", 0),
        (README, r"^\| frozen \(the default\), 224 pixels \| [^|]+ \| ([\d.]+)", 0),
        (PERFORMANCE, DEFAULT_ROW + r"(?:[\d.]+ \| ){4}[\d.]+ % \| ([\d.]+)", 0),
        (PERFORMANCE, r"a head: the default \| \d+ \| [\d.]+ % \| ([\d.]+)", 0),
        ("docs/gate.md", r"better: of all photos \| promoted \([\d.]+ %, ([\d.]+)\)", 0),
    ],
    "default: seconds": [
        (README, r"^\| frozen \(the default\), 224 pixels \| .* \| (\d+) s \|", 0),
        (PERFORMANCE, r"a head: the default \| (\d+) \|", 0),
    ],
    "default: unsure, %": [
        (PERFORMANCE, DEFAULT_ROW + r"(?:[\d.]+ \| ){4}[\d.]+ % \| [\d.]+ \| ([\d.]+) %", 0),
        (TRIALS, r"^\| default, 224 pixels, .* \| ([\d.]+) % \| [\d.]+ % \|$", 0),
    ],
    "default: other things unsure, %": [
        (PERFORMANCE, DEFAULT_ROW + r".* \| ([\d.]+) % \|$", 0),
        (DOUBT, r"\(([\d.]+) % by the frozen default\)", 0),
    ],
    "small: accuracy, %": [
        (README, r"PROFILE=small`, [^|]* \| ([\d.]+) %", 0),
        (PERFORMANCE, SMALL_ROW + r"(?:[\d.]+ \| ){4}([\d.]+) %", 0),
    ],
    "small: log loss": [
        (README, r"PROFILE=small`, [^|]* \| [^|]+ \| ([\d.]+)", 0),
        (PERFORMANCE, SMALL_ROW + r"(?:[\d.]+ \| ){4}[\d.]+ % \| ([\d.]+)", 0),
    ],
    "small: MB": [
        (README, r"PROFILE=small`, 192 pixels in int8: (\d+) MB", 0),
        (PERFORMANCE, SMALL_ROW + r"([\d.]+) \|", 0),
    ],
    "small: minutes": [
        (README, r"PROFILE=small`, .* \| (\d+) min \|", 0),
        (PERFORMANCE, r"some (\d+) minutes on two cores", 0),
    ],
    "first answer, ms": [
        (README, r"^\| first answer of a fresh process \| ([\d ]+) ms", 0),
        (PERFORMANCE, r"^\| first answer of a fresh process, ms \| ([\d ]+) \|", 0),
        (COSTS, r"^\| ([\d.]+) \| seconds for the first answer", 3),
    ],
    "first answer of torch, ms": [
        (README, r"^\| first answer of a fresh process \| [\d ]+ ms \| ([\d ]+) ms", 0),
        (PERFORMANCE, r"^\| first answer of a fresh process, ms \| [\d ]+ \| ([\d ]+) \|", 0),
    ],
    "first answer, ratio": [
        (README, r"^\| first answer of a fresh process \| .* \| ([\d.]+) \|$", 0),
        (PERFORMANCE, r"^\| first answer of a fresh process, ms \| .* \| ([\d.]+) \(", 0),
    ],
    "small photo, ms": [
        (PERFORMANCE, r"^\| small photo \(500 x 333\), ms \| ([\d.]+)", 0),
        (README, r"^\| small photo \| (\d+) ms", 0),
        (COSTS, r"\(a small one takes ([\d.]+)\)", 3),
        ("docs/operations.md", r"A small photo takes about (\d+) ms", 0),
    ],
    "small photo of torch, ms": [
        (PERFORMANCE, r"^\| small photo \(500 x 333\), ms \| [\d.]+ \| ([\d.]+)", 0),
        (README, r"^\| small photo \| \d+ ms \| (\d+) ms", 0),
    ],
    "12 megapixels, ms": [
        (PERFORMANCE, r"^\| 12 megapixels, ms \| ([\d.]+) \| 223", 0),
        (README, r"^\| 12 megapixels \| (\d+) ms", 0),
        (COSTS, r"^\| ([\d.]+) \| seconds for a photo of 12 megapixels", 3),
        (COSTS, r"12 megapixels takes (\d+) ms", 0),
        (COSTS, r"at the (\d+) ms above", 0),
    ],
    "12 megapixels, ratio": [
        (PERFORMANCE, r"^\| 12 megapixels, ms \| .* \| ([\d.]+) \(3.8", 0),
        (README, r"^\| 12 megapixels \| .* \| ([\d.]+) \|$", 0),
    ],
    "peak memory, MB": [
        (PERFORMANCE, r"^\| peak memory, MB \| (\d+)", 0),
        (README, r"^\| peak memory \| (\d+) MB", 0),
        (PERFORMANCE, r"Memory fell from \d+ to (\d+) MB", 0),
    ],
    "peak memory, ratio": [
        (PERFORMANCE, r"^\| peak memory, MB \| .* \| ([\d.]+) \(", 0),
        (README, r"^\| peak memory \| .* \| ([\d.]+) \|$", 0),
    ],
    "environment, MB": [
        (PERFORMANCE, r"^\| served environment, MB \| (\d+)", 0),
        (README, r"^\| installed \| (\d+) MB", 0),
    ],
    "environment, ratio": [
        (PERFORMANCE, r"^\| served environment, MB \| .* \| ([\d.]+) \|$", 0),
        (README, r"^\| installed \| .* \| ([\d.]+) \|$", 0),
    ],
    "first answer in a container, ms": [
        (PERFORMANCE, r"^\| first answer, ms \| (\d+)", 0),
        (README, r"^\| first answer in a container \| (\d+) ms", 0),
    ],
    "first answer in a container, ratio": [
        (PERFORMANCE, r"^\| first answer, ms \| .* \| ([\d.]+) \(", 0),
        (README, r"^\| first answer in a container \| .* \| ([\d.]+) \|$", 0),
    ],
    "scoring, % of a bare loop": [
        (PERFORMANCE, r"photos keeps (\d+) % \(97 to 100\) of a bare loop", 0),
        (README, r"keeps (\d+) % of the throughput of a bare loop", 0),
    ],
    "flipped labels among the first, %": [
        ("docs/data-doctor.md", r"^\| flipped labels among the first 4 % \| ([\d.]+) %", 0),
        (README, r"(\d+) % of labels flipped on purpose are among its first 4 %", 0),
    ],
    "megapixels of a JPEG": [
        (README, r"JPEG up to (\d+) megapixels", 0),
        (SECURITY, r"(\d+) megapixels \(progressive", 0),
    ],
    "megapixels of a progressive JPEG": [
        (README, r"\(progressive: (\d+)\)", 0),
        (SECURITY, r"\(progressive JPEG (\d+),", 0),
    ],
    "megapixels of other formats": [
        (README, r"BMP and TIFF up to ([\d.]+);", 0),
        (SECURITY, r"other formats ([\d.]+)\)", 0),
    ],
    "MiB of a body": [(README, r"bodies up to (\d+) MiB", 0), (SECURITY, r"at most (\d+) MiB a body", 0)],
    "seconds for a body": [
        (README, r"did not arrive within (\d+) seconds", 0),
        (SECURITY, r"a body has (\d+) seconds", 0),
    ],
}


def figure(document, where, power):
    """One number as a decimal whose exponent tells how precisely it is stated."""
    if document == MODEL:
        value = json.loads((ROOT / MODEL).read_text())
        for key in where.split():
            value = value[key]
        text = str(value)
    else:
        match = re.search(where, DOCUMENTS[document], re.M)
        assert match, f"{document} has no longer what matches {where}"
        text = match[1].replace(" ", "")
    return Decimal(text).scaleb(power)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_that_appears_twice_is_the_same(name):
    stated = [(figure(*place), place[0]) for place in FIGURES[name]]
    precise, source = min(stated, key=lambda pair: pair[0].as_tuple().exponent)
    for value, document in stated:
        half = Decimal(5).scaleb(value.as_tuple().exponent - 1)
        assert abs(value - precise) <= half, f"{name}: {document} says {value}, {source} says {precise}"
