"""docs/architecture.md and import-linter name the same rooms and all modules; modules and classes stay small."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
CONTRACTS: dict[str, dict[str, Any]] = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
}
PACKAGES = {"core": "openrtc-introspect-core", "top": "openrtc-top", "testing": "openrtc-introspect-testing"}

MAX_MODULE_LINES = 400
MAX_CLASS_LINES = 300
MAX_CONSTRUCTOR_PARAMETERS = 8
"""Without self. Dataclasses and messages have no constructor of their own: they are settings or records."""

_CORE, _TESTING = "openrtc_introspect_core", "openrtc_introspect_testing"
LARGER = {
    f"{_CORE}/_introspector.py::Introspector.__init__": "each parameter is a public setting",
    f"{_CORE}/_hosting/pool.py::AgentPool.__init__": "each parameter is a public setting",
    f"{_TESTING}/_workers/fake_worker.py::FakeWorker.__init__": "each parameter is something that a test lets it serve",
    f"{_CORE}/wire/_messages.py": "the messages of the protocol, with their documentation, stand in one module",
    f"{_TESTING}/_workers/golden_frames.py": "a table of messages and their lines of JSON",
}
"""What exceeds a limit, and why."""


def source_of(package: str) -> Path:
    """Return the folder of the package's sources."""
    name = PACKAGES[package]
    return ROOT / "packages" / name / "src" / name.replace("-", "_")


def modules_in(folder: Path) -> set[str]:
    """Return the names of the modules and packages in a folder."""
    files = {file.stem for file in folder.glob("*.py")}
    folders = {file.parent.name for file in folder.glob("*/__init__.py")}
    return (files | folders) - {"__init__", "_version"}


def rooms_of_page(package: str) -> list[set[str]]:
    """Return the modules in each row of the package's table, from the top."""
    _, _, section = PAGE.partition(f"\n## The rooms of {package}\n")
    section, _, _ = section.partition("\n## ")
    _, *rows = re.findall(r"^\| .+? \| (.*) \|$", section, re.MULTILINE)  # without the row of titles
    return [named_in(row) for row in rows]


def named_in(row: str) -> set[str]:
    """Return the modules at the beginning of each entry."""
    leading = [re.match(r"(`\w+`,? ?)+", entry) for entry in row.split(" · ")]
    return {name for names in leading if names for name in re.findall(r"\w+", names[0])}


def rooms_of_contract(package: str) -> list[set[str]]:
    """Return the modules in each layer of the package's contract, from the top."""
    layers = CONTRACTS[f"the rooms of {package}"]["layers"]
    return [set(re.split(r"\s*[:|]\s*", layer)) for layer in layers]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_has_the_rooms_of_the_linter(package: str) -> None:
    """The page lists them in the order of import-linter's layers."""
    assert rooms_of_page(package) == rooms_of_contract(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_a_room(package: str) -> None:
    """It has one room, and each module that is named exists."""
    rooms = rooms_of_page(package)
    assert set().union(*rooms) == modules_in(source_of(package))
    assert sum(map(len, rooms)) == len(modules_in(source_of(package)))


def test_every_module_that_the_text_names_exists() -> None:
    """Text outside of the tables names modules, too."""
    existing = set().union(*(modules_in(source_of(package)) for package in PACKAGES))
    existing |= modules_in(source_of("core") / "wire")
    assert set(re.findall(r"`(?:wire/)?(_\w+)`", PAGE)) <= existing
    files = re.findall(r"`(_\w+/\w+)`", PAGE)
    assert files
    assert [file for file in files if not (source_of("core") / f"{file}.py").is_file()] == []


def sizes(file: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the name, the size and the limit of the module, its classes and their constructors."""
    text = file.read_text(encoding="utf-8")
    yield "", len(text.splitlines()), MAX_MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef):
            continue
        yield f"::{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1, MAX_CLASS_LINES
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                given = [argument for argument in ast.walk(method.args) if isinstance(argument, ast.arg)]
                yield f"::{node.name}.__init__", len(given) - 1, MAX_CONSTRUCTOR_PARAMETERS


def test_modules_classes_and_constructors_stay_small() -> None:
    """Exceptions have a reason, and are removed from the table as soon as they are within the limit."""
    exceeding = {}
    for package in PACKAGES:
        root = source_of(package)
        for file in sorted(root.rglob("*.py")):
            for name, size, limit in sizes(file):
                if size > limit:
                    exceeding[f"{file.relative_to(root.parent).as_posix()}{name}"] = f"{size}, limit {limit}"
    assert {name: size for name, size in exceeding.items() if name not in LARGER} == {}
    assert [name for name in LARGER if name not in exceeding] == [], "remove what is within the limit from LARGER"
