from __future__ import annotations

import sys
from types import CodeType

import pytest

from openrtc_introspect_core._loops.stack_ends import StackEnds


def known() -> None:
    pass


class LoopInPython:
    def run_forever(self) -> None:
        pass


def test_until_a_loop_is_learned_its_ends_are_what_they_are_on_each() -> None:
    ends = StackEnds(frozenset({known.__code__}))
    ends.look()
    assert (ends.codes, ends.in_c, ends.known) == ({known.__code__}, False, True)


def test_the_method_in_python_that_runs_a_loop_is_an_end() -> None:
    """The hook may not be what calls it, so it is not known that each stack has it."""
    ends = StackEnds(frozenset({known.__code__}))
    ends.learn(LoopInPython)
    assert ends.codes == {known.__code__, LoopInPython.run_forever.__code__}
    assert (ends.in_c, ends.known) == (True, False)


def test_the_latest_frame_that_runs_the_loop_is_an_end() -> None:
    """One that is not known changes nothing."""
    ends = StackEnds(frozenset({known.__code__}))
    ends.learn(object)

    def first() -> None:
        ends.see_runner(sys._getframe())

    def second() -> None:
        ends.see_runner(sys._getframe())

    first()
    second()
    ends.see_runner(None)
    assert (ends.codes, ends.known) == ({known.__code__, second.__code__}, True)


def test_a_change_is_told_once() -> None:
    """Each beat of a heartbeat sees the same frame."""
    ends = StackEnds(frozenset({known.__code__}))
    ends.learn(object)
    told: list[frozenset[CodeType]] = []
    ends.on_change = lambda: told.append(ends.codes)
    for _ in range(3):
        ends.see_runner(sys._getframe())
    assert told == [ends.codes]


def test_the_end_is_outside_of_the_coroutine_that_looks() -> None:
    """Where the loop has no frame of its own."""
    ends = StackEnds(frozenset())
    ends.learn(object)

    async def attaches() -> None:
        ends.look()

    def runs() -> None:
        coro = attaches()
        with pytest.raises(StopIteration):
            coro.send(None)

    runs()
    assert (ends.codes, ends.known) == ({runs.__code__}, True)
