"""docs/tested-versions.md agrees with noxfile.py, the plan of CI and the packages' settings."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from ci.plan import kind_of, python_of, read_plan
from ci.tables import ON_THE_LOOPS
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/tested-versions.md").read_text(encoding="utf-8")
NOXFILE = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
PROJECTS = {
    file.parent.name: tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    for file in sorted(ROOT.glob("packages/*/pyproject.toml"))
}
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
SUITES = tomllib.loads((ROOT / "tests/suites/suites.toml").read_text(encoding="utf-8"))

OWN_TOOLS = {"hatchling", "hypothesis", "jsonschema", "pytest-xdist", "setuptools"}
"""Requirements of our own tests, which users need not have."""
PART_OF_PYTHON = {"asyncio"}
METERS = {"in C": "C", "in Python": "Python"}
"""By its name on the page, the language of a meter."""
CLASSIFIER = "Programming Language :: Python :: "
PLATFORMS = {"Linux": "POSIX :: Linux", "macOS": "MacOS", "Windows": "Microsoft :: Windows"}
"""By its name on the page, the classifier of a platform."""


def table(heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without the row of titles."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def code_in(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def pythons_of(project: dict[str, Any]) -> list[str]:
    """Return the versions that the classifiers name, such as 3.11."""
    named = [each.removeprefix(CLASSIFIER) for each in project["classifiers"] if each.startswith(CLASSIFIER)]
    return [each for each in named if re.fullmatch(r"3\.\d+", each)]


SUPPORTED = pythons_of(PROJECTS["openrtc-introspect-core"])


def optional_pythons(name: str) -> list[str]:
    """Return the versions of which noxfile.py assigns those that are installed to `name`."""
    for node in NOXFILE.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            assert isinstance(node.value, ast.ListComp)
            return list(ast.literal_eval(node.value.generators[0].iter))
    raise AssertionError(f"noxfile.py assigns no {name}")


def nox_sessions() -> dict[str, list[str]]:
    """Return the Pythons of each session; none for a session on the Python that runs noxfile.py."""
    names = {"PYTHONS": SUPPORTED, "FREE_THREADED": optional_pythons("FREE_THREADED")}
    sessions = {}
    for node in (node for node in NOXFILE.body if isinstance(node, ast.FunctionDef)):
        for decorator in node.decorator_list:
            if not ast.unparse(decorator).startswith("nox.session"):
                continue
            options = decorator.keywords if isinstance(decorator, ast.Call) else []
            listed = next((option.value for option in options if option.arg == "python"), ast.List([]))
            sessions[node.name] = list(eval(ast.unparse(listed), {}, names))
    return sessions


def full_names(sessions: dict[str, list[str]]) -> set[str]:
    return {f"{name}-{python}" if python else name for name, pythons in sessions.items() for python in pythons or [""]}


def code_in_column(column: int) -> list[str]:
    return sorted(name for row in table("Pythons") for name in code_in(row[column]))


def test_every_session_is_listed_as_ci_runs_it() -> None:
    """Each is in the column of every run, of one run of several, or of those that CI does not run."""
    queues = read_plan().queues.values()
    assert code_in_column(1) == sorted(name for queue in queues for name in queue.every_run)
    assert code_in_column(2) == sorted(name for queue in queues for each in queue.one_a_run for name in each)
    assert code_in_column(3) == sorted(full_names(nox_sessions()) - set(read_plan().sessions()))


def test_every_session_is_in_the_row_of_its_python() -> None:
    """The name of a session ends with its Python, or has none."""
    rows = table("Pythons")
    listed = [re.search(r"3\.\d+t?", row[0]) for row in rows]
    for row, python in zip(rows, listed, strict=True):
        for name in set().union(*map(code_in, row[1:])):
            assert python_of(name) == (python[0] if python else ""), name
    pythons = [python[0] for python in listed if python]
    assert pythons == sorted([*SUPPORTED, *optional_pythons("FREE_THREADED")])


def test_every_python_meter_and_loop_has_a_session_or_a_reason() -> None:
    """A session is one of CI, runs on that Python, and uses that meter."""
    rows = table("Meters and event loops")
    assert [tuple(row[:2]) for row in rows] == [(python, meter) for python in SUPPORTED for meter in METERS]
    for python, meter, *cells in rows:
        for cell in cells:
            assert code_in(cell) <= set(read_plan().sessions()), cell
            assert {python_of(name) for name in code_in(cell)} <= {python}, cell
            assert {ON_THE_LOOPS.get(kind_of(name), "C") for name in code_in(cell)} <= {METERS[meter]}, cell
            assert cell


def test_contributing_explains_every_session() -> None:
    """Its table has a row for each session of noxfile.py, and for no other."""
    rows = re.findall(r"^\| (`.*?) \| ", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    explained = {name for row in rows for name in code_in(row) if "-" not in name}
    assert explained == nox_sessions().keys()


@pytest.mark.parametrize("package", PROJECTS)
def test_the_packages_support_the_same_pythons(package: str) -> None:
    """Their classifiers name what the page names as supported, and requires-python the oldest."""
    assert f"Python {SUPPORTED[0]} to {SUPPORTED[-1]} are supported" in PAGE
    assert pythons_of(PROJECTS[package]) == SUPPORTED
    assert PROJECTS[package]["requires-python"] == f">={SUPPORTED[0]}"


@pytest.mark.parametrize("package", PROJECTS)
def test_the_packages_support_the_same_platforms(package: str) -> None:
    """A platform is supported if its classifier is there."""
    supported = {PLATFORMS[row[0]] for row in table("Platforms") if row[1] == "yes"}
    prefix = "Operating System :: "
    classifiers = PROJECTS[package]["classifiers"]
    assert {each.removeprefix(prefix) for each in classifiers if each.startswith(prefix)} == supported


def accepted_and_tested() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return the specifiers of each library, and the sessions that test it by these."""
    specifiers: dict[str, set[str]] = defaultdict(set)
    sessions: dict[str, set[str]] = defaultdict(set)

    def add(lines: list[Any], *names: str) -> None:
        for requirement in (Requirement(line) for line in lines if isinstance(line, str)):
            if requirement.name not in OWN_TOOLS and requirement.name not in PROJECTS:
                specifiers[requirement.name].add(str(requirement.specifier))
                sessions[requirement.name].update(names)

    for project in PROJECTS.values():
        add(project["dependencies"], "lowest", "tests")
        add([line for lines in project.get("optional-dependencies", {}).values() for line in lines])
    add(GROUPS["test"], "tests")
    add(GROUPS["runtimes"], "runtimes")
    add(GROUPS["pipecat"], "pipecat")
    add(GROUPS["ground"], "ground")
    add([suite["package"] for suite in SUITES.values()], "suites")
    return specifiers, sessions


def test_every_library_is_listed_with_its_versions() -> None:
    """They are those of the packages, of the groups of dependencies, and of suites.toml."""
    listed = {row[0]: {each.replace(" ", "") for each in code_in(row[1])} for row in table("Event loops and libraries")}
    specifiers, _ = accepted_and_tested()
    assert {name: versions for name, versions in listed.items() if name not in PART_OF_PYTHON} == specifiers


def test_every_library_is_listed_with_its_sessions() -> None:
    """`lowest` is there only if the packages require the library."""
    _, sessions = accepted_and_tested()
    for name, _, cell in table("Event loops and libraries"):
        assert code_in(cell) <= nox_sessions().keys(), name
        if name not in PART_OF_PYTHON:
            assert sessions[name] <= code_in(cell), name
            assert ("lowest" in code_in(cell)) == ("lowest" in sessions[name]), name


def test_every_library_of_the_benchmarks_is_at_the_version_of_the_tests() -> None:
    """A library in several groups of dependencies has one specifier."""
    specifiers, _ = accepted_and_tested()
    for requirement in (Requirement(line) for line in GROUPS["bench"]):
        if requirement.name in specifiers:
            assert str(requirement.specifier) in specifiers[requirement.name], requirement.name
