from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from openrtc_introspect_core._base.gil import FREE_THREADED_BUILD
from openrtc_introspect_core._base.units import MIB
from openrtc_introspect_core._native import native
from openrtc_introspect_core._os import allocators as module
from openrtc_introspect_core._os.allocators import LARGE, SMALL, Allocator, allocators, glibc_by_ctypes

glibc = pytest.mark.skipif(sys.platform != "linux" or FREE_THREADED_BUILD, reason="Python's memory in glibc's malloc")

TRIALS = """
from openrtc_introspect_core._os.allocators import LARGE, SMALL, allocators
(glibc,) = allocators()
print(glibc.name, glibc.counts(*LARGE), glibc.counts(*SMALL))
"""


class InUse:
    """An account of the test's: each reading returns the next of these numbers, over and over."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.read = 0

    def __call__(self) -> int:
        self.read += 1
        return self.numbers[(self.read - 1) % len(self.numbers)]


def counts(*numbers: int) -> bool:
    return Allocator("ours", "numbers", InUse(*numbers)).counts(*LARGE)


@pytest.fixture
def of_glibc() -> Callable[[], int]:
    """The function that reads glibc's account."""
    (found,) = (each for each in allocators() if each.name == "glibc")
    return found.in_use


def test_an_account_that_rises_and_falls_with_what_python_takes_is_trusted() -> None:
    """A class of sizes may round up what was taken."""
    assert counts(5 * MIB, 6 * MIB, 5 * MIB)
    assert counts(5 * MIB, 6 * MIB + MIB // 4, 5 * MIB)


@pytest.mark.parametrize(
    "numbers", [[0], [5 * MIB], [0, MIB, 3 * MIB], [0, MIB, MIB], [MIB, 0, MIB], [0, MIB // 4, 0], [0, 3 * MIB, 0]]
)
def test_an_account_that_does_anything_else_is_not(numbers: list[int]) -> None:
    """It is another allocator's: 0 throughout, or moved by others."""
    assert not counts(*numbers)


def test_another_thread_that_allocates_during_a_trial_does_not_decide() -> None:
    """The trial is made again."""
    assert counts(0, 9 * MIB, 9 * MIB, 9 * MIB, 10 * MIB, 9 * MIB)


def test_a_process_without_symbols_has_no_allocator_with_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with musl; a static program cannot even be asked."""

    class Libc:
        def __init__(self, name: None) -> None:
            pass

    def static(name: None) -> None:
        raise OSError("Dynamic loading not supported")

    monkeypatch.setattr(module, "native", None)
    for library in (Libc, static):
        monkeypatch.setattr(module.ctypes, "PyDLL", library)
        assert allocators() == []
        assert not module.has_mimalloc()


@glibc
def test_mallinfo2_is_the_same_read_in_c_and_by_ctypes(of_glibc: Callable[[], int]) -> None:
    """A buffer of 8 MB is as large for both."""
    by_ctypes = glibc_by_ctypes()
    assert by_ctypes is not None
    before = (of_glibc(), by_ctypes())
    kept = bytearray(8 * MIB)
    after = (of_glibc(), by_ctypes())
    assert [now - then for now, then in zip(after, before, strict=True)] == [pytest.approx(8 * MIB, rel=0.01)] * 2
    assert after[0] == pytest.approx(after[1], rel=0.01)
    assert len(kept) == 8 * MIB
    if native is not None:
        assert of_glibc is native.glibc_in_use  # the meter in C calls it without a call of Python


@glibc
def test_what_another_thread_takes_is_in_glibc_s_account(of_glibc: Callable[[], int]) -> None:
    """Each thread has an arena of its own."""
    kept: list[bytes] = []
    before = of_glibc()
    taker = threading.Thread(target=lambda: kept.extend(bytes(100_000) for _ in range(80)))
    taker.start()
    taker.join()
    assert of_glibc() - before == pytest.approx(8_000_000, rel=0.1)


@glibc
def test_mapped_memory_is_in_no_account(of_glibc: Callable[[], int]) -> None:
    """Nobody took it from malloc."""
    before = of_glibc()
    with mmap.mmap(-1, 8 * MIB) as mapped:
        mapped.write(b"x" * MIB)
        assert abs(of_glibc() - before) < 4 * MIB


@glibc
@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        ("", "True False"),
        ("pymalloc", "True False"),
        ("debug", "True False"),
        ("malloc", "True True"),
        ("malloc_debug", "True True"),
        pytest.param(
            "mimalloc",
            "False False",
            marks=pytest.mark.skipif(sys.version_info < (3, 13), reason="Python has it since 3.13"),
        ),
    ],
)
def test_a_trial_finds_which_objects_python_takes_from_malloc(wanted: str, seen: str) -> None:
    """Small objects are from arenas of Python's own, unless PYTHONMALLOC says otherwise."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"} | {"PYTHONMALLOC": wanted}
    found = subprocess.run(
        [sys.executable, "-c", TRIALS], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == f"glibc {seen}"


def test_small_objects_are_small_for_python_and_large_ones_are_not() -> None:
    """The limit is 512 bytes, with what the debug hooks add to an object."""
    assert sys.getsizeof(bytes(SMALL[0])) + 32 <= 512 < LARGE[0]
