from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hostile import Hostile

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._accounting.session_accounts import SessionAccounts
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops import asyncio_callbacks
from openrtc_introspect_core._loops.connection_users import MAX_ITEMS, UserSearch
from openrtc_introspect_core._loops.connections import Connection, Readers
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_testing._loops.backends import Backend

pytestmark = pytest.mark.gil

Hold = Callable[[Connection], Any]


class Held:
    """An object that a task's function has."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Scene:
    """A worker with tasks of several sessions, and a connection."""

    def __init__(self, introspector: Introspector) -> None:
        self.introspector = introspector
        self.connection = Connection(asyncio.Protocol(), asyncio.Transport())
        self.tasks: list[asyncio.Task[Any]] = []

    async def hold(self, session_id: str | None, hold: Hold) -> None:
        """Begin a task of a session that has something in a variable while it waits."""

        async def holding(connection: Connection | None) -> None:
            assert connection is not None
            _held = hold(connection)
            connection = None
            await asyncio.sleep(60)

        async def in_scope() -> None:
            if session_id is None:
                await holding(Connection(*self.connection))
            else:
                with self.introspector.session(session_id, agent_name="a"):
                    await holding(Connection(*self.connection))

        self.tasks.append(asyncio.ensure_future(in_scope()))
        await asyncio.sleep(0)

    def search(self, known: set[Session] = frozenset()) -> UserSearch:  # type: ignore[assignment]
        callbacks: Any = parts_of(self.introspector).loops[0].hook.callbacks
        return UserSearch(self.connection, [weakref.ref(each) for each in self.tasks], callbacks._bound_in, known)

    def user(self) -> str | None:
        search = self.search()
        search.go_on(60.0)
        return search.user.session_id if search.user is not None else None


def in_scene(run: Backend, act: Callable[[Scene], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            scene = Scene(introspector)
            try:
                return await act(scene)
            finally:
                for task in scene.tasks:
                    task.cancel()
                await asyncio.gather(*scene.tasks, return_exceptions=True)

    return run(main())


WAYS: dict[str, Hold] = {
    "the protocol": lambda connection: connection.protocol,
    "the transport": lambda connection: connection.transport,
    "an object that has it": lambda connection: Held(connection.transport),
    "an object of an object": lambda connection: Held(Held(connection.protocol)),
    "containers": lambda connection: [{"connection": (connection.transport, connection.protocol)}],
    "a bound method": lambda connection: connection.protocol.data_received,
}


@pytest.mark.parametrize("way", WAYS)
def test_who_alone_holds_a_connection_is_its_user(way: str, run: Backend) -> None:
    """Whatever the others hold."""

    async def act(scene: Scene) -> Any:
        await scene.hold("another", lambda connection: Held(asyncio.Protocol()))
        await scene.hold("user", WAYS[way])
        await scene.hold(None, lambda connection: None)
        return scene.user()

    assert in_scene(run, act) == "user"


def test_a_variable_that_an_inner_function_shares_counts(run: Backend) -> None:
    """As a pool does that a function is closed over."""

    async def act(scene: Scene) -> Any:
        pool = {"connection": scene.connection.transport}

        async def user() -> None:
            with scene.introspector.session("user", agent_name="a"):
                await asyncio.sleep(60)
                pool.clear()

        scene.tasks.append(asyncio.ensure_future(user()))
        await asyncio.sleep(0)
        return scene.user()

    assert in_scene(run, act) == "user"


@pytest.mark.parametrize("other", ["another", None])
def test_what_others_hold_as_well_is_nobody_s(other: str | None, run: Backend) -> None:
    """A pool is held by all that use it, or by a task of no session."""

    async def act(scene: Scene) -> Any:
        await scene.hold("opener", WAYS["the transport"])
        await scene.hold(other, WAYS["containers"])
        return scene.user()

    assert in_scene(run, act) is None


def test_what_nobody_holds_is_nobody_s(run: Backend) -> None:
    """A pool may keep it where no task sees it."""

    async def act(scene: Scene) -> Any:
        await scene.hold("innocent", lambda connection: None)
        return scene.user()

    assert in_scene(run, act) is None


def test_a_session_that_the_protocol_refers_to_is_one_of_those_that_hold_it(run: Backend) -> None:
    """Its task was made when the connection was opened."""

    async def act(scene: Scene) -> Any:
        await scene.hold("user", WAYS["the protocol"])
        opener = Session("opener", "a", {}, 0.0)
        search = scene.search({opener})
        search.go_on(60.0)
        return search.user

    assert in_scene(run, act) is None


def test_a_search_goes_on_where_it_was(run: Backend) -> None:
    """Until it has come to an end, nobody is the user."""

    async def act(scene: Scene) -> Any:
        await scene.hold("user", WAYS["the protocol"])
        for number in range(3):
            await scene.hold(f"other-{number}", lambda connection: None)
        search, seen = scene.search(), []
        while not seen or seen[-1] is None:
            search.go_on(0.0)  # one task
            seen.append(search.user.session_id if search.user is not None else None)
        return seen

    assert in_scene(run, act) == [None, None, None, "user"]


def test_too_many_tasks_are_not_searched_and_counted_once_a_callback(
    run: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting them takes a millisecond for 10,000 sessions, and a callback that blocks is looked at every few."""
    monkeypatch.setattr(asyncio_callbacks, "_MAX_TASKS", 0)
    count, counted = SessionAccounts.tasks, []
    monkeypatch.setattr(SessionAccounts, "tasks", lambda accounts: counted.append(count(accounts)) or counted[-1])

    async def act(scene: Scene) -> Any:
        await scene.hold("user", WAYS["the protocol"])
        callbacks: Any = parts_of(scene.introspector).loops[0].hook.callbacks
        counted.clear()
        users = [callbacks._go_on(scene.connection, Readers(set(), set())) for _ in range(3)]
        return users, len(counted)

    assert in_scene(run, act) == ([None, None, None], 1)


def test_large_containers_are_not_followed(run: Backend) -> None:
    """The search is near at hand."""

    async def act(scene: Scene) -> Any:
        await scene.hold("holds", lambda connection: [connection.transport] + [None] * MAX_ITEMS)
        return scene.user()

    assert in_scene(run, act) is None


def test_no_code_of_the_host_runs(run: Backend) -> None:
    """Only references are followed."""

    async def act(scene: Scene) -> Any:
        await scene.hold("user", lambda connection: Hostile(connection.transport))
        return scene.user()

    assert in_scene(run, act) == "user"
