"""The meter in C repeats values, field names and method names of Python's.

They are the same.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from contextvars import ContextVar
from pathlib import Path

import pytest

from openrtc_introspect_core._accounting import fields, gc_monitor, heap, heap_reader, step_heap
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._accounting.spans import NOTABLE_S
from openrtc_introspect_core._blocks import stall_sampler
from openrtc_introspect_core._loops.iterations import LONG_S, Iterations
from openrtc_introspect_core._loops.selector_iterations import SelectorIterations
from openrtc_introspect_core._loops.task_creation import TaskCreation
from openrtc_introspect_core._os import stacks
from openrtc_introspect_testing._loops.fake_clock import FakeClock

FOLDER = Path(__file__).parents[2] / "src" / "openrtc_introspect_core" / "_native"
"""In the repository: wheels have no source."""

CLASSES_IN_PYTHON = {
    "AccountFields": Path(fields.__file__),
    "LedgerFields": Path(fields.__file__),
    "HeapFields": Path(fields.__file__),
    "HeapReaderFields": Path(heap_reader.__file__),
    "StepHeap": Path(step_heap.__file__),
}
"""The classes whose fields are named in Python as well, for the meter in Python, and the files that name them."""

OF_OTHER_NAMES = {"HeapReaderFields": "ReaderInPython", "StepHeap": "StepHeapInPython"}
"""Classes in Python that do what a type in C does."""

OUTSIDE_OF_FIELDS = {
    "HeapFields": ("heap_reader.c", "heap"),
    "HeapReaderFields": ("heap_reader.c", "reader"),
    "StepHeap": ("step_heap.c", "heap"),
    "TrioSteps": ("trio_step.c", "steps"),
    "Collections": ("collections.c", "collections"),
}
"""The types in C that are not in fields.c: their file, and what the names of their tables begin with."""


def text(file: str) -> str:
    return (FOLDER / file).read_text(encoding="utf-8")


def class_of(file: Path, name: str) -> ast.ClassDef:
    """Return the class of that name, wherever it is defined in the file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    (found,) = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name)
    return found


def slots_in_python(name: str) -> set[str]:
    """Return the slots of the class that is used without the meter in C."""
    found = class_of(CLASSES_IN_PYTHON[name], OF_OTHER_NAMES.get(name, name))
    (slots,) = (node.value for node in found.body if isinstance(node, ast.Assign))
    return set(ast.literal_eval(slots))


def fields_in_stub(name: str) -> set[str]:
    """Return the fields that type checkers know."""
    stub = class_of(FOLDER / "_meter.pyi", name)
    return {
        node.target.id for node in stub.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def fields_in_c(name: str) -> set[str]:
    """Return the fields of a type in C: its members, and those with a getter and a setter."""
    file, kind = OUTSIDE_OF_FIELDS.get(name, ("fields.c", name.removesuffix("Fields").lower()))
    tables = rf"Py(?:MemberDef|GetSetDef) {kind}_(?:members|getset)\[\] = {{\n(.*?)\n}};"
    rows = "".join(re.findall(tables, text(file), re.DOTALL))
    return {*re.findall(r'{"(\w+)"', rows), *re.findall(r"OPTIONAL_SECONDS\(\w+, (\w+)\)", rows)}


def test_a_step_is_notable_for_both_meters_from_the_same_length_on() -> None:
    """The value in C is that of `spans`, in seconds."""
    (value,) = re.findall(r"#define NOTABLE_S (\S+)", text("meter.h"))
    assert float(value) == NOTABLE_S


def test_an_iteration_is_long_for_both_meters_from_the_same_length_on() -> None:
    """The value in C is that of `iterations`, in seconds."""
    (value,) = re.findall(r"#define LONG_S (\S+)", text("meter.h"))
    assert float(value) == LONG_S


@pytest.mark.parametrize(
    ("file", "name_in_c", "value"),
    [
        ("heap_reader.c", "BUDGET", heap_reader.BUDGET),
        ("heap_reader.c", "WINDOW_S", heap_reader.WINDOW_S),
        ("heap_reader.c", "CHEAP_S", heap_reader.CHEAP_S),
        ("heap_reader.c", "TIMED_ONE_IN", heap_reader.TIMED_ONE_IN),
        ("collections.c", "NOTABLE_COLLECTION_S", gc_monitor.NOTABLE_S),
        ("stall.h", "MAX_FRAMES", stacks.MAX_FRAMES),
        ("stall_look.c", "MIN_HELD_S", stall_sampler.MIN_HELD_S),
    ],
)
def test_limits_are_the_same_in_c_and_in_python(file: str, name_in_c: str, value: float) -> None:
    """The values in C are those of the modules in Python."""
    (found,) = re.findall(rf"#define {name_in_c} (\S+)", text(file))
    assert float(found) == value


@pytest.mark.parametrize("name", CLASSES_IN_PYTHON)
def test_what_each_step_reads_and_writes_has_the_same_fields_with_both_meters(name: str) -> None:
    """The classes in Python and the types in C name the same fields."""
    private = {"heap", "clock"} if name == "HeapReaderFields" else set()  # in C no attributes
    assert slots_in_python(name) - private == fields_in_c(name) != set()


@pytest.mark.parametrize("name", [*CLASSES_IN_PYTHON, "IterationsFields", "CreationFields", "TrioSteps", "Collections"])
def test_type_checkers_know_the_fields_of_the_types_in_c(name: str) -> None:
    """The stub and the types in C name the same fields."""
    assert fields_in_stub(name) == fields_in_c(name) != set()


def test_the_fields_of_iterations_and_of_task_creation_are_set_in_python() -> None:
    """Each instance has them, whichever meter is in use."""

    loop = asyncio.new_event_loop()
    ledger = Ledger(ContextVar("binding"), FakeClock(), 60.0)
    iterations = Iterations(ledger, loop.is_running, lambda since, until: None, lambda problem, error: None)
    creation = TaskCreation(loop, ledger, meter=True, created=None)
    loop.close()
    assert all(hasattr(iterations, name) for name in fields_in_c("IterationsFields"))
    assert all(hasattr(creation, name) for name in fields_in_c("CreationFields"))


def test_the_methods_of_a_ledger_that_c_calls_exist_and_take_what_it_gives() -> None:
    """A ledger has them, with as many parameters as the format in C has arguments."""
    ledger = Ledger(ContextVar("binding"), FakeClock(), 60.0)
    source = text("coroutine.c") + text("step_heap.c")
    interned = set(re.findall(r'PyUnicode_InternFromString\("(\w+)"\)', source)) - {
        "close", "throw",  # a coroutine's
        "period",  # a sampling's
    }  # fmt: skip
    formatted = dict(re.findall(r'PyObject_CallMethod\(\(PyObject \*\)ledger, "(\w+)", "(\w+)"', source))
    assert interned
    assert set(formatted) == {"end_slow_path", "note"}
    for name in (*interned, *formatted):
        assert callable(getattr(ledger, name))
    for name, given in formatted.items():
        assert len(inspect.signature(getattr(ledger, name)).parameters) == len(given)


def test_the_method_of_task_creation_that_c_calls_exists_and_takes_what_it_gives() -> None:
    """A task and its coroutine; the other names in C are asyncio's."""
    interned = set(re.findall(r'PyUnicode_InternFromString\("(\w+)"\)', text("create_task.c")))
    assert interned - {"context", "create_task", "_task_factory"} == {"meter_outermost"}
    assert list(inspect.signature(TaskCreation.meter_outermost).parameters) == ["self", "task", "coro"]


def test_the_methods_of_iterations_that_c_calls_exist() -> None:
    """The names in C are methods of the class in Python."""
    interned = set(re.findall(r'PyUnicode_InternFromString\("(\w+)"\)', text("select.c"))) - {"_task_factory"} | {
        "has_woken"
    }
    assert interned
    assert all(callable(getattr(SelectorIterations, name)) for name in interned)


def test_the_methods_of_a_trio_hook_that_c_calls_exist_and_take_what_it_gives() -> None:
    """The names in C are methods of the class in Python, or of a ledger, with as many parameters as arguments."""
    trio_hook = pytest.importorskip("openrtc_introspect_core._loops.trio_hook")
    source = text("trio_step.c")
    for name, given in re.findall(r'PyObject_CallMethod\(\(PyObject \*\)self, "(\w+)", "(\w+)"', source):
        assert (
            len(inspect.signature(getattr(trio_hook.TrioHook, name)).parameters) == len(given) + 1
        )  # and the instance
    ledger_s = re.findall(r'PyObject_CallMethod\(\(PyObject \*\)ledger, "(\w+)", "(\w+)"', source)
    assert [(name, len(inspect.signature(getattr(Ledger, name)).parameters) - 1) for name, _ in ledger_s] == [
        ("end", 4)
    ]
    assert callable(trio_hook.TrioHook.failed)


def test_the_methods_of_the_gc_monitor_that_c_calls_exist_and_take_what_it_gives() -> None:
    """The names in C are methods of the class in Python."""
    source = text("collections.c")
    interned = re.findall(r'PyUnicode_InternFromString\("(\w+)"\)', source)
    ((name, given),) = re.findall(r'PyObject_CallMethod\(self->monitor, "(\w+)", "(\w+)"', source)
    assert interned == ["failed", "full_begins", "generation"]
    assert callable(gc_monitor.GcMonitor.failed)
    assert callable(gc_monitor.GcMonitor.full_begins)
    assert len(inspect.signature(getattr(gc_monitor.GcMonitor, name)).parameters) == len(given) + 1


def test_the_methods_of_a_heap_that_c_calls_exist() -> None:
    """The names in C are methods of a heap, or of the deque of times."""
    interned = set(re.findall(r'PyUnicode_InternFromString\("(\w+)"\)', text("heap_reader.c")))
    assert interned == {"adjust_sampling", "append"}
    assert callable(heap.Heap.adjust_sampling)


def test_no_call_takes_or_builds_values_by_a_length() -> None:
    """What is compiled with the headers of Python 3.13 would raise SystemError for a `#` on Python 3.11 and 3.12."""
    calls = re.compile(r'(?:PyArg_Parse|Py_BuildValue|PyObject_Call(?:Function|Method))\w*\([^;"]*"([^"]*)"')
    formats = [found for file in sorted(FOLDER.glob("*.c")) for found in calls.findall(text(file.name))]
    assert len(formats) > 5
    assert [found for found in formats if "#" in found] == []
