"""The pools that calls are handed to, known by weak references."""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._accounting.thread_pools import ThreadPools
from openrtc_introspect_testing._loops.fake_clock import FakeClock


def ledger() -> Ledger:
    return Ledger(contextvars.ContextVar("test"), FakeClock(), 0.05)


def test_a_pool_is_forgotten_with_its_executor() -> None:
    """Nothing but weak references is kept."""
    pools, executor = ThreadPools(), ThreadPoolExecutor()
    pool = pools.of(executor, "executor", ledger())
    assert pool is not None
    assert (list(pools), pool.target) == ([pool], executor)
    del executor
    assert (list(pools), pool.target) == ([], None)


def test_a_pool_that_two_loops_use_is_no_single_loops() -> None:
    """It is one pool, whichever loop hands it a call."""
    pools, executor, first = ThreadPools(), ThreadPoolExecutor(), ledger()
    pool = pools.of(executor, "executor", first)
    assert pool is not None
    assert pool.ledger is first
    assert pools.of(executor, "executor", ledger()) is pool
    assert pool.ledger is None


def test_what_allows_no_weak_reference_is_no_pool() -> None:
    """Such as a limiter of the user's own class."""
    assert ThreadPools().of(object(), "trio", ledger()) is None
    assert ThreadPools().of(None, "trio", ledger()) is None


def test_a_loops_own_executor_is_forgotten_with_the_loop() -> None:
    """It may not be known which executor it is."""
    pools, its = ThreadPools(), ledger()
    pool = pools.own_of(its, lambda: None)
    assert pools.own_of(its, lambda: None) is pool
    assert (pool.default, pool.target) == (True, None)
    pools.forget_own_of(its)
    assert list(pools) == []


def test_an_executor_may_outlive_the_names_of_this_package() -> None:
    """The interpreter clears the names of modules before it frees what is still held."""
    code = """
        from openrtc_introspect_core._accounting import thread_pools
        from test_thread_pools import ThreadPoolExecutor, ThreadPools, ledger

        executor = ThreadPoolExecutor()
        pools = ThreadPools()
        pools.of(executor, "executor", ledger())
        vars(thread_pools).update(dict.fromkeys(vars(thread_pools)))
        del executor
        print(list(pools))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
