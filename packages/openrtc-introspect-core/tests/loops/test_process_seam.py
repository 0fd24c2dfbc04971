"""A library's function that is replaced for the process, while any loop is attached."""

from __future__ import annotations

import contextvars
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._accounting.thread_calls import ThreadCalls
from openrtc_introspect_core._base import fork
from openrtc_introspect_core._loops.process_seam import ProcessSeam, See, Watched
from openrtc_introspect_testing._loops.fake_clock import FakeClock

LIBRARY = "a_library_of_the_tests"


class Backend:
    @classmethod
    def run(cls, func: str) -> str:
        """Runs it."""
        return f"{cls.__name__} runs {func}"


ITSELF = vars(Backend)["run"]


@pytest.fixture
def library() -> Iterator[types.ModuleType]:
    module = types.ModuleType(LIBRARY)
    module.Backend = Backend  # type: ignore[attr-defined]
    sys.modules[LIBRARY] = module
    yield module
    del sys.modules[LIBRARY]
    assert vars(Backend)["run"] is ITSELF


@pytest.fixture
def seam() -> Iterator[ProcessSeam]:
    def make(see: See, before: Callable[..., Any]) -> Callable[..., Any]:
        def run(cls: type, func: str) -> Any:
            return before(see(lambda watched, func: f"{func}, seen" if func else func[0], func))

        return run

    seam = ProcessSeam(LIBRARY, "Backend", "run", make)
    yield seam
    fork.shared.remove(seam)


def a_loop(calls: ThreadCalls | None = None, here: bool = True) -> Watched:
    ledger = Ledger(contextvars.ContextVar("test"), FakeClock(), 0.05)
    return Watched(ledger, calls or ThreadCalls(FakeClock()), lambda: here)


def test_it_is_replaced_with_the_first_loop_and_put_back_with_the_last(
    library: types.ModuleType, seam: ProcessSeam
) -> None:
    """It sees a call once for each introspector whose loop runs here."""
    undo = [seam.add(a_loop()), seam.add(a_loop()), seam.add(a_loop(here=False))]
    assert Backend.run("it") == "Backend runs it, seen, seen"
    for each in undo[:2]:
        each()
    assert Backend.run("it") == "Backend runs it"
    assert vars(Backend)["run"] is not ITSELF
    undo[2]()
    assert vars(Backend)["run"] is ITSELF


def test_a_library_that_is_not_loaded_is_never_loaded(seam: ProcessSeam) -> None:
    """It is looked for again later."""
    undo = seam.add(a_loop())
    assert not seam.in_effect
    sys.modules[LIBRARY] = module = types.ModuleType(LIBRARY)
    try:
        seam.replace_if_loaded()  # while it is being loaded
        assert not seam.in_effect
        module.Backend = Backend  # type: ignore[attr-defined]
        seam.replace_if_loaded()
        assert Backend.run("it") == "Backend runs it, seen"
    finally:
        undo()
        del sys.modules[LIBRARY]
    assert vars(Backend)["run"] is ITSELF


def test_someone_elses_replacement_stays(library: types.ModuleType, seam: ProcessSeam) -> None:
    """It still comes to the library, without us; another introspector sees calls again."""
    undo = seam.add(a_loop())
    ours = Backend.run
    try:
        Backend.run = classmethod(lambda cls, func: ours(f"{func}, theirs"))  # type: ignore[assignment]
        undo()
        assert Backend.run("it") == "Backend runs it, theirs"
        undo = seam.add(a_loop())
        assert Backend.run("it") == "Backend runs it, seen, theirs"
        undo()
        assert Backend.run("it") == "Backend runs it, theirs"
    finally:
        Backend.run = ITSELF  # type: ignore[method-assign]


def test_a_fault_of_ours_does_not_reach_the_host(library: types.ModuleType, seam: ProcessSeam) -> None:
    """It is reported, and calls on that loop are not seen any more."""
    problems: list[str] = []
    calls = ThreadCalls(FakeClock(), lambda problem, error: problems.append(problem))
    undo = seam.add(a_loop(calls))
    assert Backend.run("") == "Backend runs "
    assert (len(problems), calls.on, seam.here()) == (1, False, [])
    assert "IndexError" in problems[0]
    undo()
