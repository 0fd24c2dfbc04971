"""A block as a test suite tells it: which session, how long, why, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NOT_THE_TESTS = frozenset({"gc", "gil-contention", "descheduled"})
"""Causes that no code under test can be blamed for; a busy machine alone brings them about."""

_SHOWN = 5
"""Places that one failure tells of."""

_INSTEAD = (
    (("requests/", "urllib3/", "urllib/", "http/client.py", "httpx/"), "an async HTTP client"),
    (("sqlite3/", "psycopg2/", "pymysql/", "redis/"), "the database's async client"),
    (("subprocess.py",), "await asyncio.create_subprocess_exec(...)"),
    (("socket.py", "ssl.py"), "asyncio's streams"),
    (("threading.py", "queue.py", "concurrent/futures/"), "asyncio's own locks, events and queues"),
)
"""What stands in for blocking calls into these files: the first that was called says most."""

_ON_TRIO = (
    ("asyncio.sleep(", "trio.sleep("),
    ("asyncio.to_thread(", "trio.to_thread.run_sync("),
    ("asyncio.create_subprocess_exec(", "trio.run_process("),
    ("asyncio's own locks, events and queues", "Trio's own locks, events and channels"),
    ("asyncio's streams", "Trio's streams"),
)
"""What the same is called there."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One block. Plain values only: it travels from a worker of pytest-xdist to where the report is made."""

    session_id: str | None
    agent_name: str | None
    task_name: str | None
    duration_ms: float
    cause: str | None
    detail: str | None
    file: str | None
    """From pytest's root directory, where it is inside; None where the place is not known."""
    line: int | None
    function: str | None
    source: str
    """The line's text; empty where there is none to read."""
    fix: str
    allowed: str | None = None
    """The allow-list's entry that lets it pass."""

    @property
    def counts(self) -> bool:
        """Whether it is held against the test: code did it, and it is known which."""
        if self.allowed is not None or self.cause in NOT_THE_TESTS:
            return False
        from openrtc_introspect_core._gil import has_gil  # here: a suite that does not use the plugin loads nothing

        if not has_gil():  # and so no line: a thread that looked at the code would crash the interpreter
            return self.cause is not None
        return self.file is not None or self.cause == "burst"

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line} in {self.function}" if self.file else "no single place"

    @property
    def who(self) -> str:
        if self.session_id is not None:
            return f"session {self.session_id} ({self.agent_name})"
        return f"no session (task {self.task_name})" if self.task_name else "no session"

    @property
    def why(self) -> str:
        return f"{self.cause or 'cause unknown'}{f': {self.detail}' if self.detail else ''}"


def fix_of(cause: str | None, called: Sequence[str], source: str, *, on_trio: bool = False) -> str:
    """What to do. `called`: files of the calls that the line led to; `source`: the line's text."""
    fix = _fix_of(cause, called, source)
    for ours, theirs in _ON_TRIO if on_trio else ():
        fix = fix.replace(ours, theirs)
    return fix


def _fix_of(cause: str | None, called: Sequence[str], source: str) -> str:
    if cause == "sync-call":
        for parts, instead in _INSTEAD:
            if any(f"/{part}" in f"/{file}" for part in parts for file in called):
                return f"{instead}, or await asyncio.to_thread(...) around the call"
        if "sleep(" in source:
            return "await asyncio.sleep(...)"
    # What `openrtc diagnose` says of the same blocks in a worker. Here, since most runs find nothing.
    from openrtc_introspect_core._advice import ADVICE

    advice = ADVICE.get("bursts" if cause == "burst" else f"slow-session/{cause}", ADVICE["slow-session/sync-call"])
    return advice.fix.replace("`", "")


def by_place(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Grouped by line and cause, each group's worst first, the group with the worst of all first."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.file, found.line, found.function, found.cause), []).append(found)
    sorted_groups = [sorted(group, key=lambda found: -found.duration_ms) for group in groups.values()]
    return sorted(sorted_groups, key=lambda group: -group[0].duration_ms)


def failure_text(findings: Sequence[Finding], threshold_ms: float) -> str:
    """What a failing test prints."""
    lines = [f"the event loop was blocked for more than {threshold_ms:g} ms"]
    groups = by_place(findings)
    for group in groups[:_SHOWN]:
        worst = group[0]
        times = f", the worst of {len(group)}" if len(group) > 1 else ""
        lines += ["", f"{worst.who} blocked it for {worst.duration_ms:.0f} ms{times}: {worst.why}"]
        if worst.file:
            lines.append(f"    {worst.where}")
        if worst.source:
            lines.append(f"        {worst.source}")
        lines.append(f"    fix: {worst.fix}")
    if len(groups) > _SHOWN:
        lines += ["", f"and at {len(groups) - _SHOWN} more places"]
    return "\n".join(lines)
