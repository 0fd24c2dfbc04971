"""Thirty LiveKit agent sessions in one worker, one of which now and then blocks all the others.

    python examples/livekit_sessions.py
    openrtc top                            # in a second terminal

The sessions are real `livekit.agents.AgentSession`s in text mode: no room, no network, no audio, no keys. A script
gives the answers of a provider. Three agents (restaurant, dental, support) serve three tenants. In each turn the user
says a line, the agent may call a tool, and the reply is streamed. All tools await their services, except the tool of
`restaurant-01`: it asks the kitchen's old ordering system with a blocking call, `lookup_menu`, when its copy of the
menu is out of date. During this call no session gets an answer, and `openrtc top` names the culprit.

The program ends by itself: after --turns turns of each session or, with --seconds, after that time; SIGINT and SIGTERM
end it at once. --no-introspection runs the same conversations unmeasured. It needs
`pip install openrtc-introspect-core "livekit-agents~=1.8"`, and openrtc-top to watch it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import logging
import re
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import anyio
from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    Agent,
    AgentSession,
    APIConnectOptions,
    NotGivenOr,
    function_tool,
)
from livekit.agents import llm as lk
from livekit.agents.voice.run_result import RunResult

from openrtc_introspect_core import AgentPool, IntrospectError, PoolSession

TENANTS = ("acme", "globex", "initech")
CULPRIT = "restaurant-01"

ARRIVAL_S = 0.02
"""Seconds between two callers."""
PAUSE_S = 0.25
"""Seconds that a user thinks before the next line."""
TOKEN_S = 0.004
"""Seconds between two pieces of a reply."""
SERVICE_S = 0.03
"""Seconds that a service takes to answer a tool."""


# --- the agents, and what they ask ---------------------------------------------------------------


def lookup_menu() -> str:
    """Ask the old ordering system, with a blocking call by mistake."""
    time.sleep(0.3)
    return "risotto, tagliatelle, branzino"


class Restaurant(Agent):
    def __init__(self, *, old_ordering_system: bool) -> None:
        super().__init__(instructions="You take table bookings for a restaurant.")
        self._old_ordering_system = old_ordering_system
        self._asked = itertools.count()

    @function_tool
    async def get_menu(self) -> str:
        """Look up the dishes of today."""
        out_of_date = next(self._asked) % 2 == 0
        if self._old_ordering_system and out_of_date:
            return lookup_menu()
        await asyncio.sleep(SERVICE_S)
        return "risotto, tagliatelle, branzino"


class Dental(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You make appointments for a dental practice.")

    @function_tool
    async def find_slot(self, day: str) -> str:
        """Find a free appointment on a day."""
        await asyncio.sleep(SERVICE_S)
        return f"{day} at 9:40"


class Support(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You help with orders.")

    @function_tool
    async def order_status(self, number: str) -> str:
        """Look up where an order is."""
        await asyncio.sleep(SERVICE_S)
        return f"order {number} left the warehouse"


# --- the script that stands in for a language model ----------------------------------------------


@dataclass(frozen=True)
class Line:
    """One turn: the user's line, the tool that the agent calls, if any, and the reply."""

    user: str
    reply: str
    tool: str = ""
    arguments: str = "{}"


SCRIPTS: dict[str, tuple[Line, ...]] = {
    "restaurant": (
        Line("Good evening, do you have a table for two?", "We do. Would seven or half past eight suit you?"),
        Line("What is on the menu today?", "Today there is {result}, and the cake of the house.", "get_menu"),
        Line("Half past eight, please.", "A table for two at half past eight. Under which name, please?"),
    ),
    "dental": (
        Line("I have a toothache.", "I am sorry to hear that. On which day could you come in?"),
        Line("On Tuesday.", "There is one on {result}. Shall I book it?", "find_slot", '{"day": "Tuesday"}'),
        Line("Yes, please.", "It is booked. Please bring your insurance card along."),
    ),
    "support": (
        Line("Where is my parcel?", "I will have a look. What is the number of your order?"),
        Line("It is 4711.", "I have found it: {result} this morning.", "order_status", '{"number": "4711"}'),
        Line("Can I still change the address?", "Not any more. The courier can leave it next door."),
    ),
}  # fmt: skip


class ScriptedLLM(lk.LLM[Never]):
    """A language model that streams the scripted reply, as a provider's plugin would."""

    def __init__(self, script: tuple[Line, ...]) -> None:
        super().__init__()
        self.lines = {line.user: line for line in script}

    def chat(
        self,
        *,
        chat_ctx: lk.ChatContext,
        tools: list[lk.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[lk.ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> lk.LLMStream:
        return ScriptedStream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class ScriptedStream(lk.LLMStream):
    _llm: ScriptedLLM

    async def _run(self) -> None:
        chunk_id = f"chunk-{uuid.uuid4().hex[:8]}"
        for delta in self._deltas():
            await asyncio.sleep(TOKEN_S)
            self._event_ch.send_nowait(lk.ChatChunk(id=chunk_id, delta=delta))

    def _deltas(self) -> Iterator[lk.ChoiceDelta]:
        said = [message.text_content for message in self._chat_ctx.messages() if message.role == "user"]
        line = self._llm.lines[said[-1] or ""]
        last = self._chat_ctx.items[-1]
        if line.tool and not isinstance(last, lk.FunctionCallOutput):
            call = lk.FunctionToolCall(name=line.tool, arguments=line.arguments, call_id=uuid.uuid4().hex)
            yield lk.ChoiceDelta(role="assistant", tool_calls=[call])
            return
        result = last.output if isinstance(last, lk.FunctionCallOutput) else ""
        for word in re.findall(r"\S+\s*", line.reply.format(result=result)):
            yield lk.ChoiceDelta(role="assistant", content=word)


# --- a session, and the pool of them -------------------------------------------------------------


class Conversations:
    """The users of all sessions: their lines, and the replies to them."""

    def __init__(self, *, turns: int, seconds: float | None) -> None:
        self._turns = turns
        self._ends_at = None if seconds is None else time.monotonic() + seconds
        self.replies: dict[str, list[str]] = {}

    async def host(self, session: PoolSession) -> None:
        """Run one session; the pool calls this for each."""
        script = SCRIPTS[session.agent_name]
        replies = self.replies[session.session_id] = []
        agent_session: AgentSession[None] = AgentSession(
            llm=ScriptedLLM(script),
            vad=None,
            turn_handling={"turn_detection": "manual"},
            user_away_timeout=None,
        )
        try:
            await agent_session.start(agent_for(session))
            for line in itertools.cycle(script):
                if self._is_over(len(replies)):
                    break
                replies.append(await take_turn(agent_session, line.user))
                await asyncio.sleep(PAUSE_S)
        finally:
            # The pool cancels a session by an anyio scope, which would interrupt this wait as well.
            with anyio.CancelScope(shield=True):
                await agent_session.aclose()

    def _is_over(self, taken: int) -> bool:
        return taken >= self._turns if self._ends_at is None else time.monotonic() >= self._ends_at


def agent_for(session: PoolSession) -> Agent:
    if session.agent_name == "restaurant":
        return Restaurant(old_ordering_system=session.session_id == CULPRIT)
    return Dental() if session.agent_name == "dental" else Support()


async def take_turn(agent_session: AgentSession[None], user_input: str) -> str:
    """Say a line, and return the reply. Raise any error, a tool's too."""
    result: RunResult[Any] = await agent_session.run(user_input=user_input)
    reply = ""
    for event in result.events:
        if event.type == "function_call_output" and event.item.is_error:
            raise RuntimeError(f"tool {event.item.name} failed: {event.item.output}")
        if event.type == "message" and event.item.role == "assistant":
            reply = event.item.text_content or ""
    return reply


async def run(pool: AgentPool, conversations: Conversations, sessions: int) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, pool.stop)
    for agent in SCRIPTS:
        pool.add(agent, conversations.host)
    serving = asyncio.create_task(pool.serve())
    started = []
    for agent, session_id, tenant in callers(sessions):
        if pool.draining:  # a signal came
            break
        started.append(await pool.start_session(agent, session_id=session_id, metadata={"tenant": tenant}))
        await asyncio.sleep(ARRIVAL_S)
    for session in started:
        await session.wait()
    pool.drain()
    await serving


def callers(sessions: int) -> Iterator[tuple[str, str, str]]:
    """Yield agent, session id and tenant of each session."""
    agents = list(SCRIPTS)
    for index in range(sessions):
        number, which = divmod(index, len(agents))
        yield agents[which], f"{agents[which]}-{number + 1:02}", TENANTS[number % len(TENANTS)]


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=30, help="number of sessions (30)")
    parser.add_argument("--turns", type=int, default=120, help="turns of each session (120: about a minute)")
    parser.add_argument("--seconds", type=float, help="take turns for this time instead")
    parser.add_argument("--socket", type=Path, help="path of the socket (in the user's runtime directory)")
    parser.add_argument("--name", default="livekit", help="the worker's name (livekit)")
    parser.add_argument("--slow-threshold-ms", type=float, default=50.0, help="least length of a block (50)")
    parser.add_argument("--no-introspection", action="store_true", help="run the same unmeasured")
    parser.add_argument("--replies", type=Path, help="write the replies to this file, as JSON")
    arguments = parser.parse_args()
    for option in ("sessions", "turns", "seconds"):
        value = getattr(arguments, option)
        if value is not None and not value > 0:  # so that NaN is refused too
            parser.error(f"--{option} must be above 0, got {value:g}")

    logging.basicConfig(format="%(message)s")
    conversations = Conversations(turns=arguments.turns, seconds=arguments.seconds)
    # Imported objects stay. Frozen, they are left out of later collections, each of which would otherwise hold the loop
    # for more than 100 ms, in the step of some session.
    gc.collect()
    gc.freeze()
    try:
        pool = AgentPool(
            name=arguments.name,
            enable_introspection=not arguments.no_introspection,
            slow_session_threshold_ms=arguments.slow_threshold_ms,
            introspection={"socket_path": arguments.socket},
        )
        asyncio.run(run(pool, conversations, arguments.sessions))
    except IntrospectError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    if arguments.replies is not None:
        arguments.replies.write_text(json.dumps(conversations.replies), encoding="utf-8")
    turns = sum(map(len, conversations.replies.values()))
    print(f"{turns} turns in {pool.started} sessions, {pool.failed} failures")
    return 1 if pool.failed else 0


if __name__ == "__main__":
    sys.exit(main())
