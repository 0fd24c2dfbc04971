"""Imports run one way in each package: no two modules import each other, and no two folders, not for types either."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {path.name: path for path in ROOT.glob("packages/*/src/*") if (path / "__init__.py").is_file()}


def modules(source: Path) -> dict[str, Path]:
    """Return the package's modules by name, and their files."""
    files = {path: path.relative_to(source.parent).with_suffix("").parts for path in source.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in files.items()}


def imported(name: str, path: Path) -> Iterator[str]:
    """Yield every name that an import in the file can mean, wherever the import stands."""
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{each.name}" for each in node.names)


def arrows(package: str) -> dict[str, set[str]]:
    """Return for each module those that it imports; the package itself, which only re-exports, is none."""
    found = modules(SOURCES[package])
    return {
        name: {other for other in imported(name, path) if other in found} - {name, package}
        for name, path in found.items()
    }


def assert_no_circle(graph: Mapping[str, set[str]]) -> None:
    """Raise CycleError, which names the circle, if there is one."""
    assert set(TopologicalSorter(graph).static_order()) >= set(graph)


def test_all_packages_are_seen() -> None:
    """Each has modules that import others."""
    assert set(SOURCES) == {"openrtc_introspect_core", "openrtc_top", "openrtc_introspect_testing"}
    assert all(sum(map(len, arrows(package).values())) > 50 for package in SOURCES)


@pytest.mark.parametrize("package", SOURCES)
def test_no_circle_of_modules(package: str) -> None:
    """There is an order in which each module comes after all that it imports."""
    graph = arrows(package)
    assert_no_circle(graph)


@pytest.mark.parametrize("package", SOURCES)
def test_no_circle_of_folders(package: str) -> None:
    """The same holds for folders, so that each of them is a layer."""
    graph: dict[str, set[str]] = {}
    for name, others in arrows(package).items():
        if name != package:
            folder = name.split(".")[1]
            graph.setdefault(folder, set()).update({other.split(".")[1] for other in others} - {folder})
    assert_no_circle(graph)
