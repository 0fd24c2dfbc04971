"""Agents in files: which file has one, what is wrong with it, and importing it anew."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrtc_top._dev.entrypoint import AgentError
from openrtc_top._dev.files import PACKAGE, forget_helpers, load, scan

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes a file of the agents' folder. What was imported from there is forgotten afterwards."""
    folder = tmp_path / "agents"
    folder.mkdir()
    path = sys.path.copy()

    def write(name: str, code: str) -> Path:
        file = folder / name
        file.write_text(textwrap.dedent(code))
        return file

    yield write
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if name.startswith(PACKAGE) or str(getattr(module, "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


def error_of(file: Path) -> str:
    with pytest.raises(AgentError) as problem:
        load(file)
    assert "\n" not in str(problem.value)
    return str(problem.value).removeprefix(f"{file.parent}/")


@pytest.mark.parametrize(
    "code",
    [
        "async def entrypoint(session): ...",
        "async def entrypoint(session, more=None): ...",
        "async def serve(session): ...\nentrypoint = serve",
        "if True:\n    async def entrypoint(session): ...",
        "class Agent:\n    async def __call__(self, session): ...\nentrypoint: Agent = Agent()",
        "import functools\nasync def serve(times, session): ...\nentrypoint = functools.partial(serve, 3)",
    ],
)
def test_a_file_with_an_entrypoint_is_an_agent_named_after_it(write: Write, code: str) -> None:
    """Any async callable of that name at the top of the file, however it came there."""
    assert list(load(write("restaurant.py", code))) == ["restaurant"]


@pytest.mark.parametrize(
    "code",
    [
        "",
        "async def serve(session): ...",
        "class Agent:\n    async def entrypoint(self, session): ...",
        "def make():\n    async def entrypoint(session): ...",
        "entrypoint: object",
        "class Agent: ...",
    ],
)
def test_other_files_are_none_and_are_not_run(write: Write, code: str) -> None:
    """A helper beside the agents does nothing when it is scanned."""
    assert load(write("helper.py", code + "\nraise RuntimeError('run')")) == {}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "x = 1\ndef entrypoint(session): ...",
            "agent.py:2: entrypoint must be `async def entrypoint(session)`, it is a function without `async`",
        ),
        ("\n\nentrypoint = 7", "agent.py:3: entrypoint must be `async def entrypoint(session)`, it is 7"),
        (
            "async def entrypoint(): ...",
            "agent.py:1: entrypoint must take one argument, the session: `async def entrypoint(session)`",
        ),
        (
            "x = 1\nimport nowhere\nasync def entrypoint(session): ...",
            "agent.py:2: ModuleNotFoundError: No module named 'nowhere'",
        ),
        ("x = (\nasync def entrypoint(session): ...", "agent.py:1: SyntaxError: '(' was never closed"),
        ("import sys\nasync def entrypoint(session): ...\nsys.exit(3)", "agent.py:3: SystemExit: 3"),
        ("async def entrypoint(session): ...\nraise ValueError('two\\nlines')", "agent.py:2: ValueError: two lines"),
        (
            "from helper import nothing as entrypoint",
            "agent.py:1: ImportError: cannot import name 'nothing' from 'helper'",
        ),
        ("from broken import entrypoint", "broken.py:2: ZeroDivisionError: division by zero"),
        ("from unparsable import entrypoint", "unparsable.py:1: SyntaxError: "),
    ],
)
def test_what_is_wrong_is_reported_with_file_and_line(write: Write, code: str, message: str) -> None:
    """In one line; of a helper's error the helper's."""
    write("helper.py", "")
    write("broken.py", "x = 1\n1 / 0\n")
    write("unparsable.py", "x = = 1\n")
    assert error_of(write("agent.py", code)).startswith(message)


def test_a_file_that_is_no_text_is_reported(write: Write) -> None:
    """So is one that is gone."""
    file = write("agent.py", "")
    file.write_bytes(b"\xff\xfe\x00")
    assert error_of(file).startswith("agent.py")
    file.unlink()
    assert "No such file" in error_of(file)


def test_siblings_can_be_imported_both_ways(write: Write) -> None:
    """`import menu` and `from .menu import …` work, whatever the folder is called."""
    write("menu.py", "DISHES = ['risotto']")
    code = "import menu\nfrom .menu import DISHES\nasync def entrypoint(session): return menu.DISHES + DISHES"
    assert list(load(write("restaurant.py", code))) == ["restaurant"]


def test_an_agent_does_not_take_the_name_of_a_module(write: Write) -> None:
    """A file called as one of the standard library's shadows it for nobody who has it already."""
    import email

    load(write("email.py", "async def entrypoint(session): ..."))
    assert sys.modules["email"] is email


def value_of(file: Path) -> Any:
    entrypoint: Any = load(file)["agent"]
    return entrypoint.__globals__["VALUE"]


def test_a_file_is_imported_anew_each_time(write: Write) -> None:
    """It is imported anew, also if time and size of both versions are the same."""
    code = "VALUE = {}\nasync def entrypoint(session): ..."
    assert [value_of(write("agent.py", code.format(value))) for value in (1, 2, 3)] == [1, 2, 3]


def test_a_version_that_fails_leaves_the_one_before(write: Write) -> None:
    """Its objects can still be found, by pickle for one."""
    load(write("agent.py", "class Old: ...\nasync def entrypoint(session): ..."))
    error_of(write("agent.py", "async def entrypoint(session): ...\nraise ValueError"))
    assert hasattr(sys.modules[f"{PACKAGE}.agent"], "Old")


def test_helpers_are_forgotten_and_installed_modules_are_not(write: Write, tmp_path: Path) -> None:
    """The next import of an agent sees the helper's new version; a virtual environment in the folder stays."""
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        write("menu.py", "VALUE = 1")
        agent = write("agent.py", "from menu import VALUE\nasync def entrypoint(session): ...")
        assert value_of(agent) == 1
        write("menu.py", "VALUE = 2")
        assert value_of(agent) == 1
        forget_helpers(agent.parent, {agent})
        assert value_of(agent) == 2
        modules = dict(sys.modules)
        forget_helpers(Path("/"), set())
        left = set(sys.modules)
        sys.modules.update(modules)  # the modules of the tests themselves, which later tests are to find
        assert {"pytest", "asyncio", "openrtc_top", "openrtc_introspect_core", "openrtc_introspect_testing"} <= left
    finally:
        sys.dont_write_bytecode = before


def test_livekit_agents_are_known_by_their_import(write: Write) -> None:
    """Without being run: the file has classes, and imports livekit at its top."""
    contents = scan(write("agent.py", "from livekit.agents import Agent\nclass Dental(Agent): ..."))
    assert (contents.livekit, contents.may_be_agent, contents.entrypoint_line) == (True, True, None)
    assert not scan(write("other.py", "import livekit.agents as lk\n")).may_be_agent
