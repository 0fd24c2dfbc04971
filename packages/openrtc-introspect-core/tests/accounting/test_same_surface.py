"""A task and a loop look the same metered as plain, attribute by attribute."""

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import inspect
import io
import re
import sys
import types
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._accounting.fields import COMPILED
from openrtc_introspect_core._accounting.meter import drive

Seen = dict[str, Any]
BOUND_S = 20.0

# --- the objects that a task is made of ----------------------------------------------------------


class Stages:
    """A future that a body waits for: it is seen before, between and after its steps."""

    def __init__(self) -> None:
        self.future: asyncio.Future[str] = asyncio.get_running_loop().create_future()


async def _body(stages: Stages) -> str:
    return await stages.future


async def _failing(stages: Stages) -> str:
    await stages.future
    raise ValueError("the host's own")


async def _numbers(stages: Stages) -> AsyncIterator[str]:
    try:
        yield await stages.future
    finally:
        await asyncio.sleep(0)


class ByHand(Coroutine[Any, Any, str]):
    """A coroutine that is written in Python."""

    def __init__(self, coro: Coroutine[Any, Any, str]) -> None:
        self._coro = coro

    def send(self, value: Any) -> Any:
        return self._coro.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coro.throw(*error)

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Generator[Any, None, str]:
        return self._coro.__await__()

    def __repr__(self) -> str:
        return "<by hand>"


class Named(ByHand):
    """A coroutine with a name, like those of Cython."""

    __slots__ = ("__name__", "__qualname__")

    def __init__(self, coro: Coroutine[Any, Any, str]) -> None:
        super().__init__(coro)
        self.__name__, self.__qualname__ = "named", "Some.named"


@types.coroutine
def _decorated(stages: Stages) -> Generator[Any, Any, str]:
    return (yield from stages.future)


def _generator(stages: Stages) -> Generator[Any, Any, str]:
    return (yield from stages.future)


def _closed(stages: Stages) -> Any:
    coro = _body(stages)
    coro.close()
    return coro


KINDS: dict[str, Callable[[Stages], Any]] = {
    "async def": _body,
    "async def that fails": _failing,
    "closed async def": _closed,
    "written in Python": lambda stages: ByHand(_body(stages)),
    "written in Python, with a name": lambda stages: Named(_body(stages)),
    "asend": lambda stages: _numbers(stages).asend(None),
    "athrow": lambda stages: _numbers(stages).athrow(ValueError("thrown")),
    "aclose": lambda stages: _numbers(stages).aclose(),
    "anext": lambda stages: anext(_numbers(stages)),
    "anext with a default": lambda stages: anext(_numbers(stages), "none"),
    "types.coroutine": _decorated,
    "generator": _generator,
    "async generator": _numbers,
    "future": lambda stages: stages.future,
    "function": lambda stages: _body,
    "None": lambda stages: None,
}
KEYWORDS: dict[str, Callable[[], dict[str, Any]]] = {
    "none": dict,
    "a name": lambda: {"name": "named"},
    "a name that is no str": lambda: {"name": 5},
    "a context": lambda: {"context": contextvars.copy_context()},
    "no context": lambda: {"context": None},
    "eager_start": lambda: {"eager_start": True},
    "eager_start off": lambda: {"eager_start": False},
    "what there is not": lambda: {"colour": "red"},
}

# --- descriptions --------------------------------------------------------------------------------


def text(value: object) -> str:
    """Return the repr of a value, or a text, without addresses and numbers of tasks."""
    shown = re.sub(r"0x[0-9a-fA-F]+", "0x…", value if isinstance(value, str) else repr(value))
    return re.sub(r"Task-\d+", "Task-…", shown)


def described(value: object) -> Any:
    """Describe the value of an attribute."""
    if isinstance(value, types.FrameType):
        return ("frame", value.f_code.co_qualname, value.f_lineno)
    if isinstance(value, types.TracebackType):
        return ("traceback", value.tb_frame.f_code.co_qualname)
    if callable(value):
        return ("callable", getattr(value, "__name__", None))
    return (type(value).__name__, text(value))


def attribute(owner: object, name: str) -> Any:
    try:
        return described(getattr(owner, name))
    except Exception as error:
        return ("raises", type(error).__name__, text(error.args))


def of_coroutine(found: Any, given: Any) -> Seen:
    """Describe the result of `task.get_coro()`, beside the object given to the task."""
    names = [name for name in dir(given) if not name.startswith("__")]
    return {
        "==": found == given and given == found,
        "hash": hash(found) == hash(given),
        "repr": text(found),
        "str": text(str(found)),
        "type name": type(found).__name__,
        "class": found.__class__.__name__,
        "CoroutineType": isinstance(found, types.CoroutineType),
        "Coroutine": isinstance(found, collections.abc.Coroutine),
        "Generator": isinstance(found, collections.abc.Generator),
        "inspect.iscoroutine": inspect.iscoroutine(found),
        "inspect.isawaitable": inspect.isawaitable(found),
        "asyncio.iscoroutine": asyncio.iscoroutine(found),
        "dir": dir(found),
        "state": inspect.getcoroutinestate(found) if inspect.iscoroutine(given) else None,
        **{f"getattr {name}": attribute(found, name) for name in (*names, "__name__", "__qualname__")},
    }


def without_meter(stack: str) -> str:
    """Return the text of a live stack without the lines of the meter in Python.

    Its frames are between the loop and the task.
    """
    return re.sub(r".*_accounting/meter\.py.*\n(?: {4}.*\n)?", "", stack)


def of_task(task: asyncio.Task[Any], given: Any) -> Seen:
    """Describe all that a task shows of itself."""
    printed = io.StringIO()
    task.print_stack(file=printed)
    seen: Seen = {
        "type": type(task),
        "repr": text(task),
        "name": text(task.get_name()),
        "stack": [described(frame) for frame in task.get_stack() if frame.f_code is not drive.__code__],
        "print_stack": without_meter(text(printed.getvalue())),
        "dir": dir(task),
        **{f"getattr {name}": attribute(task, name) for name in dir(task) if not name.startswith("_")},
        **{f"get_coro: {name}": value for name, value in of_coroutine(task.get_coro(), given).items()},
    }
    created: Any = getattr(task, "_source_traceback", None)
    if created is not None:
        # Its first entries are those of the test runner.
        seen["created at"] = [(entry.filename, entry.name) for entry in created][-3:]
    if sys.version_info >= (3, 14):
        seen["call graph"] = text(asyncio.format_call_graph(task))
    return seen


def of_end(task: asyncio.Task[Any]) -> Any:
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return text(error) if error is not None else task.result()


def of_method(method: Any) -> Seen:
    try:
        signature: Any = str(inspect.signature(method))
    except (TypeError, ValueError) as error:
        signature = type(error).__name__
    return {
        "signature": text(signature),
        "coroutine function": inspect.iscoroutinefunction(method),
        **{name: text(getattr(method, name, None)) for name in ("__name__", "__qualname__", "__module__", "__doc__")},
    }


def of_object(owner: Any) -> Seen:
    """Describe each public attribute of a loop, or of its selector."""
    seen: Seen = {"type": type(owner), "dir": sorted(name for name in dir(owner) if not name.startswith("_"))}
    for name in seen["dir"]:
        value = getattr(owner, name, None)
        seen[name] = (type(value).__name__, of_method(value)) if callable(value) else attribute(owner, name)
    return seen


def differences(plain: Seen, metered: Seen) -> dict[str, tuple[Any, Any]]:
    """Return what differs: (plain, metered) by name.

    If only one of the two was refused, return the refusal alone.
    """
    if plain.get("refused") != metered.get("refused"):
        return {"refused": (plain.get("refused"), metered.get("refused"))}
    names = [*plain, *(name for name in metered if name not in plain)]
    return {name: (plain.get(name), metered.get(name)) for name in names if plain.get(name) != metered.get(name)}


# --- plain and metered ---------------------------------------------------------------------------


@contextmanager
def attached(metered: bool) -> Iterator[None]:
    """Attach to the running loop, in a session's scope; or do nothing."""
    if not metered:
        yield
        return
    introspector = Introspector(socket_path=False)
    introspector.attach()
    try:
        with introspector.session("job-1", agent_name="a"):
            yield
        assert introspector.snapshot().worker.notes == []
    finally:
        introspector.close()


def _asyncio_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop()


def _uvloop_loop() -> asyncio.AbstractEventLoop:
    uvloop = pytest.importorskip("uvloop")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


LOOPS = {"asyncio": _asyncio_loop, "uvloop": _uvloop_loop}


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return LOOPS[request.param]


def run(coro: Coroutine[Any, Any, Seen], factory: Callable[[], asyncio.AbstractEventLoop] = _asyncio_loop) -> Seen:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coro)


def _dispose(coro: Any) -> None:
    """Close a coroutine that no task has taken, so that no warning says so."""
    if inspect.iscoroutine(coro) or inspect.isgenerator(coro) or isinstance(coro, Coroutine):
        coro.close()


async def _life(kind: Callable[[Stages], Any], keywords: Callable[[], dict[str, Any]], *, metered: bool) -> Seen:
    """Describe a task before its first step, waiting, and at its end; or its refusal."""
    seen: Seen = {}
    loop = asyncio.get_running_loop()
    with attached(metered), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stages = Stages()
        given = kind(stages)
        named = keywords()
        try:
            task = loop.create_task(given, **named)
        except BaseException as error:
            seen["refused"] = (type(error), text(error.args))
            _dispose(given)
            return seen
        if isinstance(named.get("context"), contextvars.Context) and sys.version_info >= (3, 12):
            seen["the context given"] = task.get_context() is named["context"]
        seen |= {f"before: {name}": value for name, value in of_task(task, given).items()}
        await asyncio.sleep(0)
        seen |= {f"waiting: {name}": value for name, value in of_task(task, given).items()}
        stages.future.set_result("got it")
        await asyncio.wait([task], timeout=BOUND_S)
        seen |= {f"ended: {name}": value for name, value in of_task(task, given).items()}
        seen["end"] = of_end(task)
    seen["warnings"] = [text(each.message) for each in caught]
    return seen


def compare(kind: str, keywords: str = "none", *, debug: bool = False) -> dict[str, tuple[Any, Any]]:
    def lived(metered: bool) -> Seen:
        async def main() -> Seen:
            asyncio.get_running_loop().set_debug(debug)
            return await _life(KINDS[kind], KEYWORDS[keywords], metered=metered)

        return run(main())

    found = differences(lived(False), lived(True))
    if kind in GENERATORS:  # Python 3.11 takes them; the object in their place looks like a coroutine
        found = {name: values for name, values in found.items() if not name.endswith(LOOKS_LIKE_A_COROUTINE)}
    return found


GENERATORS = ("generator", "types.coroutine")
LOOKS_LIKE_A_COROUTINE = ("get_coro: Coroutine", "get_coro: inspect.isawaitable")


# --- the facts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_looks_the_same(kind: str) -> None:
    """This holds for each kind of coroutine and each refusal, by every attribute."""
    assert compare(kind) == {}


@pytest.mark.parametrize("kind", ["async def", "asend", "written in Python", "generator"])
def test_a_task_looks_the_same_in_debug_mode(kind: str) -> None:
    """A task remembers its place of creation then."""
    assert compare(kind, debug=True) == {}


@pytest.mark.parametrize("keywords", KEYWORDS)
def test_create_task_takes_the_same_arguments(keywords: str) -> None:
    """It refuses the same ones, in the same words."""
    assert compare("async def", keywords) == {}


def test_a_task_cancelled_before_its_first_step_looks_the_same() -> None:
    """The coroutine has never run."""

    async def main(metered: bool) -> Seen:
        with attached(metered):
            coro = _body(Stages())
            task = asyncio.create_task(coro)
            task.cancel("at once")
            await asyncio.wait([task])
            return of_task(task, coro)

    assert differences(run(main(False)), run(main(True))) == {}


def test_the_running_task_looks_the_same() -> None:
    """The task is seen from inside, while its coroutine runs.

    With the meter in Python, its call graph goes on into the loop.
    """

    async def main(metered: bool) -> Seen:
        made: list[Any] = []

        async def inside() -> Seen:
            task = asyncio.current_task()
            assert task is not None
            return of_task(task, made[0]) | {"all": [text(each.get_coro()) for each in asyncio.all_tasks() - {outer}]}

        with attached(metered):
            outer = asyncio.current_task()
            made.append(inside())
            return await asyncio.create_task(made[0])

    found = differences(run(main(False)), run(main(True)))
    if COMPILED is None:
        found.pop("call graph", None)
    assert found == {}


def test_a_loop_looks_the_same(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Each public attribute has the same type; each method, name and signature."""

    async def main(metered: bool) -> Seen:
        with attached(metered):
            return of_object(asyncio.get_running_loop())

    assert differences(run(main(False), new_loop), run(main(True), new_loop)) == {}


def test_a_selector_looks_the_same() -> None:
    """Each public attribute has the same type; each method, name and signature."""

    async def main(metered: bool) -> Seen:
        loop: Any = asyncio.get_running_loop()
        with attached(metered):
            return of_object(loop._selector)

    assert differences(run(main(False)), run(main(True))) == {}


def test_a_loop_is_as_before_once_it_is_let_go_of(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Nothing of ours stays in it or its selector. It has its own task factory again."""

    async def main() -> Seen:
        loop: Any = asyncio.get_running_loop()
        parts = [each for each in (loop, getattr(loop, "_selector", None)) if hasattr(each, "__dict__")]

        def state() -> Seen:
            return {
                "attributes": [sorted(vars(each)) for each in parts],
                "methods": [{name: of for name, of in vars(each).items() if callable(of)} for each in parts],
                "surface": [of_object(each) for each in parts] or of_object(loop),
                "factory": loop.get_task_factory(),
            }

        before = state()
        seen: Seen = {}
        for ends in ("close", "detach"):
            introspector = Introspector(socket_path=False)
            introspector.attach()
            with introspector.session("job-1", agent_name="a"):
                await asyncio.create_task(asyncio.sleep(0))
            getattr(introspector, ends)()
            seen |= {f"{ends}: {name}": each for name, each in differences(before, state()).items()}
            introspector.close()
        return seen

    assert run(main(), new_loop) == {}


# --- task factories ------------------------------------------------------------------------------


def custom(loop: asyncio.AbstractEventLoop, coro: Any, **given: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **given)


def _eager() -> Any:
    if sys.version_info < (3, 12):
        pytest.skip("Python 3.11 has no eager tasks")
    return asyncio.eager_task_factory


FACTORIES: dict[str, Callable[[], Any]] = {"none": lambda: None, "custom": lambda: custom, "eager": _eager}


def of_factory(factory: Any) -> Seen:
    """Describe what libraries check: the object, and an eager one's code and closure."""
    return {
        "is none": factory is None,
        "is custom": factory is custom,
        "code": getattr(factory, "__code__", None),
        "has a closure": bool(getattr(factory, "__closure__", None)),
        "name": (getattr(factory, "__name__", None), getattr(factory, "__qualname__", None)),
    }


async def _begins_eagerly() -> bool | str:
    """Return whether a task begins before `create_task` returns, or why none does."""
    begun: list[bool] = []

    async def child() -> None:
        begun.append(True)

    coro = child()
    try:
        task = asyncio.create_task(coro)
    except TypeError as error:  # uvloop gives factories an argument that those of Python 3.13.0 do not take
        coro.close()
        return str(error)
    eager = bool(begun)
    await task
    return eager


@pytest.mark.parametrize("after", ["none", "custom", "eager"])
@pytest.mark.parametrize("before", ["none", "custom", "eager"])
def test_the_task_factory_is_whose_it_was_set_by(
    before: str, after: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Factories set before attaching, set while attached, and left after letting go."""
    first, second = FACTORIES[before](), FACTORIES[after]()

    async def main(metered: bool) -> Seen:
        seen: Seen = {}
        loop = asyncio.get_running_loop()
        loop.set_task_factory(first)

        async def observe(when: str) -> None:
            seen.update({f"{when}: {name}": value for name, value in of_factory(loop.get_task_factory()).items()})
            seen[f"{when}: begins eagerly"] = await _begins_eagerly()

        with attached(metered):
            await observe("set before")
            loop.set_task_factory(second)
            await observe("set after")
        await observe("let go of")
        loop.set_task_factory(None)  # uvloop cannot end with an eager one
        return seen

    assert differences(run(main(False), new_loop), run(main(True), new_loop)) == {}


@pytest.mark.parametrize("name", ["none", "custom", "eager"])
def test_a_factory_that_was_there_is_given_back(name: str) -> None:
    """`close()` and `detach()` put the same object back."""
    factory = FACTORIES[name]()

    async def main() -> Seen:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        seen: Seen = {}
        for ends in ("close", "detach"):
            introspector = Introspector(socket_path=False)
            introspector.attach()
            getattr(introspector, ends)()
            seen[ends] = loop.get_task_factory() is factory
            introspector.close()
        loop.set_task_factory(None)
        return seen

    assert run(main()) == {"close": True, "detach": True}


def test_a_factory_that_refuses_is_not_asked_for_less() -> None:
    """A custom factory gets what `create_task` got, except for the coroutine's class."""

    async def main(metered: bool) -> Seen:
        calls: list[Any] = []

        def noting(loop: asyncio.AbstractEventLoop, coro: Any, **given: Any) -> asyncio.Task[Any]:
            calls.append((coro == made, text(coro), inspect.iscoroutine(coro), sorted(given), given.get("name")))
            return asyncio.Task(coro, loop=loop, **given)

        loop = asyncio.get_running_loop()
        loop.set_task_factory(noting)
        with attached(metered):
            for named in ({}, {"name": "named"}, {"context": contextvars.copy_context()}):
                made = asyncio.sleep(0)
                await loop.create_task(made, **named)  # type: ignore[arg-type]
        return {"calls": calls}

    assert differences(run(main(False)), run(main(True))) == {}
