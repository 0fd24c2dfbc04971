from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from openrtc_introspect_core._stacks import MAX_FRAMES, Call, Places, take


def innermost() -> FrameType:
    return sys._getframe()


def outer() -> FrameType:
    return innermost()


def call(file: str, line: int = 7, name: str = "f") -> Call:
    """A call of a function that stands in `file`."""
    namespace: dict[str, Any] = {}
    exec(compile("\n" * (line - 1) + f"def {name}(): pass", file, "exec"), namespace)
    return Call(namespace[name].__code__, line)


def test_calls_are_taken_from_the_innermost_outwards() -> None:
    """Up to the frame where a task's own begin, which is told."""
    calls, end = take(outer(), {test_calls_are_taken_from_the_innermost_outwards.__code__})
    assert [each.code.co_name for each in calls] == ["innermost", "outer"]
    assert end is sys._getframe()


def test_a_stack_is_taken_to_a_depth() -> None:
    """An endless recursion costs no more than 64 frames."""

    def recurse(depth: int) -> FrameType:
        return recurse(depth - 1) if depth else sys._getframe()

    calls, end = take(recurse(100), ())
    assert (len(calls), end) == (MAX_FRAMES, None)


def test_where_nothing_of_python_drives_tasks_a_stack_ends_at_its_task() -> None:
    """At a coroutine that no other awaits: who runs the loop does not belong to it."""
    taken: list[Call] = []

    async def inner() -> None:
        taken.extend(take(sys._getframe(), (), in_c=True)[0])

    async def outer() -> None:
        await inner()

    def runs_the_loop(coro: Any) -> None:
        with contextlib.suppress(StopIteration):
            coro.send(None)

    runs_the_loop(outer())
    assert [call.code.co_name for call in taken] == ["inner", "outer"]


def test_the_user_s_own_frame_is_the_innermost_that_is_not_a_library_s() -> None:
    """The standard library, installed packages, the import system and ourselves are not the user's."""
    own = call("/srv/agents/restaurant.py", 42, "lookup_menu")
    library = call(pytest.__file__)
    stdlib = call(json.__file__)
    ours = call(sys.modules[Places.__module__].__file__ or "")
    frozen = call("<frozen importlib._bootstrap>")
    places = Places()
    assert places.innermost([frozen, stdlib, library, ours, own, call("/srv/agents/main.py")]) is own
    assert places.innermost([stdlib, library]) is stdlib
    assert places.innermost([ours]) is None
    assert places.innermost([]) is None


def test_project_roots_say_what_is_the_user_s(tmp_path: Path) -> None:
    """Then nothing else is, and files are shown from there."""
    inside, outside = call(str(tmp_path / "agents" / "a.py"), 3), call("/srv/agents/restaurant.py")
    places = Places([tmp_path])
    assert places.innermost([outside, inside]) is inside
    assert str(places.location(inside)) == "agents/a.py:3 in f"


def test_files_are_shown_from_where_one_would_look_for_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Relative to the working directory, to site-packages, to the standard library; else in full."""
    monkeypatch.chdir(tmp_path)
    places = Places()
    assert places.shown(str(tmp_path / "agents" / "a.py")) == "agents/a.py"
    assert places.shown(json.__file__) == "json/__init__.py"
    assert places.shown(pytest.__file__) == "pytest/__init__.py"
    assert places.shown("/srv/x.py") == "/srv/x.py"
    assert places.shown("<string>") == "<string>"


def test_a_stack_reads_from_the_outermost_and_leaves_us_out() -> None:
    """As tracebacks do."""
    ours = call(sys.modules[Places.__module__].__file__ or "")
    calls = [call("/srv/b.py", 2, "inner"), ours, call("/srv/a.py", 1, "entry")]
    assert [str(location) for location in Places().stack(calls)] == ["/srv/a.py:1 in entry", "/srv/b.py:2 in inner"]


def test_the_module_being_imported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The import system's frames say its name."""
    (tmp_path / "heavy.py").write_text("import sys\nframe = sys._getframe()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen: list[Any] = []
    (tmp_path / "looking.py").write_text("import looker\n")
    (tmp_path / "looker.py").write_text("import builtins, sys\nbuiltins.seen(sys._getframe())\n")
    monkeypatch.setattr("builtins.seen", lambda frame: seen.append(take(frame, ())[0]), raising=False)
    import looking  # type: ignore[import-not-found]  # noqa: F401

    modules = [each.module for each in seen[0] if each.module]
    assert modules[:2] == ["looker", "looking"]
