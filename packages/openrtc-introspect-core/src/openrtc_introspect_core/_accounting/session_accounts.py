"""The accounts of one loop: one for each session, and one for all untagged tasks."""

from __future__ import annotations

from .account import Account, Owner
from .spans import LedgerReading


class SessionAccounts:
    """The accounts of the sessions that have held one loop.

    The loop's thread (or a sampler) opens them, one other thread retires them, any thread reads them.
    """

    __slots__ = ("_after_end", "_at_end", "by_owner", "retired", "untagged")

    def __init__(self) -> None:
        self.by_owner: dict[Owner, Account] = {}
        """The accounts of sessions, until they are retired."""
        self._at_end: dict[Owner, float] = {}
        """By session that has ended, and whose tasks go on: the seconds that count as its own."""
        self._after_end = 0.0
        """Seconds charged to retired sessions that do not count as their own."""
        self.retired = Account()
        """The sum of the accounts that were retired."""
        self.untagged = Account()
        """The account of tasks that belong to no session."""

    def of(self, owner: Owner | None) -> Account:
        """Return the owner's account, opened if it has none; `untagged` for None.

        If the account was retired, and a context that has outlived it comes back, its time is untagged.
        """
        if owner is None:
            return self.untagged
        account = self.by_owner.get(owner)
        if account is None:
            if owner.ended:
                return self.untagged
            opened = Account(owner)
            account = self.by_owner.setdefault(owner, opened)  # a sampler may open it at the same time
            if account is opened:
                owner.accounts.append(opened)
        return account

    def retire(self, owner: Owner) -> None:
        """Close the account of an ended session without tasks. By one thread only."""
        account = self.by_owner.pop(owner, None)
        at_end = self._at_end.pop(owner, None)
        if account is not None:
            if at_end is not None:
                self._after_end += account.busy - at_end
            self.retired.busy += account.busy
            self.retired.steps += account.steps

    def totals(self, reading: LedgerReading) -> tuple[float, int]:
        """Return (seconds, steps) charged on this loop to all sessions there have been."""
        busy, steps = self.retired.busy, self.retired.steps
        for account in list(self.by_owner.values()):
            busy += reading.busy_of(account)
            steps += account.steps
        return busy, steps

    def outlives(self, owner: Owner) -> None:
        """Take note that tasks of a session go on after its end: what they do from now on is no live session's."""
        account = self.by_owner.get(owner)
        if account is not None:
            self._at_end.setdefault(owner, account.busy)

    def after_end(self, reading: LedgerReading) -> float:
        """Return the seconds of `totals` that are of no live session, but of tasks that have outlived theirs."""
        seconds = self._after_end
        for owner, at_end in list(self._at_end.items()):
            account = self.by_owner.get(owner)
            if account is not None:
                seconds += reading.busy_of(account) - at_end
        return seconds

    def tasks(self) -> int:
        """Return the number of live tasks that are counted here, those of no session included."""
        return self.untagged.tasks + sum(account.tasks for account in list(self.by_owner.values()))
