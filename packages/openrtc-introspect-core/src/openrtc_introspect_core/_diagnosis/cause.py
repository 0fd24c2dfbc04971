"""The table of causes: why a loop was held, and what follows from it.

Each cause is declared here, once. The detector blames by it, the rules of a diagnosis take their blocks and their
advice from it, `openrtc blocks --cause` accepts its names, and the testing package compares blocks and suggests fixes
by it. `_blocks/classification` decides which cause a block has, docs/measuring.md says how. Blocks of other versions
may have other causes, so a reader takes any name.

A worker loads this module, so it imports nothing else of the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Culprit = Literal["session", "thread-call", "none"]
"""The session that a block names: the one whose step or callback held the loop, the one whose call in a thread did, or
none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One cause of blocks."""

    name: str
    """As the wire has it."""
    meaning: str
    """What happened, as a clause that docs/measuring.md begins its description with."""
    culprit: Culprit
    loop_code: bool = True
    """Whether code that runs on the loop did it. False: others did, and a busy machine alone can."""
    located: bool = True
    """Whether a block of this cause has a location. False: no one line of code held the loop."""
    finding: str = "slow-session"
    """The code of the finding that reports blocks of this cause."""
    fix: str
    """What most likely helps, in one line."""
    runbook: str = "loop-blocked"
    """The runbook that says more: `openrtc runbook NAME`."""
    section: str
    """The heading in it."""

    @property
    def advice_key(self) -> str:
        """The key of its fix in ADVICE: its finding's code.

        Each cause of `slow-session` has a key of its own.
        """
        return f"{self.finding}/{self.name}" if self.finding == "slow-session" else self.finding


_TABLE = (
    Cause(
        name="sync-call",
        meaning="the thread waited in a call",
        culprit="session",
        fix="use an async client, or move the call to a thread: `await asyncio.to_thread(...)`",
        section="A synchronous call",
    ),
    Cause(
        name="cpu",
        meaning="Python code computed",
        culprit="session",
        fix="compute in a process pool, do it once for all sessions, or yield in between: `await asyncio.sleep(0)`",
        section="Python code that computes",
    ),
    Cause(
        name="native",
        meaning="C code computed",
        culprit="session",
        fix="move it to a thread if the library releases the GIL, else to a process pool; or give it smaller pieces",
        section="C code that computes",
    ),
    Cause(
        name="import",
        meaning="a module was imported",
        culprit="session",
        fix="import it when the worker starts, before the first session",
        section="An import",
    ),
    Cause(
        name="burst",
        meaning="many steps, each within the threshold, ran in one iteration",
        culprit="none",
        located=False,
        finding="bursts",
        fix="spread what the sessions do over time: not all timers at the same moment, queues emptied in portions",
        section="Many short steps at once",
    ),
    Cause(
        name="callback",
        meaning="a callback ran, and no task",
        culprit="session",
        fix="a callback of the loop (call_soon, call_later, a protocol's method) must be as short as a task's step",
        section="A callback",
    ),
    Cause(
        name="signal",
        meaning="a signal handler ran",
        culprit="none",
        finding="signal-handler",
        fix="let the handler set a flag or an event, and do the work in a task or a thread",
        section="A signal handler",
    ),
    Cause(
        name="gc",
        meaning="garbage collections took most of it",
        culprit="none",
        loop_code=False,
        finding="gc-pauses",
        fix="call `gc.freeze()` once all is loaded, and raise the thresholds of `gc.set_threshold`",
        section="Garbage collections",
    ),
    Cause(
        name="explicit-gc",
        meaning="code asked for garbage collections, and they took most of it",
        culprit="session",
        finding="explicit-gc",
        fix="do not call `gc.collect()` for a session: the collector does it when needed; call it before the first one",
        section="A call of gc.collect",
    ),
    Cause(
        name="gil-contention",
        meaning="another thread had the GIL",
        culprit="thread-call",
        loop_code=False,
        finding="gil-contention",
        fix="move what other threads compute to a process of its own: a thread shares the GIL with the loop",
        section="Another thread has the GIL",
    ),
    Cause(
        name="descheduled",
        meaning="the operating system kept the ready thread waiting",
        culprit="none",
        loop_code=False,
        finding="host-throttled",
        fix="give the worker more CPU: its cgroup's limit, fewer neighbours on the host, or a higher priority",
        runbook="host-throttled",
        section="The host does not run the worker",
    ),
)

CAUSES: dict[str, Cause] = {cause.name: cause for cause in _TABLE}
"""By name, in the order in which docs and commands list them."""

UNATTRIBUTED = frozenset(cause.name for cause in _TABLE if cause.culprit != "session")
"""Causes whose blocks do not blame the session whose step they fell into."""

NOT_LOOP_CODE = frozenset(cause.name for cause in _TABLE if not cause.loop_code)
"""Causes that no code on the loop is to blame for."""

UNLOCATED = frozenset(cause.name for cause in _TABLE if not cause.located)
"""Causes whose blocks have no location."""


def causes_of(finding: str) -> tuple[str, ...]:
    """Return the causes whose blocks the finding of this code reports.

    Empty if it is about no blocks.
    """
    return tuple(cause.name for cause in _TABLE if cause.finding == finding)
