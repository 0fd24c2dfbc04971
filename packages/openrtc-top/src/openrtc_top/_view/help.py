"""The page of the key ?: what each key, column and mark means."""

from __future__ import annotations

import textwrap

from openrtc_top._model.columns import BY_ID, COLUMNS, CYCLE
from openrtc_top._view.line import Line, cells
from openrtc_top._view.style import BOLD, DIM

KEYS = (
    ("q  Ctrl-C", "quit; on a session's page and in the list of columns q goes back"),
    (
        "↑ ↓ PgUp PgDn Home End",
        "select or scroll; j k Ctrl-F Ctrl-B G too. The selection follows its session",
    ),
    ("Enter", "the selected session's page: its last minute, where it runs, its tasks, its blocks"),
    (
        "Esc  Backspace",
        "back to the table; there Esc clears the filter, the group or worker chosen, the selection",
    ),
    ("/", "filter as you type, by id, agent, tenant and kind of wait; Enter keeps it, Esc clears it"),
    ("f", "show all, active, slow, blocked, draining, errored in turn"),
    ("s", f"sort by {', '.join(BY_ID[name].title for name in CYCLE)} in turn; P M T: by cpu%, mem(MB), dur"),
    ("i", "turn the order round"),
    ("p", "pin the session to the top, whatever the order and the filter; again: let it go"),
    ("c", "choose the columns: Space switches one, J K move it, d brings back the defaults; remembered"),
    ("b", "the blocks, newest first; there Enter or t shows the selected one's stack"),
    ("w", "the workers; there Enter shows only the selected one's sessions, x takes one that is gone off"),
    (
        "g",
        "a line for each host, each agent, and back, the worst first; there Enter shows its sessions",
    ),
    ("W", "what sessions wait for, most first; there Enter shows who holds it and who waits, then their pages"),
    ("Space", "pause: this view stands still, the workers do not notice"),
    ("r", "ask the workers for a snapshot now"),
    ("?", "this page; as in htop, F1 h are ?, F2 c, F3 F4 \\ are /, F6 s, I i, F10 q"),
)
MARKS = (
    ("~", "an estimate: the number itself cannot be measured here"),
    ("≤", "an upper bound: at most so much"),
    ("n/a", "not known: this loop, platform or setting cannot tell"),
    ("MB", "1024 × 1024 bytes"),
    ("↻  →", "in a tree of tasks: waits in a ring; waits for one that is shown elsewhere"),
)


_NAME = 24
_NAME_NARROW = 11
_NARROW = 90


def help_page(width: int) -> list[Line]:
    """Return the lines of the page."""
    columns = [(column.title, column.meaning) for column in COLUMNS]
    lines: list[Line] = []
    for title, entries in (("keys", KEYS), ("columns", columns), ("marks", MARKS)):
        lines += [Line(), Line(f" {title}", BOLD)] if lines else [Line(f" {title}", BOLD)]
        for name, meaning in entries:
            lines += _entry(name, meaning, width)
    return [line.cropped(width) for line in lines]


def _entry(name: str, meaning: str, width: int) -> list[Line]:
    """Return a name and its meaning, wrapped below itself if it is too long."""
    indent = 2 + (_NAME if width >= _NARROW else _NAME_NARROW)
    wrapped = textwrap.wrap(meaning, max(10, width - indent))
    if 2 + cells(name) < indent:
        first = [Line(f"  {name}", DIM).add(" " * (indent - 2 - cells(name))).add(wrapped[0])]
        wrapped = wrapped[1:]
    else:
        first = [Line(f"  {name}", DIM)]
    return [*first, *(Line(" " * indent).add(text) for text in wrapped)]
