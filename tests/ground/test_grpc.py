"""grpc.aio: each RPC is a task that grpc makes in the context of the code that started the server."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from openrtc_introspect_core import Introspector

grpc: Any = pytest.importorskip("grpc")

STEP_S = 0.02


class Clock:
    """A clock that only the handlers move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers each call with its request, in a session of its own if it is asked for one."""

    def __init__(self, introspector: Introspector, clock: Clock) -> None:
        self._introspector = introspector
        self._clock = clock
        self.seen: dict[str, tuple[float | None, int | None]] = {}

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request: bytes, context: Any) -> bytes:
        name = request.decode()
        with self._introspector.session(name, agent_name="rpc") if name.startswith("rpc") else nullcontext():
            await asyncio.sleep(0)
            self._clock.now += STEP_S
            await asyncio.sleep(0)
            rows = self._introspector.snapshot().sessions
            self.seen[name] = next(((row.cpu_s, row.tasks) for row in rows if row.session_id == name), (0.0, 0))
        return request


def served(request: str, started_in: str) -> tuple[dict[str, tuple[float | None, int | None]], float]:
    """Return what an RPC saw of its session, and the loop time of the session in which the server was started."""

    async def main() -> tuple[dict[str, tuple[float | None, int | None]], float]:
        clock = Clock()
        async with Introspector(socket_path=False, stacks=False, clock=clock) as introspector:
            service, server = Service(introspector, clock), grpc.aio.server()
            server.add_generic_rpc_handlers((service,))
            port = server.add_insecure_port("127.0.0.1:0")
            with introspector.session("starter", agent_name="a") as starter:
                apart: AbstractContextManager[Any] = (
                    introspector.no_session() if started_in == "no session" else nullcontext()
                )
                with apart:
                    await server.start()
                with introspector.no_session():
                    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                        await channel.unary_unary("/service/method")(request.encode())
                    await server.stop(0)
                return service.seen, starter.busy

    return asyncio.run(main())


def test_an_rpc_is_the_session_s_in_which_the_server_was_started() -> None:
    """Every one of them, whoever calls."""
    _, starter_s = served("call", "a session")
    assert starter_s == pytest.approx(STEP_S)


def test_a_server_that_is_started_in_no_session_charges_none() -> None:
    """As docs/measuring.md advises."""
    _, starter_s = served("call", "no session")
    assert starter_s == 0.0


@pytest.mark.parametrize("started_in", ["a session", "no session"])
def test_an_rpc_whose_handler_opens_a_session_is_that_session_s(started_in: str) -> None:
    """Its coroutine is compiled, and metered all the same."""
    seen, starter_s = served("rpc-1", started_in)
    cpu_s, tasks = seen["rpc-1"]
    assert cpu_s == pytest.approx(STEP_S)
    assert (tasks, starter_s) == (1, 0.0)
