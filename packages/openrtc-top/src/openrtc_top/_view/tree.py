"""Tasks as a tree of lines: name, state, and await chain, innermost last."""

from __future__ import annotations

from collections.abc import Sequence

from openrtc_top._model.tree import Branch, Task, Tree
from openrtc_top._view.line import Line, cells, clip, fitted, visible
from openrtc_top._view.place import place
from openrtc_top._view.style import ACCENT, BAD, BOLD, DIM, PLAIN

MAX_DEPTH = 12
"""Below so many levels the guides stop growing, and the depth is given as a number."""

_STATE = 7
_MAX_NAME = 36
_MIN_NAME = 12
_THEN = " › "
_MAX_NAMED = 3
_MAX_PLACE, _SHORT_PLACE = 60, 30


def tree_lines(tree: Tree[Task], width: int | None) -> list[Line]:
    """Return a line for each task. Width None: a pipe, nothing is cut."""
    if not tree.branches:
        return [Line(" no tasks", DIM)]
    names = [_guides(branch) + name(branch.task) for branch in tree.branches]
    wide = max(map(cells, names))
    if width is not None:
        wide = min(wide, max(_MIN_NAME, min(_MAX_NAME, width // 3)))
    lines = [_line(branch, text, wide, width) for branch, text in zip(tree.branches, names, strict=True)]
    if tree.unplaced:
        lines.append(Line(f" … and {tree.unplaced} more tasks", DIM))
    return [line if width is None else line.cropped(width) for line in lines]


def name(task: Task) -> str:
    """Return the name that the task was given, else its coroutine's."""
    automatic = task.name.startswith("Task-") and task.name[5:].isdigit()
    return visible(task.coroutine if (automatic or not task.name) and task.coroutine else task.name)


def _names(tasks: Sequence[Task]) -> str:
    """Return the first few names."""
    listed = ", ".join(name(task) for task in tasks[:_MAX_NAMED])
    return listed if len(tasks) <= _MAX_NAMED else f"{listed} and {len(tasks) - _MAX_NAMED} more"


def _line(branch: Branch[Task], text: str, wide: int, width: int | None) -> Line:
    task = branch.task
    style = {"running": BOLD, "ready": ACCENT}.get(task.state, PLAIN)
    line = Line(" ").add(fitted(text, wide), style)
    line.add("  ").add(fitted(visible(task.state), _STATE), style if task.state != "waiting" else DIM)
    marks = [f"↻ waits for {_names(branch.ring)}: a ring"] if branch.ring else []
    marks += [f"→ {_names(branch.elsewhere)}, shown elsewhere"] if branch.elsewhere else []
    remarks = "  ".join(marks)
    room = None if width is None else max(0, width - line.width - 2 - (cells(remarks) + 2 if remarks else 0))
    where = _chain(task, room)
    if where:
        line.add("  ").add(where)
    if remarks:
        line.add("  ").add(remarks, BAD if branch.ring else DIM)
    return line


def _chain(task: Task, room: int | None) -> str:
    """Return the await chain, as much of its inner end as there is room for.

    Directories go before calls do: the innermost calls are often a library's, and the user's own stand before them.
    """
    if room is None:
        return _THEN.join(_parts(task, 10_000))
    shown, text = 0, ""
    for max_place in (_MAX_PLACE, _SHORT_PLACE):
        parts = _parts(task, max_place)
        for kept in range(len(parts), shown, -1):
            inner = ("" if kept == len(parts) else "…" + _THEN) + _THEN.join(parts[-kept:])
            if cells(inner) <= room:
                shown, text = kept, inner
                break
    if shown or not task.awaits:
        return text or clip(visible(task.waiting_on or ""), room)
    return clip(place(task.awaits[-1], room), room)


def _parts(task: Task, max_place: int) -> list[str]:
    places = [place(location, max_place) for location in task.awaits]
    return [*places, visible(task.waiting_on)] if task.waiting_on else places


def _guides(branch: Branch[Task]) -> str:
    if not branch.last:
        return ""
    depth = len(branch.last)
    shown = branch.last if depth <= MAX_DEPTH else branch.last[depth - 2 :]
    far = "" if depth <= MAX_DEPTH else f"{depth} levels down "
    return far + "".join("   " if last else "│  " for last in shown[:-1]) + ("└─ " if shown[-1] else "├─ ")
