from __future__ import annotations

import subprocess
import sys

import pytest

import openrtc_introspect_core


def test_every_public_name_is_there() -> None:
    """What `__all__` lists can be had, and no name twice."""
    names = openrtc_introspect_core.__all__
    assert sorted(set(names)) == sorted(names)
    for name in names:
        assert getattr(openrtc_introspect_core, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As for any module."""
    with pytest.raises(AttributeError, match="has no attribute 'Nope'"):
        openrtc_introspect_core.Nope  # noqa: B018


def test_importing_it_loads_no_more_than_it_needs() -> None:
    """psutil and anyio wait until something starts; other packages' things are never loaded."""
    code = (
        "import sys, openrtc_introspect_core; "
        "print({'anyio', 'psutil', 'rich', 'typer', 'trio', 'pytest', 'uvloop'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    if result.returncode:  # not installed, only on the path
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
