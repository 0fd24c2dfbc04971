"""Agents in files: which files have one, and importing it, fresh each time.

A file is scanned before it is imported, so that helpers beside the agents are not run for nothing. An agent's file
becomes a module of the package `openrtc_agents`, so it can import its neighbours both ways: `import menu` and
`from .menu import dishes`. It is compiled from its source, never taken from a cache, which takes two versions of the
same second and size for one.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from openrtc_top._dev.entrypoint import WANTED, AgentError, Entrypoint

PACKAGE = "openrtc_agents"


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a file, by its source."""

    entrypoint_line: int | None
    """The line on which `entrypoint` gets its value. None: there is none."""
    livekit: bool
    """The file imports livekit and has classes of its own."""

    @property
    def may_be_agent(self) -> bool:
        return self.entrypoint_line is not None or self.livekit


def python_files(path: Path) -> list[Path]:
    """Return the file, or those in the folder, but not in folders below it."""
    return sorted(path.glob("*.py")) if path.is_dir() else [path]


def folder_of(path: Path) -> Path:
    """Return the folder, or the one that the file is in."""
    return path if path.is_dir() else path.parent


def scan(path: Path) -> Contents:
    """Return what the file defines, without running it. Raises AgentError."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        raise AgentError(f"{path}:{error.lineno or 1}: SyntaxError: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise AgentError(f"{path}: {error}") from None
    line, imports, classes = None, False, False
    for node in _top_level(tree):
        match node:
            case ast.FunctionDef(name="entrypoint") | ast.AsyncFunctionDef(name="entrypoint"):
                line = node.lineno
            case ast.Assign(targets=targets) if any(_is_entrypoint(target) for target in targets):
                line = node.lineno
            case ast.AnnAssign(target=target, value=ast.expr()) if _is_entrypoint(target):
                line = node.lineno
            case ast.ClassDef():
                classes = True
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                if any((each.asname or each.name) == "entrypoint" for each in names):
                    line = node.lineno
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in names]
                imports |= any(module.partition(".")[0] == "livekit" for module in modules)
    return Contents(line, imports and classes)


def _top_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements outside functions and classes."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.expr)):
            yield from _top_level(node)


def _is_entrypoint(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id == "entrypoint"


def load(path: Path) -> dict[str, Entrypoint]:
    """Import a file anew and return its agents, by name; it may have none.

    Raises AgentError.
    """
    contents = scan(path)
    if contents.entrypoint_line is None:
        from openrtc_top._dev.livekit import agents_of, installed

        return agents_of(import_file(path), path.stem) if contents.livekit and installed() else {}
    module = import_file(path)
    return {path.stem: _checked(getattr(module, "entrypoint", None), path, contents.entrypoint_line)}


def _checked(entrypoint: Any, path: Path, line: int) -> Entrypoint:
    if not (inspect.iscoroutinefunction(entrypoint) or inspect.iscoroutinefunction(getattr(entrypoint, "__call__", 0))):  # noqa: B004
        kind = "a function without `async`" if inspect.isfunction(entrypoint) else f"{entrypoint!r:.80}"
        raise AgentError(f"{path}:{line}: entrypoint must be {WANTED}, it is {kind}")
    try:
        inspect.signature(entrypoint).bind(None)
    except (TypeError, ValueError):
        raise AgentError(f"{path}:{line}: entrypoint must take one argument, the session: {WANTED}") from None
    checked: Entrypoint = entrypoint
    return checked


class _FromSource(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def import_file(path: Path) -> ModuleType:
    """Import the file anew and return its module.

    Raises AgentError; then the module before stays.
    """
    folder = path.resolve().parent
    _package(folder)
    name = f"{PACKAGE}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve(), loader=_FromSource(name, str(path.resolve())))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise AgentError(f"{_place(error, path, folder)}: {_message(error)}") from None
    return module


def _package(folder: Path) -> None:
    """Make the modules in the folder importable, with and without a dot."""
    package = sys.modules.get(PACKAGE)
    if package is None:
        package = sys.modules[PACKAGE] = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def forget_helpers(folder: Path, agents: set[Path]) -> None:
    """Forget the user's helper modules below the folder, to import them anew."""
    folder = folder.resolve()
    kept = {str(path.resolve()) for path in agents}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and file not in kept and Path(file).is_relative_to(folder) and _is_users(name, Path(file)):
            del sys.modules[name]


def _is_users(name: str, file: Path) -> bool:
    """Return whether the module is the user's.

    Installed modules and this program's may be below the folder as well.
    """
    installed = "site-packages" in file.parts or any(file.is_relative_to(p) for p in (sys.prefix, sys.base_prefix))
    own = ("__main__", "openrtc_top", "openrtc_introspect_core", "openrtc_introspect_testing")
    return not installed and name.partition(".")[0] not in own


def _place(error: BaseException, path: Path, folder: Path) -> str:
    """Return the innermost line in the agents' folder, as the user wrote its path."""
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    else:
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(folder)
        ]
        if not frames:
            return str(path)
        file, line = frames[-1].filename, frames[-1].lineno
    if Path(file).is_relative_to(folder):
        file = str(path.parent / Path(file).relative_to(folder))
    return f"{file}:{line or 1}"


def _message(error: BaseException) -> str:
    """Return the error in one line."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(f"{type(error).__name__}: {text}".split()).removesuffix(":")
