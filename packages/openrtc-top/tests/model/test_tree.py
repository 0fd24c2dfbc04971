"""Tasks and who waits for whom become a forest in which each task has one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from openrtc_introspect_core.wire import Location
from openrtc_top._model.tree import Branch, Tree, grow


@dataclass(frozen=True)
class FakeTask:
    id: int
    awaited_by: Sequence[int] = ()
    name: str = ""
    coroutine: str = "call"
    state: str = "waiting"
    awaits: Sequence[Location] = field(default=())
    waiting_on: str | None = None


def drawn(tree: Tree[FakeTask]) -> list[str]:
    """One word for each branch: a dot for each level, the id, the ring and what is elsewhere."""

    def word(branch: Branch[FakeTask]) -> str:
        marks = [*(f"@{task.id}" for task in branch.ring), *(f"^{task.id}" for task in branch.elsewhere)]
        return "." * len(branch.last) + str(branch.task.id) + "".join(marks)

    return [word(branch) for branch in tree.branches]


def test_who_waits_stands_above() -> None:
    """Roots and children come in the order of the list, children right below their parent."""
    tasks = [FakeTask(1), FakeTask(2, [1]), FakeTask(3, [2]), FakeTask(4, [1]), FakeTask(5)]
    assert drawn(grow(tasks)) == ["1", ".2", "..3", ".4", "5"]
    assert [branch.last for branch in grow(tasks).branches] == [(), (False,), (False, True), (True,), ()]


def test_a_child_may_be_listed_before_its_parent() -> None:
    """The order of the list decides nothing but the order of equals."""
    assert drawn(grow([FakeTask(3, [2]), FakeTask(2, [1]), FakeTask(1)])) == ["1", ".2", "..3"]


def test_a_task_that_two_wait_for() -> None:
    """It has one place; the other one names it."""
    assert drawn(grow([FakeTask(1), FakeTask(2), FakeTask(3, [1, 2])])) == ["1", ".3", "2^3"]


def test_rings() -> None:
    """A ring is marked at the task that closes it, reachable or not; so is a task that awaits itself."""
    ring = [FakeTask(2, [1, 3]), FakeTask(3, [2])]
    assert drawn(grow([FakeTask(1), *ring])) == ["1", ".2", "..3@2"]
    assert drawn(grow([FakeTask(7, [8]), FakeTask(8, [7])])) == ["7", ".8@7"]
    assert drawn(grow([FakeTask(9, [9])])) == ["9@9"]


def test_a_ring_of_siblings() -> None:
    """Two tasks of one group that wait for each other stand side by side, and each names the other."""
    group = [FakeTask(1), FakeTask(2, [1, 3]), FakeTask(3, [1, 2]), FakeTask(4, [1, 2])]
    assert drawn(grow(group)) == ["1", ".2@3^4", ".3@2", ".4"]


def test_waiters_that_are_not_reported() -> None:
    """A task that only strangers wait for is a root."""
    assert drawn(grow([FakeTask(1, [99])])) == ["1"]
    assert drawn(grow([])) == []


def test_no_more_than_so_many() -> None:
    """Tasks that find no place are counted, also in a chain thousands long."""
    chain = [FakeTask(number, [number - 1]) for number in range(5000)]
    tree = grow(chain, limit=20)
    assert [branch.task.id for branch in tree.branches] == list(range(20))
    assert tree.unplaced == 4980
    assert len(grow(chain, limit=5000).branches) == 5000


def leads(tasks: list[FakeTask], waiter: int, to: int) -> bool:
    """Whether a task waits for another one, by way of others or not."""
    reached, more = set(), {waiter}
    while more:
        reached |= more
        more = {task.id for task in tasks if set(task.awaited_by) & reached} - reached
    return to in reached


@given(
    edges=st.lists(st.lists(st.integers(0, 12), max_size=4), max_size=10),
    limit=st.integers(1, 12),
)
def test_any_graph(edges: list[list[int]], limit: int) -> None:
    """Each task has at most one place, all of them if there is room, and each edge is shown."""
    tasks = [FakeTask(number, waiters) for number, waiters in enumerate(edges)]
    tree = grow(tasks, limit)
    ids = [branch.task.id for branch in tree.branches]
    assert len(ids) == len(set(ids)) == min(limit, len(tasks))
    assert tree.unplaced == len(tasks) - len(ids)
    if tree.unplaced:
        return
    shown = set()
    path: list[int] = []
    for branch in tree.branches:
        del path[len(branch.last) :]
        if path:
            shown.add((path[-1], branch.task.id))
        path.append(branch.task.id)
        shown |= {(branch.task.id, task.id) for task in (*branch.ring, *branch.elsewhere)}
        assert all(leads(tasks, task.id, branch.task.id) for task in branch.ring)
        assert not any(leads(tasks, task.id, branch.task.id) for task in branch.elsewhere)
    assert shown == {(waiter, task.id) for task in tasks for waiter in task.awaited_by if waiter < len(tasks)}
