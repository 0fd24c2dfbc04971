from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from openrtc_introspect_core._os.stacks import MAX_FRAMES, AwaitingCall, Call, Places, take, task_part


def innermost() -> FrameType:
    return sys._getframe()


def outer() -> FrameType:
    return innermost()


@contextlib.contextmanager
def traced(trace: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    """Have a trace function called for what runs inside."""
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def call(file: str, line: int = 7, name: str = "f") -> Call:
    """A call of a function that stands in `file`."""
    return Call(file, line, name)


def test_calls_are_taken_from_the_innermost_outwards() -> None:
    """Up to the frame at which a task's own calls begin, which is returned."""
    calls, end = take(outer(), {test_calls_are_taken_from_the_innermost_outwards.__code__})
    assert [each.function for each in calls] == ["innermost", "outer"]
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
    assert [call.function.rpartition(".")[2] for call in taken] == ["inner", "outer"]


def closed_over(found: list[str]) -> Callable[[], str]:
    """Return a function with cells: another instruction is ahead of its first one."""

    def closure() -> str:
        return found[0]

    return closure


def generator() -> Iterator[int]:
    yield 1
    yield 2


def calls_plain() -> None:
    innermost()


def calls_closure() -> None:
    closed_over(["x"])()


def begins_generator() -> None:
    next(generator())


def goes_on() -> None:
    items = generator()
    next(items)
    next(items)


@pytest.mark.parametrize(
    ("caller", "called", "nth"),
    [
        (calls_plain, "innermost", 0),
        (calls_closure, "closed_over.<locals>.closure", 0),
        (begins_generator, "generator", 0),
        (goes_on, "generator", 1),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_function_that_has_just_begun_counts_for_its_caller(
    caller: Callable[[], None], called: str, nth: int
) -> None:
    """C code that kept the GIL gives it away there. A trace function is called at this very instruction."""
    seen: list[tuple[list[str], list[str]]] = []

    def trace(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_qualname == called:
            after = [[call.function for call in take(frame, (), gil_kept=kept)[0]] for kept in (False, True)]
            seen.append((after[0], after[1]))

    with traced(trace):
        caller()
    in_time, gil_kept = seen[nth]
    assert in_time[:2] == [called, caller.__name__]
    assert gil_kept == in_time[1:]


def test_a_function_that_has_done_something_counts_itself() -> None:
    """Wherever it has come to."""
    calls, _ = take(outer(), (), gil_kept=True)
    assert [each.function for each in calls[:2]] == ["innermost", "outer"]


def test_where_a_task_has_just_begun_its_own_call_counts() -> None:
    """No caller of the task kept the GIL."""
    seen: list[list[str]] = []

    def trace(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code is innermost.__code__ and event == "call":
            seen.append([call.function for call in take(frame, {outer.__code__}, gil_kept=True)[0]])

    with traced(trace):
        outer()
    assert seen == [["innermost"]]


def test_a_function_that_c_code_has_called_counts_no_more_than_others() -> None:
    """If the outermost one has done nothing yet, C code around it kept the GIL."""
    seen: list[list[Call]] = []

    def trace(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code is innermost.__code__ and event == "call":
            seen.append(take(frame, {outer.__code__}, gil_kept=True, called_from_c=True)[0])

    with traced(trace):
        outer()
    assert seen == [[]]


def test_where_nothing_of_python_drives_tasks_there_are_no_calls_without_a_task() -> None:
    """A callback, or compiled code, may have been called from any of the frames."""
    assert take(outer(), (), in_c=True) == ([], None)


def test_a_call_that_awaits_what_has_no_frame_is_marked() -> None:
    """It is another call than the same line would be without that."""
    taken: list[Call] = []

    def look(_: object) -> None:
        taken.extend(take(sys._getframe(1), ())[0][:1])

    class InC:
        def __await__(self) -> Any:
            return map(look, [0])

    async def awaits() -> None:
        await InC()

    coro = awaits()
    coro.send(None)
    coro.close()
    (call,) = taken
    assert (type(call), call.function.rpartition(".")[2]) == (AwaitingCall, "awaits")
    assert call == AwaitingCall(*call) != Call(*call)


def test_calls_end_with_the_task_s_own_coroutine() -> None:
    """Also where the loop calls it from functions in Python that are no ends, and the end is still found."""
    taken: list[tuple[list[Call], FrameType | None]] = []

    async def task() -> None:
        frame, ends = sys._getframe(), {loop.__code__}
        taken.extend(take(frame, ends, in_c=in_c, outermost=coro.cr_frame) for in_c in (False, True))

    def step() -> None:
        with pytest.raises(StopIteration):
            coro.send(None)

    def loop() -> None:
        step()

    coro = task()
    loop()
    for calls, end in taken:
        assert [call.function.rpartition(".")[2] for call in calls] == ["task"]
        assert end is not None
        assert end.f_code is loop.__code__


FRAMES = [("/srv/a.py", 3, "lookup"), ("/srv/a.py", 9, "entry"), ("/lib/events.py", 80, "Handle._run")]


def test_frames_that_were_read_without_the_gil_end_where_a_task_ends() -> None:
    """At the code that drives tasks."""
    ends = [handle_run.__code__.replace(co_filename="/lib/events.py", co_qualname="Handle._run")]
    assert task_part(FRAMES, ends, ()) == (Call("/srv/a.py", 3, "lookup"), Call("/srv/a.py", 9, "entry"))
    assert len(task_part(FRAMES, (), ())) == 3


def test_where_nothing_of_python_drives_tasks_they_end_as_another_sample_does() -> None:
    """At the function that is its outermost call."""
    assert len(task_part(FRAMES, (), (Call("/srv/a.py", 12, "entry"),))) == 2
    assert len(task_part(FRAMES, (), (Call("/srv/b.py", 12, "entry"),))) == 3
    assert task_part(FRAMES, (), (), unbounded=True) == ()


def test_frames_that_were_read_without_the_gil_end_where_another_sample_ends() -> None:
    """Also if what runs the loop is further out."""
    ends = [handle_run.__code__.replace(co_filename="/lib/events.py", co_qualname="Handle._run")]
    frames = [FRAMES[0], FRAMES[1], ("/lib/tasks.py", 5, "step"), FRAMES[2]]
    assert len(task_part(frames, ends, (Call("/srv/a.py", 12, "entry"),))) == 2
    assert len(task_part(frames, ends, ())) == 3


def test_where_a_greenlet_s_frames_end_they_go_on_as_another_sample_does() -> None:
    """The sample has the frames of the greenlet's parents as well."""
    sample = (Call("/srv/a.py", 8, "lookup"), Call("/srv/a.py", 9, "entry"), Call("/srv/main.py", 5, "task"))
    read = [("/srv/a.py", 3, "lookup"), ("/srv/a.py", 9, "entry")]
    assert task_part(read, (), sample) == (Call("/srv/a.py", 3, "lookup"), *sample[1:])


def test_calls_go_on_beyond_the_outermost_frame() -> None:
    """At the frames of a greenlet's parents, one after the other, up to where the task ends."""

    def child() -> Iterator[None]:
        yield

    def parent() -> Iterator[None]:
        yield

    def task() -> Iterator[None]:
        yield

    suspended = child(), parent(), task()  # nothing is further out than the frame of a suspended generator
    frames = [generator.gi_frame for generator in suspended]  # type: ignore[attr-defined]
    calls, end = take(frames[0], {task.__code__}, beyond=frames[1:])
    assert [call.function.rpartition(".")[2] for call in calls] == ["child", "parent"]
    assert end is frames[2]


def test_that_a_module_is_imported_is_known_without_the_gil() -> None:
    """Its name is not."""
    (call,) = task_part([("<frozen importlib._bootstrap>", 1360, "_find_and_load")], (), ())
    assert call.module == ""


LAZILY = """
{word}import imported_late

def use():
    return imported_late.found
"""


@pytest.mark.parametrize(
    "word",
    ["", pytest.param("lazy ", marks=pytest.mark.skipif(sys.version_info < (3, 15), reason="new in Python 3.15"))],
)
def test_a_lazy_import_is_one_where_its_name_is_first_used(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import stands above the function that uses the name, as if it imported the module itself."""
    taken = ["import sys", f"from {take.__module__} import take", "found = take(sys._getframe(), ())[0]"]
    (tmp_path / "imported_late.py").write_text("\n".join(taken), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "imported_late", raising=False)
    names: dict[str, Any] = {}
    exec(LAZILY.format(word=word), names)
    calls = names["use"]()
    sys.modules.pop("imported_late")
    importing = [call.module for call in calls].index("imported_late")
    assert [call.function for call in calls].index("use" if word else "<module>", 1) > importing
    assert calls[0].file == str(tmp_path / "imported_late.py")


def handle_run() -> None:
    """Stand for what drives tasks."""


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
