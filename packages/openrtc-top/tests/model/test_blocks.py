"""Blocks of several workers as one list, which are wanted, and who delayed whom."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openrtc_introspect_core._diagnosis import cause
from openrtc_introspect_core.wire import Block, Delayed, Snapshot
from openrtc_top._model.blocks import CAUSES, MAX_KEPT, Choice, Entry, at_least, entries, in_order, longest_wait, merged
from openrtc_top._model.delays import pair_delays

MakeSnapshot = Callable[..., Snapshot]
MakeBlock = Callable[..., Block]


def seqs(blocks: tuple[Block, ...]) -> list[int]:
    return [block.seq for block in blocks]


def test_the_causes_are_those_of_the_table() -> None:
    """Each cause that a worker reports can be asked for, and no other."""
    assert tuple(cause.CAUSES) == CAUSES


def test_over_and_going_on(make_snapshot: MakeSnapshot, make_block: MakeBlock, make_past: MakeBlock) -> None:
    """Those in progress come last, as long as the snapshot says by the worker's clock."""
    snapshot = make_snapshot(taken_at=1000.0, blocks=[make_block(started_at=996.8, duration_ms=1.0)])
    early = entries("v", "voice-a", [make_past(1, started_at=990.0), make_past(2, started_at=999.0)], snapshot)
    other = entries("w", "voice-b", [make_past(1, started_at=995.0)], None)
    found = in_order([*early, *other])
    assert [(entry.worker, entry.block.seq) for entry in found] == [("v", 1), ("w", 1), ("v", 2), ("v", 0)]
    assert found[-1].lasted_ms == pytest.approx(3200.0)


def test_one_that_ended_since_the_snapshot(
    make_snapshot: MakeSnapshot, make_block: MakeBlock, make_past: MakeBlock
) -> None:
    """A block is not there twice, as going on and as over."""
    snapshot = make_snapshot(blocks=[make_block(started_at=996.8)])
    (entry,) = entries("v", "voice-a", [make_past(7, started_at=996.8)], snapshot)
    assert entry.block.seq == 7


def test_later(make_past: MakeBlock) -> None:
    """New ones follow the old, none twice, and only so many are kept."""
    kept = merged((), [make_past(1), make_past(2)])
    assert seqs(merged(kept, [make_past(2), make_past(3)])) == [1, 2, 3]
    many = merged(kept, [make_past(number) for number in range(3, MAX_KEPT + 10)])
    assert (len(many), many[-1].seq) == (MAX_KEPT, MAX_KEPT + 9)


def test_longest_wait(make_past: MakeBlock) -> None:
    """Those of whom only a bound is known come after the others, but count as well."""
    waits = [Delayed("a", 5.0), Delayed("b", 9.0, exact=False)]
    assert longest_wait(make_past(1, delayed=waits)) == waits[1]
    assert longest_wait(make_past(1, delayed=[])) is None
    assert longest_wait(make_past(1, delayed=None)) is None


def test_a_block_that_names_as_many_as_it_may_may_have_delayed_more() -> None:
    """So it is said to be at least so many."""
    assert [at_least([Delayed(str(n), 1.0) for n in range(count)]) for count in (0, 99, 100)] == ["0", "99", "100+"]


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        (Choice(), [1, 2, 3]),
        (Choice(frozenset({"a"})), [1]),
        (Choice(frozenset({"a", "b"})), [1, 2]),
        (Choice(cause="gc"), [3]),
        (Choice(frozenset({"a"}), include_delayed=True), [1, 3]),
        (Choice(frozenset({"a"}), "cpu", include_delayed=True), [1]),
        (Choice(frozenset({"nobody"})), []),
    ],
)
def test_choice(choice: Choice, chosen: list[int], make_past: MakeBlock) -> None:
    """By culprit and by cause; with delayed sessions also by who waited."""
    blocks = (
        make_past(1, session_id="a", cause="cpu", delayed=[Delayed("c", 1.0)]),
        make_past(2, session_id="b", cause="cpu", delayed=None),
        make_past(3, session_id=None, cause="gc", delayed=[Delayed("a", 1.0)]),
    )
    assert [block.seq for block in blocks if choice.accepts(block)] == chosen
    assert bool(choice) is (len(chosen) < 3)


@pytest.fixture
def delays(make_past: MakeBlock) -> list[Entry]:
    """Two blocks by a, one by b, one by nobody."""
    blocks = [
        make_past(1, session_id="a", delayed=[Delayed("x", 30.0), Delayed("y", 40.0, exact=False)]),
        make_past(2, session_id="a", delayed=[Delayed("x", 20.0, exact=False)]),
        make_past(3, session_id="b", delayed=[Delayed("x", 5.0), Delayed("a", 7.0)]),
        make_past(4, session_id=None, cause="gc", delayed=[Delayed("x", 10.0)]),
        make_past(5, session_id="b", delayed=None),
    ]
    return entries("w", "voice-a", blocks, None)


def test_pair_delays(delays: list[Entry]) -> None:
    """The culprit that cost the others most is first; a sum is exact only if all its parts are."""
    pairs = pair_delays(delays)
    assert [(pair.culprit, pair.cause, pair.session) for pair in pairs] == [
        ("a", None, "x"),
        ("a", None, "y"),
        ("b", None, "a"),
        ("b", None, "x"),
        (None, "gc", "x"),
    ]
    first = pairs[0]
    assert (first.blocks, first.total_ms, first.total_exact) == (2, 50.0, False)
    assert (first.worst_ms, first.worst_exact) == (30.0, True)
    assert not pairs[1].worst_exact


def test_pair_delays_of_some(delays: list[Entry]) -> None:
    """For a session there are the pairs in which it held the loop or waited."""
    pairs = pair_delays(delays, frozenset({"a"}))
    assert {(pair.culprit, pair.session) for pair in pairs} == {("a", "x"), ("a", "y"), ("b", "a")}
