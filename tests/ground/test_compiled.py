"""Coroutines that Cython, mypyc and Nuitka compile, on each loop and with both meters.

The modules are compiled here. What the introspector says of them comes from a program of its own, compiled/program.py.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parent / "compiled"
METERS = ("c", "python")
LOOPS = ("asyncio", "uvloop", "classic", "rloop")
"""classic: uvloop, run by its own method and not by a runner."""
CROWDED = "descheduled"
"""A block of this cause is the machine's."""

_WITH_MYPYC = """
from mypyc.build import mypycify
from setuptools import setup

setup(ext_modules=mypycify(["mypyc_code.py"]), script_args=["-q", "build_ext", "-i"])
"""

COMPILERS = {
    "cython_code": ("Cython", ["-m", "Cython.Build.Cythonize", "-q", "-i", "cython_code.pyx"]),
    "mypyc_code": ("mypyc", ["-c", _WITH_MYPYC]),
    "nuitka_code": ("nuitka", ["-m", "nuitka", "--mode=module", "--quiet", "--remove-output", "nuitka_code.py"]),
}
"""By module: the package of its compiler, and what Python runs."""

slow = pytest.mark.slow


@functools.cache
def can_compile() -> bool:
    return (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file() and shutil.which("cc") is not None


class Compiled:
    """The folder of the compiled modules, and what the program has said of each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._said: dict[tuple[str, str, str], dict[str, Any]] = {}
        for source in ("python_code.py", "program.py"):
            shutil.copy(SOURCES / source, folder)

    def __call__(self, module: str, loop: str = "asyncio", meter: str = "c") -> dict[str, Any]:
        """Return what is said of a module's coroutines on a loop."""
        if loop != "asyncio":
            pytest.importorskip("uvloop" if loop == "classic" else loop)
        self._compile(module)
        if (module, loop, meter) not in self._said:
            program = [sys.executable, "-X", "faulthandler", "program.py", module, loop]
            environment = {**os.environ, "OPENRTC_INTROSPECT_METER": meter}
            ended = subprocess.run(
                program, cwd=self._folder, env=environment, capture_output=True, text=True, timeout=120, check=False
            )
            assert ended.returncode == 0, ended.stderr
            self._said[module, loop, meter] = json.loads(ended.stdout)
        return self._said[module, loop, meter]

    def _compile(self, module: str) -> None:
        if list(self._folder.glob(f"{module}.*.so")):
            return
        compiler, command = COMPILERS[module]
        pytest.importorskip(compiler)
        if not can_compile():
            pytest.skip("this Python has no headers, or there is no C compiler")
        building = self._folder / f"build_{module}"
        building.mkdir()
        for source in SOURCES.iterdir():
            if source.is_file():
                shutil.copy(source, building)
        environment = {**os.environ, "CFLAGS": "-O0"}
        subprocess.run([sys.executable, *command], cwd=building, env=environment, check=True, capture_output=True)
        (made,) = building.glob(f"{module}.*.so")
        shutil.copy(made, self._folder)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return Compiled(tmp_path_factory.mktemp("compiled"))


def line_of(module: str, text: str) -> str:
    """Return where a text is in a module's source, as FILE:LINE."""
    path = next(each for each in SOURCES.iterdir() if each.stem == module)
    lines = path.read_text(encoding="utf-8").splitlines()
    return f"{path.name}:{next(number for number, line in enumerate(lines, start=1) if text in line)}"


def block_of(said: dict[str, Any], task: str) -> dict[str, Any]:
    block: dict[str, Any] = said["blocks"][task]
    if block["cause"] == CROWDED:
        pytest.skip("the machine is busy")
    return block


on_each_loop = pytest.mark.parametrize("loop", LOOPS)
with_each_meter = pytest.mark.parametrize("meter", METERS)


@with_each_meter
@on_each_loop
def test_a_block_in_cython_has_the_line_where_its_function_begins(compiled: Compiled, loop: str, meter: str) -> None:
    """That of the function that ran: compiled coroutines show whom they await."""
    begins = [line_of("cython_code", f"async def {name}()") for name in ("sleeps", "sleeps_inside")]
    block = block_of(compiled("cython_code", loop, meter), "sleeps task")
    assert (block["session"], block["location"]) == ("s1", f"{begins[1]} sleeps_inside"), block
    assert block["stack"] == [f"{begins[0]} sleeps", f"{begins[1]} sleeps_inside"]
    assert block["detail"].endswith("in compiled code: the line is the one where the function begins")


@with_each_meter
@on_each_loop
def test_a_coroutine_of_cython_that_has_ended_has_the_line_where_its_function_begins(
    compiled: Compiled, loop: str, meter: str
) -> None:
    """The watchdog gets the GIL once the coroutine has ended, and shows no code any more."""
    begin = line_of("cython_code", "async def computes_to_its_end()")
    block = block_of(compiled("cython_code", loop, meter), "computes_to_its_end task")
    assert (block["session"], block["cause"] in ("native", "cpu")) == ("s1", True)
    assert block["location"] == f"{begin} computes_to_its_end"


@with_each_meter
@on_each_loop
def test_what_is_called_after_compiled_code_has_computed_is_innocent(compiled: Compiled, loop: str, meter: str) -> None:
    """The watchdog gets the GIL at the beginning of that function."""
    begin = line_of("cython_code", "async def computes()")
    block = block_of(compiled("cython_code", loop, meter), "computes task")
    assert (block["location"], block["stack"]) == (f"{begin} computes", [f"{begin} computes"])
    block = block_of(compiled("cython_code", loop, meter), "computes awaited")
    unseen = [None] if meter == "python" else []  # on a busy machine: it sees by lateness
    assert block["location"] in (f"{line_of('program', 'await coro')} awaits", *unseen)


@with_each_meter
@pytest.mark.parametrize("module", ["cython_code", "mypyc_code"])
def test_compiled_code_that_python_awaits_is_said_to_be_called_from_there(
    compiled: Compiled, module: str, meter: str
) -> None:
    """Its own line is unknown: nothing leads from the frame to what it awaits."""
    line = f"{line_of('program', 'await coro')} in awaits"
    block = block_of(compiled(module, "asyncio", meter), "sleeps awaited")
    assert block["detail"].endswith(f"in compiled code called from {line}")
    assert block["location"] == line.replace(" in ", " ")


@with_each_meter
@on_each_loop
@pytest.mark.parametrize("function", ["sleeps", "computes"])
def test_a_block_in_mypyc_has_a_name_and_no_line(compiled: Compiled, function: str, loop: str, meter: str) -> None:
    """Nothing else is to be had. Never is it the line that runs the loop."""
    block = block_of(compiled("mypyc_code", loop, meter), f"{function} task")
    assert (block["session"], block["location"], block["stack"]) == ("s1", None, [])
    assert block["detail"].endswith(f"in compiled code of mypyc_code.{function}_gen")


@with_each_meter
@on_each_loop
@pytest.mark.parametrize("module", ["cython_code", "mypyc_code"])
def test_python_that_compiled_code_calls_has_its_line(compiled: Compiled, module: str, loop: str, meter: str) -> None:
    """And nothing of what runs the loop is in its stack."""
    block = block_of(compiled(module, loop, meter), "calls_python task")
    line = f"{line_of('python_code', 'time.sleep')} blocks"
    around = [f"{line_of(module, 'async def calls_python')} calls_python"] if module == "cython_code" else []
    assert (block["location"], block["stack"]) == (line, [*around, line])


@with_each_meter
@on_each_loop
def test_a_running_task_is_in_its_compiled_functions(compiled: Compiled, loop: str, meter: str) -> None:
    """Its stack has no line of what runs the loop."""
    begins = [f"{line_of('cython_code', f'async def {name}()')} {name}" for name in ("sleeps", "sleeps_inside")]
    assert compiled("cython_code", loop, meter)["running"]["sleeps task"]["awaits"] == begins
    assert compiled("mypyc_code", loop, meter)["running"]["sleeps task"]["awaits"] == []


@with_each_meter
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("module", "task", "chain"),
    [
        ("cython_code", "task", ["waits", "waits_inside", "Event.wait"]),
        ("cython_code", "awaited", ["awaits", "waits", "waits_inside", "Event.wait"]),
        ("mypyc_code", "task", ["Event.wait"]),
        ("mypyc_code", "awaited", ["awaits", "Event.wait"]),
        ("mypyc_code", "method", ["Event.wait"]),
        pytest.param("nuitka_code", "task", ["waits", "Event.wait"], marks=slow),
        pytest.param("nuitka_code", "awaited", ["awaits", "waits", "Event.wait"], marks=slow),
    ],
)
def test_a_suspended_task_waits_for_what_it_says_itself(
    compiled: Compiled, module: str, task: str, chain: list[str], loop: str, meter: str
) -> None:
    """An argument that could be awaited is not what is: the task awaits an event, and holds another task."""
    said = compiled(module, loop, meter)
    seen = said["tasks"][task]
    assert [each.partition(" ")[2] for each in seen["awaits"]] == chain
    assert (seen["state"], seen["waiting_on"]) == ("waiting", None)
    assert said["waits"][task] == ["event", "asyncio.Event"]


def test_a_suspended_coroutine_of_cython_is_at_the_line_where_it_begins(compiled: Compiled) -> None:
    """Its frame has no line."""
    seen = compiled("cython_code")["tasks"]["task"]
    assert seen["awaits"][0] == f"{line_of('cython_code', 'async def waits(')} waits"


def test_a_coroutine_without_a_name_has_that_of_its_type(compiled: Compiled) -> None:
    """As asyncio's own `repr` of the task."""
    seen = compiled("mypyc_code")["tasks"]
    assert (seen["task"]["coroutine"], seen["method"]["coroutine"]) == ("waits_gen", "waits_Session_gen")
    assert compiled("cython_code")["tasks"]["task"]["coroutine"] == "waits"


@slow
@with_each_meter
@on_each_loop
@pytest.mark.parametrize("way", ["task", "awaited"])
def test_code_of_nuitka_has_its_own_line(compiled: Compiled, way: str, loop: str, meter: str) -> None:
    """It has frames."""
    said = compiled("nuitka_code", loop, meter)
    line = f"{line_of('nuitka_code', 'time.sleep')} sleeps"
    around = [f"{line_of('program', 'await coro')} awaits"] if way == "awaited" else []
    block = block_of(said, f"sleeps {way}")
    assert (block["location"], block["stack"]) == (line, [*around, line])
    assert "compiled" not in (block["detail"] or "")
    assert said["running"][f"sleeps {way}"]["awaits"] == [*around, line]
