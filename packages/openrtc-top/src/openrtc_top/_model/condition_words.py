"""The words that a condition may use: statuses, and the wire's fields of sessions and workers.

They are made from the messages and the table of columns, so a new field or column is a word at once.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from msgspec import Struct, structs

from openrtc_introspect_core.wire import SessionRow, Snapshot, WorkerInfo
from openrtc_top._model.columns import COLUMNS, Form
from openrtc_top._model.rows import STATUSES

Kind = Literal["number", "text", "truth"]
Value = float | str | None
"""A truth is 0 or 1. None: not known."""

_UNITS = ("_pct", "_ms", "_mb", "_s")
_TEXTS = (Form.TEXT, Form.STATUS)


class Subject(NamedTuple):
    """What a condition is asked about: one session of a worker, or the worker itself."""

    snapshot: Snapshot
    session: SessionRow | None
    """None: the worker itself. Of a session's fields none is known then."""
    counts: dict[int, int]
    """How many sessions fulfil a part of the condition, once it was counted."""


class Word(NamedTuple):
    """A word, and how its value is read."""

    kind: Kind
    read: Callable[[Subject], Value]
    values: tuple[str, ...] = ()
    """All that the text can be; empty for any."""
    constant: str | None = None
    """The text, if it is one that was given."""


@functools.cache
def words() -> dict[str, Word]:
    """Return each word that is accepted.

    If a status, a session's field and a worker's have one name, it is that of the first of these; `session.` and
    `worker.` before the name say which. The unit at the end of a name may be left out where that leaves no doubt.
    """
    sessions = _with_short_names({name: _of_session(*field) for name, field in _fields(SessionRow)})
    for column in COLUMNS:
        if column.wire is not None and column.value is not None:
            kind: Kind = "text" if column.form in _TEXTS else "number"
            sessions.setdefault(column.id, _of_session(kind, column.value))
    workers = _with_short_names({name: _of_worker(*field) for name, field in _fields(WorkerInfo)})
    workers["blocks_in_progress"] = Word("number", lambda subject: len(subject.snapshot.blocks_in_progress))
    found = {f"worker.{name}": word for name, word in workers.items()}
    found |= {f"session.{name}": word for name, word in sessions.items()}
    return found | workers | sessions | {status: Word("truth", _has(status)) for status in STATUSES}


def accepted() -> str:
    """Return what is accepted, in one line, each field by its whole name."""
    of_sessions = [name for name, _ in _fields(SessionRow) if name != "status"]
    of_workers = [name for name, _ in _fields(WorkerInfo)]
    return (
        f"accepted are the words {', '.join(STATUSES)}; of a session status, idle, {', '.join(of_sessions)}; "
        f"of its worker blocks_in_progress, {', '.join(of_workers)}"
    )


def _fields(
    kind: type[Struct], prefix: str = "", path: str = ""
) -> Iterator[tuple[str, tuple[Kind, attrgetter[Any], tuple[str, ...]]]]:
    """Yield the fields that are one value: each name, its kind, how it is read, and its `values`. Lists are none."""
    for field in structs.fields(kind):
        plain = _without_none(field.type)
        if isinstance(plain, type) and issubclass(plain, Struct):
            yield from _fields(plain, f"{prefix}{field.name}.", f"{path}{field.name}.")
        elif (what := _kind(plain)) is not None:
            values = typing.get_args(plain) if typing.get_origin(plain) is Literal else ()
            yield prefix + field.name, (what, attrgetter(path + field.name), values)


def _without_none(declared: Any) -> Any:
    if typing.get_origin(declared) in (typing.Union, types.UnionType):
        kept = [each for each in typing.get_args(declared) if each is not types.NoneType]
        return kept[0] if len(kept) == 1 else declared
    return declared


def _kind(declared: Any) -> Kind | None:
    if typing.get_origin(declared) is Literal or declared is str:
        return "text"
    if declared is bool:
        return "truth"
    return "number" if declared in (int, float) else None


def _of_session(kind: Kind, read: Callable[[Any], Any], values: tuple[str, ...] = ()) -> Word:
    return Word(kind, lambda subject: None if subject.session is None else read(subject.session), values)


def _of_worker(kind: Kind, read: Callable[[Any], Any], values: tuple[str, ...]) -> Word:
    def value(subject: Subject) -> Value:
        try:
            return read(subject.snapshot.worker)  # type: ignore[no-any-return]
        except AttributeError:  # a part that is null, such as `cgroup`
            return None

    return Word(kind, value, values)


def _with_short_names(found: dict[str, Word]) -> dict[str, Word]:
    """Add the names without their unit, if no other field could be meant."""
    short: dict[str, list[Word]] = {}
    for name, word in found.items():
        unit = next((unit for unit in _UNITS if name.endswith(unit)), None)
        if unit is not None:
            short.setdefault(name.removesuffix(unit), []).append(word)
    single = {name: meant[0] for name, meant in short.items() if len(meant) == 1}
    return single | found


def _has(status: str) -> Callable[[Subject], Value]:
    """Return whether a session has the status.

    A worker itself is blocked while something that is no session's holds its loop.
    """

    def has(subject: Subject) -> Value:
        if subject.session is not None:
            return subject.session.status == status
        if status == "blocked":
            return any(block.session_id is None for block in subject.snapshot.blocks_in_progress)
        return status == "draining" and subject.snapshot.worker.draining

    return has
