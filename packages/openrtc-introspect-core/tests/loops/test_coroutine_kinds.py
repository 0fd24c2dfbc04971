from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import pytest

from openrtc_introspect_core._loops.coroutine_kinds import compiled_calls, kind_of, name_in


async def items() -> AsyncIterator[int]:
    yield 1


async def entry() -> None:
    pass


class Driven(Coroutine[Any, Any, None]):
    """A coroutine by its methods alone."""

    def send(self, value: object) -> None:
        raise StopIteration

    def throw(self, *error: Any) -> None:
        raise StopIteration

    def close(self) -> None:
        pass

    def __await__(self) -> Generator[Any, Any, None]:
        yield


class Compiled:
    """A coroutine that shows of itself what Cython's does, by slots instead of fields in C."""

    __slots__ = ("cr_await", "cr_code", "cr_running")

    def __init__(self, function: Callable[..., Any], awaits: Any = None, *, running: bool = True) -> None:
        self.cr_await = awaits
        self.cr_code = function.__code__
        self.cr_running = running


def inner() -> None:
    """Stand for a compiled function."""


def outer() -> None:
    """Stand for another."""


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (entry, "entry"),
        (lambda: entry().__await__(), "entry"),
        (lambda: items().asend(None), "items.asend"),  # type: ignore[attr-defined]
        (lambda: items().athrow(ValueError()), "items.athrow"),  # type: ignore[attr-defined]
        (lambda: items().aclose(), "items.athrow"),  # type: ignore[attr-defined]
        (lambda: anext(items(), 0), "items.asend"),
        (Driven, "Driven"),
        (lambda: Compiled(inner), "Compiled"),
    ],
    ids=["coroutine", "its wrapper", "asend", "athrow", "aclose", "anext", "class", "slots"],
)
@pytest.mark.filterwarnings("ignore:.*was never awaited")
def test_a_coroutine_has_its_function_s_name_or_its_type_s(make: Callable[[], Any], name: str) -> None:
    """A step of an async generator has that of the generator."""
    coro = make()
    assert name_in(coro) == name
    with contextlib.suppress(AttributeError):
        coro.close()


def test_no_code_of_the_host_is_called() -> None:
    """Neither a property nor `__getattr__` of a class with a coroutine's names."""

    class Host(Driven):
        @property
        def cr_await(self) -> None:
            raise AssertionError

        def __getattr__(self, name: str) -> None:
            raise AssertionError

    assert kind_of(Host) is None
    assert compiled_calls(Host()) == []
    assert name_in(Host()).endswith("Host")


def test_compiled_calls_follow_what_runs() -> None:
    """Each with the line where the function begins, outermost first, up to a coroutine in Python, which has a frame."""
    coro = entry()
    calls = compiled_calls(Compiled(outer, Compiled(inner, coro)))
    coro.close()
    assert [(call.file, call.line, call.function) for call in calls] == [
        (each.__code__.co_filename, each.__code__.co_firstlineno, each.__name__) for each in (outer, inner)
    ]


def test_a_compiled_coroutine_that_does_not_run_is_no_call() -> None:
    """The outermost may be about to."""
    assert [call.function for call in compiled_calls(Compiled(outer, Compiled(inner, running=False)))] == ["outer"]


def test_coroutines_in_python_have_no_compiled_calls() -> None:
    """Nor has no coroutine."""
    coro = entry()
    assert (compiled_calls(coro), compiled_calls(Driven()), compiled_calls(None)) == ([], [], [])
    coro.close()
