"""A Python program, run in this process as `python` itself would run it.

It gets a `__main__` of its own, its arguments in `sys.argv`, and its folder in `sys.path`. What it raises is left to
the interpreter: so exit codes, messages of `sys.exit`, and the end by an interrupt are those of a plain run. Only the
traceback that is shown is cut: without the frames that are not the program's.
"""

from __future__ import annotations

import atexit
import builtins
import importlib.util
import io
import linecache
import marshal
import os
import pkgutil
import runpy
import sys
import textwrap
from collections.abc import Sequence
from importlib.machinery import BuiltinImporter, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any, Literal, NamedTuple

Kind = Literal["script", "module", "code"]


class Program(NamedTuple):
    """A program and its arguments, as Python's own command line has them."""

    kind: Kind
    source: str
    """The path of a script, or of a folder or archive with a `__main__.py`; a module's name; or code."""
    arguments: Sequence[str]

    @property
    def name(self) -> str:
        """Return a name for its worker."""
        if self.kind == "code":
            return "python"
        if self.kind == "module":
            return self.source
        name, extension = os.path.splitext(os.path.basename(os.path.abspath(self.source)))
        return name if extension in (".py", ".pyc", ".pyz", "") else name + extension

    def run(self) -> None:
        """Run it, and raise what it raises."""
        main = ModuleType("__main__")
        main.__dict__["__builtins__"] = builtins
        if sys.version_info < (3, 14):
            main.__annotations__ = {}
        sys.modules["__main__"] = main
        try:
            self._execute(main)
        except BaseException as error:
            show_without_our_frames()
            if isinstance(error, SystemExit):  # asyncio may log it later, as the exception of a task
                atexit.register(cut, error)
            raise

    def _execute(self, main: ModuleType) -> None:
        if self.kind == "module":
            sys.argv[:] = ["-m", *self.arguments]
            run_module(self.source, True)
        elif self.kind == "code":
            sys.argv[:] = ["-c", *self.arguments]
            _set_first_path("")
            main.__dict__["__loader__"] = BuiltinImporter
            run_code(_compiled(self.source), main.__dict__)
        else:
            self._execute_script(main)

    def _execute_script(self, main: ModuleType) -> None:
        sys.argv[:] = [self.source, *self.arguments]
        path = os.path.abspath(self.source)
        if pkgutil.get_importer(path) is not None:
            sys.path.insert(0, path) if sys.flags.safe_path else _set_first_path(path)
            run_module("__main__", False)
            return
        _set_first_path(os.path.dirname(os.path.realpath(path)))
        main.__dict__["__file__"] = path
        if sys.version_info < (3, 15):
            main.__dict__["__cached__"] = None
        main.__dict__["__loader__"] = SourceFileLoader("__main__", path)
        run_code(_read(path), main.__dict__)


def run_code(code: CodeType, namespace: dict[str, Any]) -> None:
    """Run code. The traceback of what it raises is shown from the frame after this one's."""
    exec(code, namespace)


def run_module(name: str, alter_argv: bool) -> None:
    """Run a module, as `python -m` does. The traceback of what it raises is shown from the frame after this one's."""
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


_LAST_OF_OURS = {run_code.__code__, run_module.__code__}


def show_without_our_frames() -> None:
    """Have the interpreter show the next traceback from the program's first frame on, by the program's own hook."""
    shown = getattr(sys, "excepthook", None)
    if shown is None:  # the program has deleted it
        return

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        sys.excepthook = shown
        sys.last_traceback = cut(error, traceback)
        try:
            shown(kind, error, sys.last_traceback)
        except BaseException as fault:
            fault.__traceback__ = fault.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
            raise

    sys.excepthook = excepthook


def cut(error: BaseException, traceback: TracebackType | None = None) -> TracebackType | None:
    """Leave in an exception's traceback what comes after our frames, and return that.

    None: the program's code cannot be compiled, and has no frame.
    """
    theirs = traceback or error.__traceback__
    while theirs is not None and theirs.tb_frame.f_code not in _LAST_OF_OURS:
        theirs = theirs.tb_next
    error.__traceback__ = theirs.tb_next if theirs is not None else None
    return error.__traceback__


def _set_first_path(path: str) -> None:
    """Put the program's folder where Python has put the one of `-m`. Python may be told to put none there."""
    if not sys.flags.safe_path:
        sys.path[0] = path


def _read(path: str) -> CodeType:
    """Return a script's code, from its source or compiled; end as Python does if it cannot be read."""
    try:
        with io.open_code(path) as file:
            content = file.read()
    except OSError as error:
        print(f"{sys.orig_argv[0]}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    if content.startswith(importlib.util.MAGIC_NUMBER):
        compiled: CodeType = marshal.loads(content[16:])
        return compiled
    return compile(content, path, "exec", dont_inherit=True)


def _compiled(text: str) -> CodeType:
    """Return the code of `-c`."""
    if sys.version_info >= (3, 14):
        text = textwrap.dedent(text)
    code = compile(text, "<string>", "exec", dont_inherit=True)
    if hasattr(linecache, "_register_code"):  # tracebacks show its lines since Python 3.13
        takes_code = hasattr(linecache, "_interactive_cache")  # since 3.14, and a later release of 3.13
        linecache._register_code(code if takes_code else "<string>", text, "<string>")
    return code
