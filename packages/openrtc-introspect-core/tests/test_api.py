from __future__ import annotations

import subprocess
import sys

import pytest

import openrtc_introspect_core


def test_every_public_name_is_there() -> None:
    """Each name of `__all__` exists, and no name is listed twice."""
    names = openrtc_introspect_core.__all__
    assert sorted(set(names)) == sorted(names)
    for name in names:
        assert getattr(openrtc_introspect_core, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The error is that of any module."""
    with pytest.raises(AttributeError, match="has no attribute 'Nope'"):
        openrtc_introspect_core.Nope  # noqa: B018


def test_importing_it_loads_no_more_than_it_needs() -> None:
    """psutil and anyio are loaded at a start; packages of the other distributions are never loaded."""
    code = (
        "import sys, openrtc_introspect_core; "
        "print({'anyio', 'psutil', 'rich', 'typer', 'trio', 'pytest', 'uvloop'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    if result.returncode:  # not installed, only on the path
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
