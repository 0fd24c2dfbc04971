"""Accounts: the loop time and the memory that one owner has used on one loop."""

from __future__ import annotations

from typing import Protocol

from .fields import AccountFields


class Owner(Protocol):
    """A session, as far as accounting knows it. Hashable by identity."""

    started: float
    """Clock reading at its start."""
    ended: bool
    label: bytes
    """Its names, for who reads an account without the GIL."""
    accounts: list[Account]
    """Its accounts: one on each loop that its tasks have run on."""

    def has_computed(self, cpu_s: float, heap: int) -> None:
        """Charge a call in a thread that has ended.

        cpu_s: its CPU seconds. heap: the bytes that it allocated, less those that it freed.
        """


class Account(AccountFields):
    """The loop time charged to one owner on one loop. Only its thread writes it.

    A session whose tasks run on several loops has an account on each, so that no two threads ever
    add to one number; the snapshot shows their sum.
    """

    __slots__ = ()

    def __init__(self, session: Owner | None = None) -> None:
        self.session = session
        """The owner. None: the account is no session's."""
        self.label = session.label if session is not None else None
        """The owner's names. None: the account is no session's."""
        self.busy = 0.0
        """Seconds for which it has held the loop, without the step in progress."""
        self.steps = 0
        """Steps that have ended."""
        self.last_step = session.started if session is not None else 0.0
        """Clock reading at the end of its last step, or at which another took over from it in the middle of one; at the
        session's start, if it has no step. Of a step that is not timed: the last reading before; on Trio, none."""
        self.heap = 0
        """Bytes that its steps have allocated, less the bytes that they freed; 0 if memory is not measured."""
        self.tasks = 0
        """Live tasks of the session on this loop; may be negative if some of them were counted on another loop."""
