"""A stack that C reads without the GIL is the real one: files, lines and functions."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openrtc_introspect_core._blocks.stall_thread import blind
from openrtc_introspect_core._native import native
from openrtc_introspect_core._os.stacks import MAX_FRAMES

pytestmark = pytest.mark.skipif(native is None, reason="the meter in C is not installed")

Places = list[tuple[str, int, str]]


def real() -> Places:
    """Return the caller's stack, read with the GIL."""
    frame, places = sys._getframe(1), Places()
    while frame is not None and len(places) < MAX_FRAMES:
        places.append((frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_qualname))
        frame = frame.f_back  # type: ignore[assignment]
    return places


def both() -> tuple[Places, Places]:
    """Return the stack as C reads it, and the real one."""
    seen, expected = native.own_stack(), real()  # on one line
    return list(seen), expected


def test_this_python_can_be_read() -> None:
    """Each supported one can, and its GIL's state too."""
    assert blind() is None
    assert native.gil_known()


def test_the_stack_is_the_real_one() -> None:
    """From the innermost call outwards."""
    seen, expected = both()
    assert seen == expected


def test_each_line_is_found() -> None:
    """Also in long functions, after jumps, and where a statement has several lines."""
    lines = ["def f(check):", "    for n in range(2):"]
    for number in range(400):
        lines += [
            f"        if n == {number % 2}:",
            f"            check({'(' * (number % 3)}{number}{')' * (number % 3)}, x{number}={number})",
            "        else:",
            "            check(",
            f"                {number},",
            "            )" + "\n" * (number % 40),
        ]
    names: dict[str, Any] = {}
    exec(compile("\n".join(lines), "long.py", "exec"), names)
    wrong = []

    def check(number: int, **_: int) -> None:
        seen, expected = native.own_stack()[1], real()[1]
        if seen != expected:
            wrong.append((number, seen, expected))

    names["f"](check)
    assert wrong == []


@pytest.mark.parametrize("name", ["naïve", "Ωmega", "名前", "𝐱𝐲", "x" * 300])
def test_names_may_have_any_letters(name: str) -> None:
    """Python keeps them with one, two or four bytes a letter; of a long one the end is read."""
    names: dict[str, Any] = {"both": both}
    exec(compile(f"def {name}():\n    return both()", f"/a folder/{name}.py", "exec"), names)
    seen, _ = next(value for key, value in names.items() if callable(value) and key != "both")()
    found = next(place for place in seen if place[0].startswith("/a folder/"))
    function = next(key for key in names if key not in ("both", "__builtins__"))
    assert found == (f"/a folder/{name}.py", 2, function[-256:])


def test_a_file_name_that_is_no_text() -> None:
    """Half of a pair, which stands for a byte that is no UTF-8, becomes a question mark."""
    names: dict[str, Any] = {"both": both}
    exec(compile("def f():\n    return both()", "caf\udce9.py", "exec"), names)
    seen, _ = names["f"]()
    assert seen[1] == ("caf?.py", 2, "f")


def test_of_a_deep_stack_the_innermost_calls_are_read() -> None:
    """As many as of any stack."""

    def dive(depth: int) -> tuple[Places, Places]:
        return both() if depth == 0 else dive(depth - 1)

    seen, expected = dive(2 * MAX_FRAMES)
    assert len(seen) == MAX_FRAMES
    assert seen == expected


def test_generators_coroutines_and_calls_from_c() -> None:
    """A frame may be a generator's, a task's, or one that C code has called."""

    def generator() -> Iterator[tuple[Places, Places]]:
        yield from [both()]

    async def task() -> tuple[Places, Places]:
        await asyncio.sleep(0)
        return max([None], key=lambda _: 1) or next(generator())

    async def main() -> tuple[Places, Places]:
        return await asyncio.create_task(task())

    seen, expected = asyncio.run(main())
    assert seen == expected
    assert any("generator" in function for _, _, function in seen)


def test_each_thread_has_its_own() -> None:
    """The calling thread's is read."""
    found: list[tuple[Places, Places]] = []
    thread = threading.Thread(target=lambda: found.append(both()))
    thread.start()
    thread.join(60.0)
    seen, expected = found[0]
    assert seen == expected
    assert seen[-1][2] == "Thread._bootstrap"


def test_a_profiled_or_traced_function() -> None:
    """Instrumented instructions do not move lines."""
    results = []

    def run(call: Callable[[], tuple[Places, Places]]) -> None:
        results.append(call())

    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        run(both)
    finally:
        sys.settrace(before)
    seen, expected = results[0]
    assert seen == expected
