"""The effects of keys: `handle_key(state, key) -> state`.

Pages lie over views like sheets of paper: the topmost one is asked first, then the keys that mean
the same everywhere. A sheet swallows the keys of the view that it covers, since their effect could not be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from openrtc_top._model.block_list import BlockList
from openrtc_top._model.chooser import open_chooser
from openrtc_top._model.columns import CYCLE, SORTS
from openrtc_top._model.cursor import Cursor, Scroll
from openrtc_top._model.groups import GROUPINGS
from openrtc_top._model.page import SessionPage
from openrtc_top._model.rows import STATUSES
from openrtc_top._model.state import State
from openrtc_top._model.wait_list import WaitList
from openrtc_top._model.workers import without_dismissed

MAX_FILTER_LENGTH = 200
"""Characters."""
BACK = ("escape", "backspace")

ALIASES = {"f1": "?", "h": "?", "f2": "c", "f3": "/", "f4": "/", "\\": "/", "f6": "s", "I": "i", "f10": "q"}
"""The same keys as in htop, for hands that know it."""

Action = Callable[[State], State]


def handle_key(state: State, key: str) -> State:
    """Return the state after a key."""
    if state.notice:
        state = replace(state, notice="")
    if key == "ctrl-c":
        return replace(state, done=True)
    if not state.editing:
        key = ALIASES.get(key, key)
    after = _topmost(state)(state, key)
    if after is not None:
        return after
    action = _EVERYWHERE.get(key)
    return action(state) if action else state


def _topmost(state: State) -> Callable[[State, str], State | None]:
    if state.editing:
        return _edit
    if state.help is not None:
        return _help
    if state.chooser is not None:
        return _choose
    if state.page is not None:
        return _read
    return {"sessions": _table, "blocks": _blocks, "workers": _fleet, "waits": _waits}[state.view]


# --- the table -----------------------------------------------------------------------------------


def _table(state: State, key: str) -> State | None:
    if state.lists_groups:
        return _groups(state, key)
    if key == "g":  # elsewhere it goes to the top
        return _cycle_grouping(state)
    moved = state.table.handle_key(key, [row.identity for row in state.rows])
    if moved is not None:
        return replace(state, table=moved, sticky_selection=moved.chosen)
    action = _TABLE.get(key)
    return action(state) if action else None


def _sort(name: str) -> Action:
    return lambda state: replace(state, sort=SORTS[name], inverted=False).derived()


def _cycle_sort(state: State) -> State:
    name = state.sort.name
    return _sort(CYCLE[(CYCLE.index(name) + 1) % len(CYCLE)] if name in CYCLE else CYCLE[0])(state)


def _cycle_status(state: State) -> State:
    choices = (None, *STATUSES)
    following = choices[(choices.index(state.filter.status) + 1) % len(choices)]
    return replace(state, filter=replace(state.filter, status=following)).derived()


def _pin(state: State) -> State:
    state = _selecting(state)
    return state if state.selected is None else _toggle_pin(state, state.selected)


def _toggle_pin(state: State, identity: tuple[str, str]) -> State:
    return replace(state, pins=state.pins ^ {identity}).derived()


def _open(state: State) -> State:
    state = _selecting(state)
    if state.selected is None:
        return state
    row = state.rows[state.selected_at]
    return _asking(replace(state, page=SessionPage(row.worker, row.session)))


def _selecting(state: State) -> State:
    """Select the first row in sight, if none is selected."""
    if state.selected is not None:
        return state
    table = state.table.select([row.identity for row in state.rows], state.table.top)
    return replace(state, table=table, sticky_selection=table.chosen)


def _step_back(state: State) -> State:
    """Undo one thing: the filter's text, the choice of a group or a worker, or the selection."""
    if state.filter.text:
        return replace(state, filter=replace(state.filter, text="")).derived()
    if state.group is not None:
        return replace(state, group=None).derived()
    if state.only is not None:
        return replace(state, only=None).derived()
    return replace(state, table=replace(state.table, chosen=None), sticky_selection=None)


_TABLE: dict[str, Action] = {
    "s": _cycle_sort,
    "P": _sort("cpu_pct"),
    "M": _sort("mem_mb"),
    "T": _sort("duration_s"),
    "f": _cycle_status,
    "i": lambda state: replace(state, inverted=not state.inverted).derived(),
    "/": lambda state: replace(state, editing=True),
    "p": _pin,
    "c": lambda state: replace(state, chooser=open_chooser(state.columns)),
    "enter": _open,
    "escape": _step_back,
}


def _cycle_grouping(state: State) -> State:
    following = GROUPINGS[(GROUPINGS.index(state.grouping) + 1) % len(GROUPINGS)]
    return replace(state, grouping=following, group=None, group_list=Cursor()).derived()


def _groups(state: State, key: str) -> State | None:
    """Take a key in the list of groups."""
    if key == "g":
        return _cycle_grouping(state)
    names = [group.name for group in state.groups]
    moved = state.group_list.handle_key(key, names)
    if moved is not None:
        return replace(state, group_list=moved)
    if key == "enter":
        index = state.group_list.index(names)
        chosen = state.group_list.select(names, state.group_list.top if index is None else index)
        opened = replace(state, group=chosen.chosen, group_list=chosen, table=Cursor(), sticky_selection=None)
        return opened.derived()
    if key == "escape" and not state.filter.text and state.only is None:
        return replace(state, grouping=None).derived()
    return _TABLE[key](state) if key in ("/", "f", "escape") else state if key in _TABLE else None


def _edit(state: State, key: str) -> State:
    """Type the filter's text; the table follows each letter."""
    text = state.filter.text
    if key == "enter":
        return replace(state, editing=False)
    if key == "escape":
        text, state = "", replace(state, editing=False)
    elif key == "backspace":
        text = text[:-1]
    elif key == "ctrl-u":
        text = ""
    elif key == "ctrl-w":
        text = text.rstrip()
        text = text[: text.rfind(" ") + 1]
    elif key == "space" or (len(key) == 1 and key.isprintable()):
        text = (text + (" " if key == "space" else key))[:MAX_FILTER_LENGTH]
    elif len(key) > 1 and state.lists_groups:
        return _groups(state, key) or state
    elif len(key) > 1 and (moved := state.table.handle_key(key, [row.identity for row in state.rows])):
        return replace(state, table=moved, sticky_selection=moved.chosen)
    if text == state.filter.text:
        return state
    return replace(state, filter=replace(state.filter, text=text)).derived()


# --- what takes its place, or lies over it ---------------------------------------------------------


def _blocks(state: State, key: str) -> State | None:
    listed = state.blocks.handle_key(key, state.entries())
    if listed is not None:
        return replace(state, blocks=listed)
    if key in (*BACK, "b"):
        return replace(state, view="sessions")
    return state if key in _TABLE else None


def _waits(state: State, key: str) -> State | None:
    found = state.waits()
    if key == "enter" and state.wait_list.group(found) is not None:
        return _open_waiting(state, state.wait_list.session(found))
    listed = state.wait_list.handle_key(key, found)
    if listed is not None:
        return replace(state, wait_list=listed)
    if key in (*BACK, "W"):
        return replace(state, view="sessions")
    return state if key in _TABLE else None


def _open_waiting(state: State, identity: tuple[str, str] | None) -> State:
    """Open the page of a holder's or waiter's session."""
    if identity is None:
        return replace(state, notice="it belongs to no session, which has no page")
    key, session_id = identity
    worker = state.worker(key)
    sessions = worker.snapshot.sessions if worker is not None and worker.snapshot is not None else ()
    row = next((session for session in sessions if session.session_id == session_id), None)
    if row is None:
        return replace(state, notice=f"{session_id} has ended")
    return _asking(replace(state, page=SessionPage(key, row)))


def _fleet(state: State, key: str) -> State | None:
    keys = [worker.key for worker in state.workers]
    moved = state.fleet.handle_key(key, keys)
    if moved is not None:
        return replace(state, fleet=moved)
    if key in (*BACK, "w"):
        return replace(state, view="sessions")
    index = state.fleet.index(keys)
    if key in ("enter", "x"):
        if index is None:
            return replace(state, fleet=state.fleet.select(keys, state.fleet.top))
        if key == "enter":
            return replace(state, view="sessions", only=keys[index]).derived()
        return _dismiss(state, keys[index])
    return state if key in _TABLE else None


def _dismiss(state: State, key: str) -> State:
    """Take a worker that is gone off the list, for after a pause as well."""
    workers = without_dismissed(state.workers, key)
    if workers is state.workers:
        return state
    if state.live_workers is not None:
        state = replace(state, live_workers=without_dismissed(state.live_workers, key))
    return state.showing(workers)


def _read(state: State, key: str) -> State | None:
    page = state.page
    assert page is not None
    scroll = page.scroll.handle_key(key)
    if scroll is not None:
        return replace(state, page=replace(page, scroll=scroll))
    if key in (*BACK, "q", "enter"):
        return replace(state, page=None)
    if key == "p":
        return _toggle_pin(state, page.identity)
    return state if key in _TABLE else None


def _choose(state: State, key: str) -> State | None:
    assert state.chooser is not None
    if key in (*BACK, "q", "c", "enter"):
        return replace(state, chooser=None)
    listed, columns = state.chooser.handle_key(key, state.columns)
    if listed is state.chooser and columns is state.columns:
        return None if key in ("r", "?", "b", "w", "W") else state
    return replace(state, chooser=listed, columns=columns)


def _help(state: State, key: str) -> State | None:
    assert state.help is not None
    scrolled = state.help.handle_key(key)
    if scrolled is not None:
        return replace(state, help=scrolled)
    if key in (*BACK, "enter"):
        return replace(state, help=None)
    return None if key in _EVERYWHERE else state


# --- everywhere ----------------------------------------------------------------------------------


def _pause(state: State) -> State:
    if state.live_workers is None:
        return replace(state, live_workers=state.workers, paused_at=state.now)
    return _asking(replace(state, live_workers=None).showing(state.live_workers))


def _asking(state: State) -> State:
    """Ask the workers now instead of at the next interval."""
    return replace(state, refreshes=state.refreshes + 1)


def _over_to(state: State, view: str) -> State:
    bare = replace(state, page=None, chooser=None, help=None)
    if view == "blocks":
        return replace(bare, view="blocks", blocks=BlockList())
    if view == "waits":
        return _asking(replace(bare, view="waits", wait_list=WaitList()))
    return replace(bare, view="workers")


_EVERYWHERE: dict[str, Action] = {
    "q": lambda state: replace(state, done=True),
    "r": _asking,
    "space": _pause,
    "?": lambda state: replace(state, help=Scroll() if state.help is None else None),
    "b": lambda state: _over_to(state, "blocks"),
    "w": lambda state: _over_to(state, "workers"),
    "W": lambda state: _over_to(state, "waits"),
}
