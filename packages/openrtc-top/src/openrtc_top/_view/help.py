"""The page that `?` shows: what each key does and what each column means."""

from __future__ import annotations

from openrtc_top._view.line import Line
from openrtc_top._view.style import BOLD, DIM

_KEYS = (
    ("q  Ctrl-C", "quit"),
    ("r", "ask the workers for a snapshot now"),
    ("s", "sort by mem(MB), cpu%, dur, agent, session in turn"),
    ("i", "turn the order round"),
    ("f", "show all, active, slow, blocked, draining, errored in turn"),
    ("b", "the blocks of the workers, newest first; there Enter or t shows the selected one's stack"),
    ("↑ ↓ PgUp PgDn Home End", "select a session or a block; the selection follows it"),
    ("Esc", "select none, close this page or the blocks"),
    ("?", "this page"),
)
_COLUMNS = (
    ("dur", "since the session began"),
    ("cpu%", "share of the loop's time over the last second or two; 100 is the whole loop"),
    ("mem(MB)  peak", "an equal share of the process's memory, not the session's own; its highest"),
    ("heap", "the session's own net allocations, where the worker measures them"),
    ("status", "BLOCKED holds the loop now; SLOW did within the last seconds"),
    ("blocks  worst", "how often it held the loop too long, and the longest"),
    ("delayed", "how long the blocks of others kept it waiting; of a block: whom it kept waiting"),
    ("n/a  ~  ≤", "not known; an estimate; at most"),
)


def help_page(width: int) -> list[Line]:
    """The lines of the page."""
    lines = [Line(" keys", BOLD)]
    lines += [_entry(name, meaning) for name, meaning in _KEYS]
    lines += [Line(), Line(" columns", BOLD)]
    lines += [_entry(name, meaning) for name, meaning in _COLUMNS]
    return [line.cropped(width) for line in lines]


def _entry(name: str, meaning: str) -> Line:
    return Line(f"  {name:<24}", DIM).add(meaning)
