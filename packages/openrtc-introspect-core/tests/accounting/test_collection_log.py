from __future__ import annotations

import pytest

from openrtc_introspect_core._accounting.collection_log import (
    MAX_COLLECTIONS,
    Asked,
    Collection,
    CollectionLog,
    most_objects,
)
from openrtc_introspect_core._os.stacks import Call

HERE, ELSEWHERE = 1, 2
EACH_S = 0.001
BETWEEN_S = 0.002


def filled(count: int, asked: Asked | None = None) -> CollectionLog:
    """Return a log of so many collections of this thread, one every 3 ms from 0 on."""
    log = CollectionLog()
    for n in range(count):
        start = n * (EACH_S + BETWEEN_S)
        log.add(Collection(start, start + EACH_S, EACH_S, 2 if n == 7 else 0, HERE, asked))
    return log


def seconds(log: CollectionLog, start: float, end: float, thread_id: int = HERE) -> float:
    return sum(each.seconds_within(start, end) for each in log.within(start, end) if each.thread_id == thread_id)


@pytest.mark.parametrize("count", [1, MAX_COLLECTIONS, MAX_COLLECTIONS + 1, 10_000, 200_000])
def test_the_sum_of_any_number_of_collections_is_kept(count: int) -> None:
    """The memory that they take is bounded."""
    log = filled(count)
    assert seconds(log, 0.0, 1e9) == pytest.approx(count * EACH_S)
    assert len(list(log.within(0.0, 1e9))) <= MAX_COLLECTIONS


@pytest.mark.parametrize("count", [1_000, 10_000])
def test_a_block_counts_those_within_it(count: int) -> None:
    """However many there were before: what is added up at its edge is a small part."""
    log = filled(5 * count)
    end = 5 * count * (EACH_S + BETWEEN_S)
    assert seconds(log, end - count * (EACH_S + BETWEEN_S), end) == pytest.approx(count * EACH_S, rel=0.02)


def test_the_latest_collections_are_known_one_by_one_or_two_by_two() -> None:
    log = filled(10_000)
    latest = list(log.within(9_900 * (EACH_S + BETWEEN_S), 1e9))
    assert {round(each.seconds / EACH_S) for each in latest} <= {1, 2}


def test_the_oldest_generation_of_several_is_kept() -> None:
    assert max(each.generation for each in filled(10_000).within(0.0, 1.0)) == 2


def test_the_most_objects_of_several_are_kept() -> None:
    """Those of a collection that did not say how many are not known, and not 0."""
    log = CollectionLog()
    for n in range(10_000):
        log.add(Collection(n, n + EACH_S, EACH_S, 0, HERE, None, n if n % 2 else None))
    assert most_objects(log.within(0.0, 1e9)) == 9_999
    assert most_objects(filled(10_000).within(0.0, 1e9)) is None


def test_collections_of_two_threads_are_not_added_up() -> None:
    log = CollectionLog()
    for n in range(10_000):
        log.add(Collection(n, n + EACH_S, EACH_S, 0, (HERE, ELSEWHERE)[n % 4 == 0]))
    assert seconds(log, 0.0, 1e9, HERE) == pytest.approx(7_500 * EACH_S)
    assert seconds(log, 0.0, 1e9, ELSEWHERE) == pytest.approx(2_500 * EACH_S)


def test_collections_that_were_asked_for_are_added_up_by_the_line_of_the_call() -> None:
    """Whoever asked most often is known."""
    log = CollectionLog()
    calls = [Asked(None, (Call("agent.py", line, "work"), Call("main.py", n, "main"))) for n, line in enumerate((4, 9))]
    for n in range(10_000):
        log.add(Collection(n, n + EACH_S, EACH_S, 2, HERE, calls[n % 3 == 0]))
    found: dict[int, float] = {}
    for each in log.within(0.0, 1e9):
        assert each.asked is not None
        line = each.asked.calls[0].line
        found[line] = found.get(line, 0.0) + each.seconds
    assert found == {4: pytest.approx(6.666), 9: pytest.approx(3.334)}


def test_of_very_many_threads_the_latest_are_kept() -> None:
    """Their collections cannot be added up."""
    log = CollectionLog()
    for n in range(10_000):
        log.add(Collection(n, n + EACH_S, EACH_S, 0, n))
    kept = [each.thread_id for each in log.within(0.0, 1e9)]
    assert kept == list(range(10_000 - len(kept), 10_000))
    assert MAX_COLLECTIONS // 2 <= len(kept) <= MAX_COLLECTIONS
