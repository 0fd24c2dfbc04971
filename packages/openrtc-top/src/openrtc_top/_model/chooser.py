"""The list in which columns are switched on and off and moved about."""

from __future__ import annotations

from dataclasses import dataclass, replace

from openrtc_top._model.columns import DEFAULT, IDS
from openrtc_top._model.cursor import Cursor


@dataclass(frozen=True, slots=True)
class Chooser:
    """The list, and the column that is selected in it."""

    order: tuple[str, ...]
    """The ids of all columns: the wanted ones as the table has them, then the others."""
    cursor: Cursor[str]

    def handle_key(self, key: str, wanted: tuple[str, ...]) -> tuple[Chooser, tuple[str, ...]]:
        """Return the list and the wanted columns after a key."""
        moved = self.cursor.handle_key(key, self.order)
        if moved is not None:
            return replace(self, cursor=moved), wanted
        if key == "d":
            return open_chooser(DEFAULT), DEFAULT
        at = self.cursor.index(self.order) or 0
        chosen = self.order[at]
        if key == "space":
            on = {*wanted} ^ {chosen}
            return self, self._in_order(on) or wanted
        if key in ("J", "K"):
            to = min(max(at + (1 if key == "J" else -1), 0), len(self.order) - 1)
            order = [*self.order]
            order.insert(to, order.pop(at))
            after = Chooser(tuple(order), self.cursor.select(order, to))
            return after, after._in_order({*wanted})
        return self, wanted

    def _in_order(self, wanted: set[str]) -> tuple[str, ...]:
        return tuple(column for column in self.order if column in wanted)


def open_chooser(wanted: tuple[str, ...]) -> Chooser:
    """Return the list as it is when it is opened: the wanted columns first."""
    order = (*wanted, *(column for column in IDS if column not in wanted))
    return Chooser(order, Cursor(chosen=order[0]))
