"""From the frames of a stack to locations, and which are in the user's code.

Taking the stack of another thread is cheap: only names and line numbers are kept. How a file is shown, and whether it
is the user's, are worked out afterwards, once for each block.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, CO_ITERABLE_COROUTINE
from opcode import opmap
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

import msgspec

from .._base.gil import has_gil
from ..wire._messages import Location

MAX_FRAMES = 64
"""The maximum number of frames taken of a stack, from the innermost outwards."""

AWAITING = CO_COROUTINE | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE | CO_GENERATOR
"""Flags of code whose frames may await a coroutine."""

_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


_RESUME, _SEND = opmap["RESUME"], opmap["SEND"]
_IMPORT = "<frozen importlib._bootstrap>", "_find_and_load"
"""The file and the function that import a module."""


class Call(NamedTuple):
    """One frame of a stack, as it was at one moment. Equal calls are of the same place, whoever took them."""

    file: str
    """As the code has it: `co_filename`."""
    line: int
    function: str
    """Its qualified name."""
    module: str | None = None
    """The module that is being imported, if this call is the import system's. None: it is another call."""


class CompiledCall(Call):
    """A call of compiled code, which has no frame.

    Its line is the one where the function begins. Without a file, neither is known.
    """

    __slots__ = ()


class AwaitingCall(Call):
    """A call that awaits compiled code: nothing further in has a frame."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is AwaitingCall and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = Call.__hash__


Function = tuple[str, str]
"""The file and the qualified name of a function, as its code has them."""

Calls = tuple[Call, ...]
"""A stack, innermost call first."""


class Seen(NamedTuple):
    """A frame as it was at one moment: it goes on as soon as its thread has the GIL."""

    frame: FrameType
    line: int | None
    instruction: int
    """The index of the one that it was at; -1: it has not begun."""


class Walk(NamedTuple):
    """The frames of a thread from the innermost outwards, as they were at one moment."""

    frames: Sequence[Seen]
    end: FrameType | None
    """The frame at which they end. None: it was not found."""


def call_of(frame: FrameType) -> Call:
    """Return the call that a frame stands for."""
    return _call_of(Seen(frame, frame.f_lineno, frame.f_lasti))


def _call_of(seen: Seen) -> Call:
    frame, code = seen.frame, seen.frame.f_code
    module = frame.f_locals.get("name") if code.co_filename == _IMPORT[0] and code.co_name == _IMPORT[1] else None
    return Call(code.co_filename, seen.line or code.co_firstlineno, code.co_qualname, module)


def frames_now() -> dict[int, FrameType]:
    """Return the innermost frame of each thread by its id.

    Without a GIL it has the calling thread alone. Who keeps this in a variable deletes that before returning: it has
    the caller's own frame, which would keep it, and all that any thread's variables hold, until a collection.
    """
    return sys._current_frames() if has_gil() else {threading.get_ident(): sys._getframe(1)}


def frames_of_others() -> dict[int, FrameType]:
    """Return the innermost frame of each thread but the calling one, by its id. Without a GIL there are none."""
    frames = frames_now()
    del frames[threading.get_ident()]
    return frames


def walk(
    frame: FrameType | None, ends: Collection[CodeType], *, in_c: bool = False, beyond: Iterable[FrameType] = ()
) -> Walk:
    """Return the frames from `frame` outwards, up to one of `ends`.

    It does as little as it can: another thread may take the GIL at any moment, and go on.

    ends, in_c, beyond: as for `take`.
    """
    found: list[Seen] = []
    for each in outwards(frame, beyond):
        if each.f_code in ends:
            return Walk(found, each)
        if not in_c and len(found) == MAX_FRAMES:
            break
        found.append(Seen(each, each.f_lineno, each.f_lasti))
    return Walk(found, None)


def outwards(frame: FrameType | None, beyond: Iterable[FrameType]) -> Iterator[FrameType]:
    """Yield a frame and those further out. beyond: as for `take`."""
    parents = iter(beyond)
    while frame is not None:
        yield frame
        frame = frame.f_back or next(parents, None)


def own_part(walked: Walk, *, in_c: bool, outermost: FrameType | None = None) -> Sequence[Seen]:
    """Return the frames that are a task's or a callback's own. in_c, outermost: as for `take`."""
    frames = [seen.frame for seen in walked.frames]
    return walked.frames[: _number_of_own(frames, in_c=in_c and walked.end is None, outermost=outermost)]


def _number_of_own(frames: Sequence[FrameType], *, in_c: bool, outermost: FrameType | None = None) -> int:
    """Return how many frames are a task's own. in_c: others may be further out."""
    own = MAX_FRAMES
    unawaited = flags = 0
    for number, frame in enumerate(frames):
        code = frame.f_code
        if not unawaited and flags & CO_COROUTINE and not code.co_flags & AWAITING:
            unawaited = number
        flags = code.co_flags
        if frame is outermost:
            own = unawaited = min(number + 1, MAX_FRAMES)
    return min(unawaited, own) if in_c else own


def step_frames(
    frame: FrameType | None, ends: Collection[CodeType], *, beyond: Iterable[FrameType] = ()
) -> tuple[list[FrameType], FrameType | None]:
    """Return the frames of a task's or a callback's own from `frame` outwards, and the frame that they end at.

    The code that drives tasks may be C. ends, beyond: as for `take`.
    """
    frames: list[FrameType] = []
    for each in outwards(frame, beyond):
        if each.f_code in ends:
            return frames[:MAX_FRAMES], each
        frames.append(each)
    return frames[: _number_of_own(frames, in_c=True)], None


def take(
    frame: FrameType | None,
    ends: Collection[CodeType],
    *,
    in_c: bool = False,
    gil_kept: bool = False,
    called_from_c: bool = False,
    outermost: FrameType | None = None,
    beyond: Iterable[FrameType] = (),
) -> tuple[list[Call], FrameType | None]:
    """Return the calls from `frame` outwards, and the frame that they end at.

    The innermost call comes first.

    ends: the code at which a task's stack ends. The frame of it is returned, or None if there is none.
    in_c: the code that drives tasks may be C, and then has no frame. If none of `ends` is found, the calls end at a
    coroutine that no coroutine awaits; without one there are none, as all may be further out.
    gil_kept: the thread has kept the GIL for long and has just been made to give it. C code gives it away at the next
    instruction that looks, which may be the first one of a Python function that was called afterwards, or of a
    generator that goes on after a `yield`. That function has done nothing yet, so the calls begin at its caller.
    called_from_c: the outermost function may have been called by C code, and not by the loop. So it counts no more than
    the others if it has done nothing yet.
    outermost: the frame of the task's own coroutine: the calls end with it. None: it is not known, or there is none.
    beyond: the frames at which the calls go on where there is no frame further out: those of a greenlet's parents.
    """
    walked = walk(frame, ends, in_c=in_c, beyond=beyond)
    own = own_part(walked, in_c=in_c, outermost=outermost)
    return calls_of(own, gil_kept=gil_kept, called_from_c=called_from_c), walked.end


def calls_of(own: Sequence[Seen], *, gil_kept: bool = False, called_from_c: bool = False) -> list[Call]:
    """Return the calls of a task's or a callback's own frames. gil_kept, called_from_c: as for `take`."""
    untouched = 0
    while gil_kept and untouched < len(own) and _is_at(own[untouched], _RESUME):
        untouched += 1
    if untouched == len(own) and not called_from_c:
        untouched = max(0, untouched - 1)
    calls = [_call_of(each) for each in own[untouched:]]
    if calls and _is_at(own[untouched], _SEND):
        calls[0] = AwaitingCall(*calls[0])
    return calls


def is_at_resume(frame: FrameType) -> bool:
    """Return whether a frame is at the instruction with which a function begins, or a generator goes on."""
    return _is_at(Seen(frame, None, frame.f_lasti), _RESUME)


def _is_at(seen: Seen, instruction: int) -> bool:
    at, code = seen.instruction, seen.frame.f_code.co_code  # compiled code that has frames may have no instructions
    return 0 <= at < len(code) and code[at] == instruction


def task_part(
    frames: Sequence[tuple[str, int, str]], ends: Collection[CodeType], sample: Calls, *, unbounded: bool = False
) -> Calls:
    """Return what `take` would have returned for frames that were read without the GIL.

    frames: (file, line, function), innermost first. ends: as for `take`. sample: the calls of another sample of the
    same task; empty: there is none. The calls end at the same function. Where the frames of a greenlet end, they go on
    like the sample. unbounded: whether frames without any of these ends may all be further out.
    """
    names = {(code.co_filename, code.co_qualname) for code in ends}
    calls: list[Call] = []
    ended = False
    for file, line, function in frames[:MAX_FRAMES]:
        if (file, function) in names:
            ended = True
            break
        # The name of the module is in the frame's variables, which cannot be read without the GIL.
        calls.append(Call(file, line, function, "" if (file, function) == _IMPORT else None))
    if sample and calls:
        if (same := _last_of(sample[-1], calls)) is not None:
            return tuple(calls[: same + 1])
        if not ended and (same := _last_of(calls[-1], sample)) is not None:
            return (*calls, *sample[same + 1 :])[:MAX_FRAMES]
    return () if unbounded and not ended else tuple(calls)


def _last_of(call: Call, calls: Sequence[Call]) -> int | None:
    """Return the position of the outermost call of the same function. None: there is none."""
    same = (n for n in reversed(range(len(calls))) if (calls[n].file, calls[n].function) == (call.file, call.function))
    return next(same, None)


class Folders(msgspec.Struct, frozen=True, kw_only=True):
    """The folders that a process takes its code from, each with a separator at its end."""

    roots: tuple[str, ...] | None = None
    """Those of the user's own code. Null: all but the standard library and installed packages is the user's."""
    cwd: str = ""
    """The working directory."""
    installed: tuple[str, ...] = ()
    """Those of installed packages, the longest path first."""
    stdlib: tuple[str, ...] = ()
    """Those of the standard library."""
    own: str = ""
    """This package's."""


class Places:
    """A converter from calls to locations.

    roots: folders of the user's own code. None: all files but the standard library's and installed packages'.
    folders: those of another process, whose calls are converted. None: this process's.
    """

    def __init__(self, roots: Sequence[str | os.PathLike[str]] | None = None, folders: Folders | None = None) -> None:
        self._roots = None if roots is None else tuple(_folder(root) for root in roots)
        self._cwd = _folder(Path.cwd()) if folders is None else ""
        self._folders = folders
        self.is_users = lru_cache(maxsize=4096)(self._is_users)
        self.shown = lru_cache(maxsize=4096)(self._shown)

    @property
    def folders(self) -> Folders:
        """Return the folders that files are compared with; they are looked up once."""
        if self._folders is None:
            self._folders = Folders(
                roots=self._roots, cwd=self._cwd, installed=_installed(), stdlib=_stdlib(), own=_OWN
            )
        return self._folders

    def stack(self, calls: Sequence[Call]) -> list[Location]:
        """Return the locations of a stack without this package's, and those of no file; the innermost last."""
        return [self.location(call) for call in reversed(calls) if call.file and not call.file.startswith(_OWN)]

    def location(self, call: Call) -> Location:
        """Return the location of a call.

        Its file is relative to a root, the working directory or an import path.
        """
        return Location(file=self.shown(call.file), line=call.line, function=call.function)

    def innermost(self, calls: Sequence[Call]) -> Call | None:
        """Return the innermost call in the user's own code, else the innermost, of those that have a file.

        Returns None if there are none.
        """
        others = [call for call in calls if call.file and not call.file.startswith(_OWN)]
        return next((call for call in others if self.is_users(call.file)), others[0] if others else None)

    def is_own(self, file: str) -> bool:
        """Return whether a file is this package's."""
        own = self.folders.own
        return bool(own) and file.startswith(own)

    def _is_users(self, file: str) -> bool:
        folders = self.folders
        if self.is_own(file):
            return False
        if folders.roots is not None:
            return self._absolute(file).startswith(folders.roots)
        if file.startswith("<"):  # <frozen importlib._bootstrap>, <string>
            return not file.startswith("<frozen ")
        return not self._absolute(file).startswith((*folders.installed, *folders.stdlib))

    def _shown(self, file: str) -> str:
        if file.startswith("<"):
            return file
        folders, path = self.folders, self._absolute(file)
        for folder in (*(folders.roots or ()), folders.cwd, *folders.installed, *folders.stdlib):
            if path.startswith(folder):
                return path[len(folder) :]
        return path

    def _absolute(self, file: str) -> str:
        return os.path.normpath(os.path.join(self.folders.cwd, file))

    @staticmethod
    def load() -> None:
        """Look up the installation's folders now, instead of at the first block."""
        _installed()
        _stdlib()


def _folder(path: str | os.PathLike[str]) -> str:
    return os.path.join(os.path.abspath(path), "")


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages()}
    return tuple(sorted((_folder(folder) for folder in folders), key=len, reverse=True))


@lru_cache(maxsize=1)
def _stdlib() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({_folder(paths["stdlib"]), _folder(paths["platstdlib"]), _folder(os.path.dirname(os.__file__))})
