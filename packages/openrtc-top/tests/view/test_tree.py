"""The tree of tasks as lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from openrtc_introspect_core.wire import Location
from openrtc_top._model.tree import grow
from openrtc_top._view.line import Line
from openrtc_top._view.tree import MAX_DEPTH, tree_lines


@dataclass(frozen=True)
class FakeTask:
    id: int
    name: str
    awaited_by: Sequence[int] = ()
    state: str = "waiting"
    awaits: Sequence[Location] = ()
    waiting_on: str | None = None
    coroutine: str = "Agent.run"


def text(line: Line) -> str:
    return "".join(text for text, _, _ in line.segments)


def lines(tasks: list[FakeTask], width: int | None = None) -> list[str]:
    return [text(line).rstrip() for line in tree_lines(grow(tasks), width)]


CALL = Location("agents/restaurant.py", 18, "entrypoint")
FORWARD = Location("voice/speech.py", 210, "forward")
TASKS = [
    FakeTask(1, "entrypoint", state="running", awaits=[CALL]),
    FakeTask(2, "Task-7", [1], awaits=[CALL, FORWARD], waiting_on="Queue.get"),
    FakeTask(3, "playout", [1], state="ready"),
    FakeTask(4, "metrics", waiting_on="sleep(5)"),
]


def test_in_a_pipe_nothing_is_cut() -> None:
    """Name, state, and the chain to where it waits; a task that nobody named has the name of its coroutine."""
    assert lines(TASKS) == [
        " entrypoint    running  agents/restaurant.py:18 in entrypoint",
        " ├─ Agent.run  waiting  agents/restaurant.py:18 in entrypoint › voice/speech.py:210 in forward › Queue.get",
        " └─ playout    ready",
        " metrics       waiting  sleep(5)",
    ]


def test_in_a_terminal_the_inner_end_stays() -> None:
    """Where the chain is too long, its outer part goes first."""
    assert lines(TASKS, 80)[1] == " ├─ Agent.run  waiting  … › voice/speech.py:210 in forward › Queue.get"
    assert lines(TASKS, 60)[1] == " ├─ Agent.run  waiting  … › Queue.get"
    assert lines([FakeTask(1, "a", awaits=[FORWARD])], 36) == [" a  waiting  speech.py:210"]


def test_directories_go_before_calls() -> None:
    """So the user's own line is seen beside the library's, which is the innermost."""
    own, library = Location("/srv/app/voice/agents/menu.py", 28, "look_up"), Location("asyncio/locks.py", 15, "acquire")
    (shown,) = lines([FakeTask(1, "call", awaits=[own, library])], 80)
    assert shown.endswith("agents/menu.py:28 in look_up › asyncio/locks.py:15 in acquire")


def test_rings_and_shared_tasks_are_shown() -> None:
    """In words, since the tree shows each task once."""
    tasks = [FakeTask(1, "a", [2]), FakeTask(2, "b", [1]), FakeTask(3, "c"), FakeTask(4, "d", [3, 5])]
    tasks.append(FakeTask(5, "e"))
    assert lines(tasks) == [
        " c     waiting",
        " └─ d  waiting",
        " e     waiting  → d, shown elsewhere",
        " a     waiting",
        " └─ b  waiting  ↻ waits for a: a ring",
    ]


def test_many_shared_tasks_are_counted() -> None:
    """The first three are named."""
    tasks = [FakeTask(0, "a"), FakeTask(9, "b"), *[FakeTask(number, f"t{number}", [0, 9]) for number in range(1, 6)]]
    assert lines(tasks)[-1] == " b      waiting  → t1, t2, t3 and 2 more, shown elsewhere"


def test_no_tasks_and_too_many() -> None:
    """Both are said."""
    assert lines([]) == [" no tasks"]
    tree = grow([FakeTask(number, f"t{number}") for number in range(5)], limit=2)
    assert text(tree_lines(tree, 80)[-1]) == " … and 3 more tasks"


def test_a_deep_chain_keeps_its_names() -> None:
    """The guides stop growing, so that there is room left."""
    tasks = [FakeTask(number, f"t{number}", [number - 1]) for number in range(300)]
    shown = lines(tasks, 80)
    assert shown[MAX_DEPTH + 1].startswith(f" {MAX_DEPTH + 1} levels down")
    assert max(map(cell_len, shown)) <= 80


def test_hostile_names() -> None:
    """Characters that a terminal would obey are shown; wide names keep the states in line."""
    shown = lines([FakeTask(1, "\x1b[2J", waiting_on="\x9b"), FakeTask(2, "通话")], 80)
    assert all(line.isprintable() for line in shown)
    assert len({cell_len(line[: line.index("waiting")]) for line in shown}) == 1
