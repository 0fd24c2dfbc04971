"""Tasks as a tree of lines: name, state, and where each one waits, the innermost place last."""

from __future__ import annotations

from collections.abc import Sequence

from openrtc_top._tree import Branch, Task, Tree
from openrtc_top._view.line import Line, cells, clip, fitted, visible
from openrtc_top._view.place import place
from openrtc_top._view.style import ACCENT, BAD, BOLD, DIM, PLAIN

DEEPEST = 12
"""Below this many levels the guides stop growing, and the depth is told as a number."""

_STATE = 7
_NAME_MOST = 36
_NAME_LEAST = 12
_THEN = " › "
_NAMED_MOST = 3
_PLACE_MOST = 60


def tree_lines(tree: Tree[Task], width: int | None) -> list[Line]:
    """A line for each task. None: a pipe, nothing is cut."""
    if not tree.branches:
        return [Line(" no tasks", DIM)]
    names = [_guides(branch) + name(branch.task) for branch in tree.branches]
    wide = max(map(cells, names))
    if width is not None:
        wide = min(wide, max(_NAME_LEAST, min(_NAME_MOST, width // 3)))
    lines = [_line(branch, text, wide, width) for branch, text in zip(tree.branches, names, strict=True)]
    if tree.left_out:
        lines.append(Line(f" … and {tree.left_out} more tasks", DIM))
    return [line if width is None else line.cropped(width) for line in lines]


def name(task: Task) -> str:
    """What tells it best: the name it was given, else its coroutine's."""
    automatic = task.name.startswith("Task-") and task.name[5:].isdigit()
    return visible(task.coroutine if (automatic or not task.name) and task.coroutine else task.name)


def _names(tasks: Sequence[Task]) -> str:
    """The first few names."""
    told = ", ".join(name(task) for task in tasks[:_NAMED_MOST])
    return told if len(tasks) <= _NAMED_MOST else f"{told} and {len(tasks) - _NAMED_MOST} more"


def _line(branch: Branch[Task], text: str, wide: int, width: int | None) -> Line:
    task = branch.task
    style = {"running": BOLD, "ready": ACCENT}.get(task.state, PLAIN)
    line = Line(" ").add(fitted(text, wide), style)
    line.add("  ").add(fitted(visible(task.state), _STATE), style if task.state != "waiting" else DIM)
    marks = [f"↻ waits for {_names(branch.ring)}: a ring"] if branch.ring else []
    marks += [f"→ {_names(branch.elsewhere)}, shown elsewhere"] if branch.elsewhere else []
    told = "  ".join(marks)
    room = None if width is None else max(0, width - line.width - 2 - (cells(told) + 2 if told else 0))
    where = _chain(task, room)
    if where:
        line.add("  ").add(where)
    if told:
        line.add("  ").add(told, BAD if branch.ring else DIM)
    return line


def _chain(task: Task, room: int | None) -> str:
    """The await chain, as much of its inner end as there is room for."""
    awaits: Sequence[str] = [place(location, _PLACE_MOST if room is not None else 10_000) for location in task.awaits]
    parts = [*awaits, visible(task.waiting_on)] if task.waiting_on else list(awaits)
    text = _THEN.join(parts)
    if room is None or cells(text) <= room:
        return text
    for kept in range(len(parts) - 1, 0, -1):
        text = "…" + _THEN + _THEN.join(parts[-kept:])
        if cells(text) <= room:
            return text
    if task.awaits:
        return clip(place(task.awaits[-1], room), room)
    return clip(parts[-1], room)


def _guides(branch: Branch[Task]) -> str:
    if not branch.last:
        return ""
    depth = len(branch.last)
    shown = branch.last if depth <= DEEPEST else branch.last[depth - 2 :]
    far = "" if depth <= DEEPEST else f"{depth} levels down "
    return far + "".join("   " if last else "│  " for last in shown[:-1]) + ("└─ " if shown[-1] else "├─ ")
