from collections.abc import Callable, Coroutine
from typing import Any

from ._ledger import Ledger
from ._sessions import Account, Session

class AccountFields:
    session: Session | None
    busy: float
    steps: int
    heap: int
    tasks: int

class LedgerFields:
    clock: Callable[[], float]
    get: Callable[[None], Session | None]
    left_out: Account
    running: Account | None
    since: float
    gap: int
    special: bool

class MeteredCoroutine:
    coro: Coroutine[Any, Any, Any]
    tag: Account
    def __init__(self, coro: Coroutine[Any, Any, Any], ledger: Ledger, tag: Account) -> None: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, *error: Any) -> Any: ...
    def close(self) -> None: ...
