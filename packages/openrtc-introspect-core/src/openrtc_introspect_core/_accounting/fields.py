"""The fields of accounts, ledgers and heaps that each step reads and writes.

If the meter in C is installed, the fields are those of its types, whose places the C code knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._native import native

__all__ = ["COMPILED", "AccountFields", "HeapFields", "LedgerFields"]

COMPILED: type[Any] | None = native and native.MeteredCoroutine
"""The type in C that a task drives in place of its coroutine. None: it is not installed, or not wanted."""

if TYPE_CHECKING:
    from .._native._meter import AccountFields, HeapFields, LedgerFields
elif native is not None:
    AccountFields = native.AccountFields
    LedgerFields = native.LedgerFields
    HeapFields = native.HeapFields
else:

    class AccountFields:
        """The fields of an account. See `Account` for their meaning."""

        __slots__ = ("busy", "heap", "label", "last_step", "session", "steps", "tasks")

    class LedgerFields:
        """The fields of a ledger. See `Ledger` for their meaning."""

        __slots__ = (
            "binding", "clock", "get", "heap", "holder", "holder_since", "idle", "parts", "sampling",
            "slow_path", "step_since", "steps_until_sample", "switched", "unsampled", "untagged", "weight",
        )  # fmt: skip

    class HeapFields:
        """The fields of a heap that each reading needs. See `Heap` for their meaning."""

        __slots__ = ("on", "sampling_period")
