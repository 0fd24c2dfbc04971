"""The pools of threads that loops hand calls to, each known by a weak reference.

A pool is an executor, or a capacity limiter of anyio's or Trio's, which says how many threads its calls may have.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

from .ledger import Ledger

PoolKind = Literal["executor", "anyio", "trio"]


class ThreadPool:
    """One pool of threads."""

    __slots__ = ("__weakref__", "_target", "default", "kind", "ledger")

    def __init__(self, kind: PoolKind, ledger: Ledger, target: Callable[[], Any], *, default: bool = False) -> None:
        self.kind: PoolKind = kind
        self.ledger: Ledger | None = ledger
        """The ledger of the loop that hands it calls. None: several loops do."""
        self.default = default
        """Whether it is the loop's own executor."""
        self._target = target

    @property
    def target(self) -> Any:
        """Return the executor or the limiter. None: it is gone, or not known."""
        return self._target()

    def found(self, target: Any) -> None:
        """Take note which executor it is."""
        self._target = weakref.ref(target)


class ThreadPools:
    """The pools that calls were handed to. Used from any thread."""

    def __init__(self) -> None:
        self._pools: dict[int, ThreadPool] = {}
        """By the identity of the executor or limiter, or of the ledger of the loop whose own executor it is."""

    def __iter__(self) -> Iterator[ThreadPool]:
        return iter(list(self._pools.values()))

    def own_of(self, ledger: Ledger, executor: Callable[[], Any]) -> ThreadPool:
        """Return the pool of a loop's own executor.

        executor: returns it; None: it has none so far, or does not show it.
        """
        pool = self._pools.get(id(ledger))
        if pool is None:
            pool = self._pools[id(ledger)] = ThreadPool("executor", ledger, executor, default=True)
        return pool

    def of(self, target: Any, kind: PoolKind, ledger: Ledger) -> ThreadPool | None:
        """Return the pool of an executor or a limiter, to which the loop of this ledger hands a call.

        None: there is no target, or it allows no weak reference.
        """
        key = id(target)
        pool = self._pools.get(key)
        if pool is None or pool.target is not target:
            pools = self._pools
            try:
                # a target may outlive this module's names when the interpreter ends: nothing here looks one up
                reference = weakref.ref(target, partial(_forget, pools, key))
            except TypeError:
                return None
            pool = pools[key] = ThreadPool(kind, ledger, reference)
        elif pool.ledger is not ledger:
            pool.ledger = None
        return pool

    def forget_own_of(self, ledger: Ledger) -> None:
        """Forget the loop's own executor: the loop is not observed any more."""
        self._pools.pop(id(ledger), None)


def _forget(pools: dict[int, ThreadPool], key: int, gone: Any) -> None:
    pool = pools.get(key)
    if pool is not None and pool._target is gone:
        del pools[key]
