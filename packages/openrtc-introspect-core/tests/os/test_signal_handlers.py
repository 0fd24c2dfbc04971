from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest

from openrtc_introspect_core._os.signal_handlers import code_of, signal_handler_in

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="raises no such signal")

Found = list[Any]


@pytest.fixture
def handled() -> Iterator[Callable[[Any], None]]:
    """Return a function that sets a handler of SIGUSR1 and raises the signal."""
    before = signal.getsignal(signal.SIGUSR1)

    def handle(handler: Any) -> None:
        signal.signal(signal.SIGUSR1, handler)
        signal.raise_signal(signal.SIGUSR1)

    yield handle
    signal.signal(signal.SIGUSR1, before)


def look(found: Found) -> None:
    found.append(signal_handler_in(threading.get_ident(), sys._getframe(), None))


class Handler:
    """Handlers of each kind, which keep what is found while they run."""

    def __init__(self) -> None:
        self.found: Found = []

    def method(self, number: int, frame: FrameType | None) -> None:
        look(self.found)

    def packed(self, *arguments: Any) -> None:
        look(self.found)

    def with_more(self, more: int, number: int, frame: FrameType | None) -> None:
        look(self.found)


@pytest.mark.parametrize("kind", ["method", "packed", "with_more"])
def test_a_handler_is_found_while_it_runs(kind: str, handled: Callable[[Any], None]) -> None:
    """A function, a bound method, one with all arguments in one, a partial."""
    handler = Handler()
    function = getattr(handler, kind)
    handled(partial(function, 1) if kind == "with_more" else function)
    assert handler.found == [(__file__, f"Handler.{kind}")]


def test_a_handler_that_is_called_as_any_function_is_none(handled: Callable[[Any], None]) -> None:
    """Nor is there one outside of it."""
    handler = Handler()
    handled(handler.method)
    handler.method(signal.SIGUSR1, None)
    look(handler.found)
    assert handler.found[1:] == [None, None]


def test_only_the_main_thread_runs_handlers(handled: Callable[[Any], None]) -> None:
    """Others are not looked at."""
    found: Found = []

    def handler(number: int, frame: FrameType | None) -> None:
        here = sys._getframe()
        thread = threading.Thread(target=lambda: found.append(signal_handler_in(threading.get_ident(), here, None)))
        thread.start()
        thread.join()

    handled(handler)
    assert found == [None]


def test_a_handler_outside_of_the_end_is_not_of_this_step(handled: Callable[[Any], None]) -> None:
    """It runs a loop, say."""
    found: Found = []

    def handler(number: int, frame: FrameType | None) -> None:
        def inside() -> None:
            found.append(signal_handler_in(threading.get_ident(), sys._getframe(), sys._getframe(1)))

        inside()

    handled(handler)
    assert found == [None]


def test_code_is_that_of_functions_alone() -> None:
    """A callable object has none."""
    assert code_of(partial(look, [])) is look.__code__
    assert code_of(Handler().method) is Handler.method.__code__
    assert code_of(signal.SIG_DFL) is None
    assert code_of(print) is None
