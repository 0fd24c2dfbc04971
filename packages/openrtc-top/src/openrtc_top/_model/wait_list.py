"""The list of waits that the key W opens: its selection, and the people of one group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from openrtc_top._model.cursor import Cursor
from openrtc_top._model.waits import Entry, GroupId

Person = tuple[str, str]
"""A holder or waiter of the group: the session's id, or empty, and the name of the task or thread."""


@dataclass(frozen=True, slots=True)
class WaitList:
    """The state of the list, without the answers themselves."""

    cursor: Cursor[GroupId] = field(default_factory=Cursor)
    """The selected group."""
    opened: GroupId | None = None
    """The group whose holders and waiters are shown. None: the groups are."""
    people: Cursor[Person] = field(default_factory=Cursor)
    """The selection among them."""

    def group(self, found: Sequence[Entry]) -> Entry | None:
        """Return the group that is opened. None: none is, or it is gone."""
        return next((entry for entry in found if entry.identity == self.opened), None)

    def handle_key(self, key: str, found: Sequence[Entry]) -> WaitList | None:
        """Return the list after a key. None: the key is not the list's."""
        opened = self.group(found)
        if opened is not None:
            if key in ("escape", "backspace"):
                return replace(self, opened=None)
            moved = self.people.handle_key(key, people_of(opened))
            return None if moved is None else replace(self, people=moved)
        keys = [entry.identity for entry in found]
        if key == "enter":
            index = self.cursor.index(keys)
            cursor = self.cursor.select(keys, self.cursor.top if index is None else index)
            return WaitList(cursor, cursor.chosen)
        steps = self.cursor.handle_key(key, keys)
        return None if steps is None else WaitList(steps)

    def session(self, found: Sequence[Entry]) -> tuple[str, str] | None:
        """Return the worker and session of the selected holder or waiter. None: there is none."""
        opened = self.group(found)
        if opened is None:
            return None
        people = people_of(opened)
        index = self.people.index(people)
        session_id, _ = people[index or 0] if people else ("", "")
        return (opened.identity[0], session_id) if session_id else None


def people_of(entry: Entry) -> list[Person]:
    """Return the holders, then the waiters, of a group."""
    holders = [(each.session_id or "", each.task_name or each.thread or "") for each in entry.group.holders]
    return [*holders, *((each.session_id or "", each.task_name) for each in entry.group.waiters)]
