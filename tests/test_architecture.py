"""docs/architecture.md names every room and module, as import-linter's settings do, and none that is not there."""

from __future__ import annotations

import re
import tomllib
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


def source_of(package: str) -> Path:
    name = PACKAGES[package]
    return ROOT / "packages" / name / "src" / name.replace("-", "_")


def modules_in(folder: Path) -> set[str]:
    """Its modules and packages, by name."""
    files = {file.stem for file in folder.glob("*.py")}
    folders = {file.parent.name for file in folder.glob("*/__init__.py")}
    return (files | folders) - {"__init__", "_version"}


def rooms_of_page(package: str) -> list[set[str]]:
    """The modules in each row of the package's table, from the top."""
    _, _, section = PAGE.partition(f"\n## The rooms of {package}\n")
    section, _, _ = section.partition("\n## ")
    _, *rows = re.findall(r"^\| .+? \| (.*) \|$", section, re.MULTILINE)  # without the titles
    return [named_in(row) for row in rows]


def named_in(row: str) -> set[str]:
    """What stands before the words of each entry."""
    leading = [re.match(r"(`\w+`,? ?)+", entry) for entry in row.split(" · ")]
    return {name for names in leading if names for name in re.findall(r"\w+", names[0])}


def rooms_of_contract(package: str) -> list[set[str]]:
    layers = CONTRACTS[f"the rooms of {package}"]["layers"]
    return [set(re.split(r"\s*[:|]\s*", layer)) for layer in layers]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_rooms_are_those_that_the_linter_keeps(package: str) -> None:
    """Room by room, from the top: the page, and the settings of import-linter."""
    assert rooms_of_page(package) == rooms_of_contract(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_a_room(package: str) -> None:
    """One, and each that is named is there."""
    rooms = rooms_of_page(package)
    assert set().union(*rooms) == modules_in(source_of(package))
    assert sum(map(len, rooms)) == len(modules_in(source_of(package)))


def test_every_module_that_the_text_names_is_there() -> None:
    """Also outside of the tables."""
    there = set().union(*(modules_in(source_of(package)) for package in PACKAGES))
    there |= modules_in(source_of("core") / "wire")
    assert set(re.findall(r"`(?:wire/)?(_\w+)`", PAGE)) <= there
