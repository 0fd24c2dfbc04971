"""The effects of events: `reduce(state, event) -> state`, without any I/O.

Frames, keys and the clock all arrive as events, so the live view, tests and a replayed recording take the same
way. `update_workers` is the part that a recording needs: what becomes of the workers, whatever the view shows.
"""

from __future__ import annotations

from dataclasses import replace

from openrtc_top._model import workers as fleet
from openrtc_top._model.box_reading import DeadHere
from openrtc_top._model.cursor import Cursor, Scroll
from openrtc_top._model.events import (
    Blocked,
    Died,
    Dropped,
    Event,
    Found,
    Frame,
    Gone,
    Inspected,
    Key,
    Listed,
    Noticed,
    Shown,
    Surveyed,
    Tick,
    Unanswered,
)
from openrtc_top._model.keymap import handle_key
from openrtc_top._model.state import State
from openrtc_top._model.workers import Workers


def reduce(state: State, event: Event) -> State:
    """Return the state after the event, with all that follows from it."""
    return take_in(state, event).derived_anew()


def take_in(state: State, event: Event) -> State:
    """Return the state after the event, whose rows may be stale after news of workers.

    Of many workers, several send news between two screens. Rows are made once for all of it, by `derived_anew`.
    """
    match event:
        case Key(name):
            return handle_key(state.derived_anew(), name)
        case Shown(top, page_rows):
            return _shown(state, top, page_rows)
        case Listed(problem):
            return replace(state, listing=problem)
        case Tick(now):
            state = replace(state, now=now)
        case Noticed(text):
            return replace(state, notice=text)
        case Inspected(worker, session_id, inspection):
            if state.page is None or state.page.identity != (worker, session_id):
                return state
            return replace(state, page=replace(state.page, inspection=inspection))
        case Died():
            return _with_dead(state, event)
    before = state.workers if state.live_workers is None else state.live_workers
    workers = update_workers(before, event, state.now)
    if workers is before:
        return state
    if state.live_workers is not None:
        return replace(state, live_workers=workers)
    if isinstance(event, (Blocked, Surveyed)):  # no row follows from these
        return replace(state, workers=workers)
    return state.with_workers(workers)


def update_workers(workers: Workers, event: Event, now: float) -> Workers:
    """Return the workers after the event; the same object if it changes none of them."""
    match event:
        case Frame(key, snapshot):
            return fleet.with_snapshot(workers, key, snapshot, now)
        case Blocked(key, blocks):
            return fleet.with_blocks(workers, key, blocks)
        case Surveyed(key, survey):
            return fleet.with_survey(workers, key, survey)
        case Unanswered(key, reading):
            return fleet.with_reading(workers, key, reading, now)
        case Gone(key, reason, retry_s):
            return fleet.with_lost(workers, key, reason, retry_s, now)
        case Found(key, name, pid, host):
            return fleet.with_found(workers, key, name, pid, host)
        case Dropped(key):
            return fleet.without(workers, key)
        case Tick():
            return fleet.without_long_gone(workers, now)
    return workers


def _with_dead(state: State, died: Died) -> State:
    """Take in the workers that died on one machine, those that died last first."""
    listed = [each for each in state.dead if each.host != died.host]
    listed += [DeadHere(died.host, each, died.via) for each in died.dead]
    listed.sort(key=lambda each: each.worker.age_s)
    return state if tuple(listed) == state.dead else replace(state, dead=tuple(listed))


def _shown(state: State, top: int, page_rows: int) -> State:
    """Remember for whatever lies on top which part of it was drawn."""
    if state.help is not None:
        help = Scroll(top, page_rows)
        return state if help == state.help else replace(state, help=help)
    if state.chooser is not None:
        chooser = replace(state.chooser, cursor=_drawn(state.chooser.cursor, top, page_rows))
        return state if chooser == state.chooser else replace(state, chooser=chooser)
    if state.page is not None:
        scroll = Scroll(top, page_rows)
        return state if scroll == state.page.scroll else replace(state, page=replace(state.page, scroll=scroll))
    if state.view == "blocks":
        cursor = _drawn(state.blocks.cursor, top, page_rows)
        unchanged = cursor is state.blocks.cursor
        return state if unchanged else replace(state, blocks=replace(state.blocks, cursor=cursor))
    if state.view == "waits":
        return _waits_shown(state, top, page_rows)
    if state.view == "workers":
        listed = _drawn(state.fleet, top, page_rows)
        return state if listed is state.fleet else replace(state, fleet=listed)
    if state.lists_groups:
        listed = _drawn(state.group_list, top, page_rows)
        return state if listed is state.group_list else replace(state, group_list=listed)
    table = _drawn(state.table, top, page_rows)
    return state if table is state.table else replace(state, table=table)


def _waits_shown(state: State, top: int, page_rows: int) -> State:
    listed = state.wait_list
    if listed.group(state.waits()) is not None:
        after = replace(listed, people=_drawn(listed.people, top, page_rows))
    else:
        after = replace(listed, cursor=_drawn(listed.cursor, top, page_rows))
    return state if after == listed else replace(state, wait_list=after)


def _drawn(cursor: Cursor, top: int, page_rows: int) -> Cursor:  # type: ignore[type-arg]
    unchanged = (top, page_rows) == (cursor.top, cursor.page_rows)
    return cursor if unchanged else replace(cursor, top=top, page_rows=page_rows)
