"""What an index shows of the packages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGES = [file.parent for file in sorted(Path(__file__).resolve().parents[2].glob("packages/*/pyproject.toml"))]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_the_readme_links_to_no_file(package: Path) -> None:
    """An index shows it without the files beside it."""
    targets = re.findall(r"\]\(([^)]+)\)", (package / "README.md").read_text(encoding="utf-8"))
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_the_license_is_the_repository_s(package: Path) -> None:
    """Each distribution carries a copy."""
    assert (package / "LICENSE").read_bytes() == (package.parents[1] / "LICENSE").read_bytes()
