"""The three distributions have one version and pin each other to it."""

import tomllib
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import pytest

from openrtc_introspect_core._version import __version__

PACKAGES = Path(__file__).parent.parent / "packages"
CORE = "openrtc-introspect-core"
SIBLINGS = ["openrtc-top", "openrtc-introspect-testing"]


def project(name: str) -> dict[str, Any]:
    return tomllib.loads((PACKAGES / name / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [CORE, *SIBLINGS])
def test_is_installed_at_the_version_in_the_source(name: str) -> None:
    assert version(name) == __version__


@pytest.mark.parametrize("name", [CORE, *SIBLINGS])
def test_reads_its_version_from_the_one_file(name: str) -> None:
    source = PACKAGES / name / project(name)["tool"]["hatch"]["version"]["path"]
    assert source.resolve() == PACKAGES.resolve() / CORE / "src/openrtc_introspect_core/_version.py"


@pytest.mark.parametrize("name", SIBLINGS)
def test_sibling_pins_core_to_the_version(name: str) -> None:
    pins = [line for line in project(name)["project"]["dependencies"] if line.startswith("openrtc")]
    assert pins == [f"{CORE} == {__version__}"]
    assert f"{CORE}=={__version__}" in (requires(name) or [])


def test_core_requires_no_sibling() -> None:
    assert not [line for line in requires(CORE) or [] if line.startswith("openrtc")]
