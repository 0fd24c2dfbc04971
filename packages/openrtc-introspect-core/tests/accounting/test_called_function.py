"""The function that a call in a thread is about, behind what libraries put around it."""

from __future__ import annotations

import contextvars
import functools
import time
from collections.abc import Callable
from typing import Any

import pytest

from openrtc_introspect_core._accounting.called_function import first_line_of, name_of
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._accounting.thread_calls import ThreadCalls
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_testing._loops.fake_clock import FakeClock


def look_up() -> None:
    """Stands for the user's function."""


def logged(func: Callable[[], None]) -> Callable[[], None]:
    @functools.wraps(func)
    def wrapper() -> None:
        func()

    return wrapper


class Client:
    def fetch(self) -> None:
        """Stands for a method of the user's."""

    def __call__(self) -> None:
        """Stands for a callable object of the user's."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the user's code was called for {name}")


LOOK_UP = [
    look_up,
    functools.partial(look_up),
    functools.partial(functools.partial(look_up)),
    functools.partial(contextvars.copy_context().run, look_up),
    logged(look_up),
]


@pytest.mark.parametrize("func", LOOK_UP, ids=["itself", "partial", "partials", "context", "decorated"])
def test_it_is_found_behind_partials_contexts_and_decorators(func: Callable[[], None]) -> None:
    """`asyncio.to_thread` hands over a partial of `Context.run`."""
    first_line = first_line_of(func)
    assert first_line is not None
    assert (name_of(func), first_line.line) == ("look_up", look_up.__code__.co_firstlineno)


def test_a_call_that_introspection_has_wrapped_is_seen_through() -> None:
    """Also if two introspectors have."""
    calls, ledger = ThreadCalls(FakeClock()), Ledger(contextvars.ContextVar("test"), FakeClock(), 0.05)
    session = Session("job-1", "test", {}, 0.0)
    assert name_of(calls.submit(calls.submit(look_up, session, ledger, None), session, ledger, None)) == "look_up"


def test_methods_objects_and_functions_in_c_have_names() -> None:
    """None of them is called, nor asked for anything that its class may have replaced."""
    client = Client()
    assert [name_of(each) for each in (client.fetch, client, Client, time.sleep, [].append)] == [
        "Client.fetch",
        "Client",
        "Client",
        "sleep",
        "list.append",
    ]
    assert first_line_of(time.sleep) is None
    first_line = first_line_of(client)
    assert first_line is not None
    assert first_line.function == "Client.__call__"


def test_a_function_that_wraps_itself_ends_the_search() -> None:
    """Such as one whose decorator was applied to it."""

    def forever() -> None:
        pass

    forever.__wrapped__ = forever  # type: ignore[attr-defined]
    assert name_of(forever).endswith("forever")
