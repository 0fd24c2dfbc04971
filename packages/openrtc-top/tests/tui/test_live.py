"""The live view in a real (pseudo-)terminal: keys, sizes, workers that come and go, and a clean end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

StartWorker = Callable[..., subprocess.Popen[bytes]]
InTerminal = Callable[..., Any]  # a FakeTerminal, see conftest.py


NUMBERED = "number,session,agent,tenant,dur,cpu%,mem_mb,pin,status"
"""Columns that have room with the rows' numbers."""


def shows(*texts: str) -> Callable[[str], bool]:
    return lambda screen: all(text in screen for text in texts)


def test_keys(start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """s sorts, f filters, arrows select, ? helps, q ends with exit code 0 and the terminal as it was."""
    start_worker("live-keys", 3)
    terminal = in_terminal("top", "--columns", NUMBERED, "--worker", "live-keys")
    terminal.wait_for(shows("live-keys", "job-0002", "sort cpu% · status all", "rows 1–3 of 3"))
    assert terminal.attributes_now != terminal.attributes
    terminal.press("s")
    terminal.wait_for(shows("sort dur"))
    terminal.press("ss")
    terminal.wait_for(shows("sort session"))
    terminal.press("\x1b[B\x1b[B")
    terminal.wait_for(lambda screen: re.search(r"▸ +2  job-0001", screen))
    terminal.press("i")
    terminal.wait_for(lambda screen: re.search(r"▸ +2  job-0001", screen) and "inverted" in screen)
    terminal.press("ff")
    terminal.wait_for(shows("status slow", "no session passes the filter"))
    terminal.press("?")
    terminal.wait_for(shows("turn the order round"))
    terminal.press("G")
    terminal.wait_for(shows("an equal share of the process's memory"))
    terminal.press("\x1b")
    terminal.wait_for(lambda screen: "equal share" not in screen)
    terminal.press("q")
    assert terminal.wait_for_end() == 0
    assert terminal.attributes_now == terminal.attributes
    assert terminal.written.startswith("\x1b[?1049h\x1b[?25l\x1b[?7l")
    assert terminal.written.endswith("\x1b[?7h\x1b[?25h\x1b[?1049l")


def test_blocks(start_blocking: Callable[[str], Callable[..., None]], in_terminal: InTerminal) -> None:
    """b lists the blocks as they end, Enter shows a stack, b leads back; the alert names the line."""
    block = start_blocking("live-blocks")
    terminal = in_terminal("top", "--refresh-rate", "10", "--worker", "live-blocks")
    terminal.wait_for(shows("job-culprit", "job-victim"))
    terminal.press("b")
    terminal.wait_for(shows("blocks, newest first"))
    block(1.5, wait=False)
    terminal.wait_for(lambda screen: re.search(r"^ BLOCKED .* job-culprit .*in lookup_menu", screen, re.MULTILINE))
    terminal.wait_for(lambda screen: re.search(r"… +job-culprit .*in lookup_menu$", screen, re.MULTILINE))
    terminal.wait_for(lambda screen: re.search(r" \d\.\d s +job-culprit .* sync-call .* 1, worst \d", screen))
    assert re.search(r"^ SLOW \d\.\d s  job-culprit .*in lookup_menu", terminal.screen, re.MULTILINE)
    terminal.press("\r")
    terminal.wait_for(lambda screen: "▸" in screen and re.search(r"^ {11}<string>:\d+ in main$", screen, re.MULTILINE))
    terminal.press("\x1b")
    terminal.wait_for(lambda screen: "in main" not in screen)
    terminal.press("b")
    terminal.wait_for(shows("sort cpu%", "job-victim"))
    terminal.press("q")
    assert terminal.wait_for_end() == 0


def test_filter_pins_and_pause(start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """/ filters as letters come, Enter keeps, p pins, space stops the clock of this view only, Escape clears."""
    start_worker("live-find", 4)
    terminal = in_terminal("top", "--columns", NUMBERED, "--sort", "session", "--worker", "live-find")
    terminal.wait_for(shows("job-0003", "rows 1–4 of 4"))
    terminal.press("/glo")
    terminal.wait_for(lambda screen: "filter glo█" in screen and "rows 1–2 of 2" in screen)
    terminal.press("bx\x7f\r")
    terminal.wait_for(shows('filter "glob"', "job-0000", "job-0002", "rows 1–2 of 2"))
    terminal.press("Gp")
    terminal.wait_for(lambda screen: re.search(r"^▸ +1  job-0002 .* ★ ", screen, re.MULTILINE))
    terminal.press(" ")
    terminal.wait_for(lambda screen: re.search(r"PAUSED [1-9]\d*s ago", screen))
    terminal.press(" \x1b")
    terminal.wait_for(lambda screen: "PAUSED" not in screen and "rows 1–4 of 4" in screen)
    assert re.search(r"^▸ +1  job-0002 .* ★ ", terminal.screen, re.MULTILINE)
    terminal.press("q")
    assert terminal.wait_for_end() == 0


def test_the_page_of_a_session_that_blocks(
    start_blocking: Callable[[str], Callable[..., None]], in_terminal: InTerminal
) -> None:
    """Enter opens it: the tree of its tasks; while it blocks the line, live; then the block; Escape leads back."""
    block = start_blocking("live-page")
    terminal = in_terminal("top", "--refresh-rate", "10", "--sort", "session", "--worker", "live-page")
    terminal.wait_for(shows("job-culprit", "job-victim"))
    terminal.press("\x1b[B\r")
    terminal.wait_for(lambda screen: re.search(r"^ job-culprit · restaurant · acme · ", screen))
    terminal.wait_for(
        lambda screen: re.search(r"^ tasks  1\n main +waiting +<string>:\d+ in main", screen, re.MULTILINE)
    )
    block(1.5, wait=False)
    terminal.wait_for(
        lambda screen: re.search(r"^ running now  for .* in lookup_menu\n.*in main", screen, re.MULTILINE)
    )
    assert " BLOCKED " in terminal.screen.splitlines()[0]
    terminal.wait_for(lambda screen: re.search(r" \d\.\d s +sync-call +<string>:\d+ in lookup_menu", screen))
    terminal.press("\x1b")
    terminal.wait_for(shows("sort session", "job-victim"))
    terminal.press("q")
    assert terminal.wait_for_end() == 0


# Eight sessions wait for the lock of one that sleeps.
WAITING = """
import asyncio, sys
from openrtc_introspect_core import Introspector

LOCK = asyncio.Lock()

async def book():
    async with LOCK:
        await asyncio.sleep(3600)

async def call(introspector, number):
    with introspector.session(f"job-{number}", agent_name="restaurant"):
        await book()

async def main():
    async with Introspector(name=sys.argv[1], slow_session_threshold_ms=60_000) as introspector:
        calls = [asyncio.create_task(call(introspector, number)) for number in range(9)]
        await asyncio.sleep(0.05)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for task in calls:
            task.cancel()

asyncio.run(main())
"""


def test_what_sessions_wait_for(start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """W lists it; Enter shows who has the lock and who waits, Enter again the page of the first of them."""
    start_worker("live-waits", code=WAITING)
    terminal = in_terminal("top", "--refresh-rate", "10", "--worker", "live-waits")
    terminal.wait_for(shows("job-8"))
    terminal.press("W")
    terminal.wait_for(
        lambda screen: re.search(r"^ +8 +8 +lock +asyncio\.Lock .*<string>:\d+ in book ", screen, re.MULTILINE)
    )
    terminal.press("\r")
    terminal.wait_for(lambda screen: re.search(r"^ waits +job-1 \(restaurant\)", screen, re.MULTILINE))
    terminal.press("\r")
    terminal.wait_for(lambda screen: re.search(r"^ job-[01] · restaurant · ", screen))
    terminal.press("\x1b")
    terminal.wait_for(shows("who holds it, who waits"))
    terminal.press("W")
    terminal.wait_for(shows("sort cpu%"))
    terminal.press("q")
    assert terminal.wait_for_end() == 0


def test_columns_are_remembered(start_worker: StartWorker, in_terminal: InTerminal, config_home: Path) -> None:
    """A column switched off with c is off the next time, and in the file; --columns overrides the file."""
    start_worker("live-columns", 1)
    terminal = in_terminal("top", "--worker", "live-columns")
    terminal.wait_for(shows("job-0000", "tenant"))
    terminal.press("cjjj ")
    terminal.wait_for(shows("[ ] tenant"))
    terminal.press("cq")
    assert terminal.wait_for_end() == 0
    assert '"tenant"' not in (config_home / "openrtc" / "top.toml").read_text()
    again = in_terminal("top", "--worker", "live-columns")
    assert "tenant" not in again.wait_for(shows("job-0000", "agent"))
    named = in_terminal("top", "--worker", "live-columns", "--columns", "tenant,session,worker")
    named.wait_for(lambda screen: re.search(r"^ +tenant +session +worker$", screen, re.MULTILINE))


def test_a_broken_config_is_reported(start_worker: StartWorker, in_terminal: InTerminal, config_home: Path) -> None:
    """In the view until a key is pressed, and on the terminal afterwards; it stays as it is."""
    file = config_home / "openrtc" / "top.toml"
    file.parent.mkdir(parents=True)
    file.write_text("columns = [")
    start_worker("live-broken", 1)
    terminal = in_terminal("top", "--worker", "live-broken", columns=200)
    terminal.wait_for(shows("is no TOML", "job-0000", "tenant"))
    terminal.press("j")
    terminal.wait_for(lambda screen: "is no TOML" not in screen)
    terminal.press("c d c")
    terminal.wait_for(shows("the columns are not remembered"))
    terminal.press("q")
    assert terminal.wait_for_end() == 0
    assert "warning: " in terminal.written
    assert file.read_text() == "columns = ["


@pytest.mark.parametrize(
    ("ending", "code"),
    [("\x03", 0), (signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGHUP, 128 + signal.SIGHUP)],
)
def test_ways_out(ending: str | int, code: int, start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """Ctrl-C and signals end it as cleanly as q does."""
    start_worker("live-out", 1)
    terminal = in_terminal("top", "--worker", "live-out")
    terminal.wait_for(shows("job-0000"))
    if isinstance(ending, str):
        terminal.press(ending)
    else:
        terminal.process.send_signal(ending)
    assert terminal.wait_for_end() == code
    assert terminal.attributes_now == terminal.attributes
    assert terminal.written.endswith("\x1b[?25h\x1b[?1049l")
    assert "Traceback" not in terminal.written


def test_suspended(start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """Ctrl-Z gives the terminal back as it was; in the foreground again, the view is drawn anew."""
    start_worker("live-stop", 1)
    terminal = in_terminal("top", "--worker", "live-stop")
    terminal.wait_for(shows("job-0000"))
    terminal.press("\x1a")
    terminal.wait_for(lambda _: os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED | os.WNOHANG))
    assert terminal.attributes_now == terminal.attributes
    terminal.wait_for(lambda _: terminal.written.endswith("\x1b[?1049l"))
    terminal.process.send_signal(signal.SIGCONT)
    terminal.wait_for(lambda _: terminal.written.count("\x1b[?1049h") == 2)
    terminal.wait_for(shows("live-stop", "job-0000", "q quit"))
    terminal.press("q")
    assert terminal.wait_for_end() == 0
    assert terminal.attributes_now == terminal.attributes


def test_without_keys(start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """When stdin is no terminal the view runs all the same, until a signal ends it."""
    start_worker("live-keyless", 1)
    terminal = in_terminal("top", "--worker", "live-keyless", stdin=subprocess.DEVNULL)
    terminal.wait_for(shows("job-0000"))
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait_for_end() == 0
    assert terminal.written.endswith("\x1b[?25h\x1b[?1049l")


def test_a_crash_restores_the_terminal(start_worker: StartWorker, in_terminal: InTerminal, tmp_path: Path) -> None:
    """Even an error of our own leaves a usable terminal, and the traceback is readable on it."""
    start_worker("live-crash", 1)
    (tmp_path / "sitecustomize.py").write_text(
        "import openrtc_top._view.screen as view\n"
        "def broken(*_, **__): raise ZeroDivisionError('a view that fails')\n"
        "view.render = broken\n"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    terminal = in_terminal("top", "--worker", "live-crash", PYTHONPATH=path)
    assert terminal.wait_for_end() == 1
    assert terminal.attributes_now == terminal.attributes
    assert terminal.written.index("\x1b[?1049l") < terminal.written.index("a view that fails")


def test_resize(start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """Another size is used at once, in both directions."""
    start_worker("live-size", 40)
    terminal = in_terminal("top", "--worker", "live-size", columns=120, lines=30)
    terminal.wait_for(shows("tenant", "rows 1–2"))
    terminal.resize(60, 15)
    terminal.process.send_signal(signal.SIGWINCH)
    screen = terminal.wait_for(lambda screen: "job-0001" in screen and "q quit" in screen)
    assert "tenant" not in screen
    assert len(screen.splitlines()) == 15
    assert max(map(len, screen.splitlines())) <= 60
    terminal.resize(160, 40)
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.wait_for(shows("tenant", "refresh"))
    terminal.press("q")
    assert terminal.wait_for_end() == 0


@pytest.mark.slow
def test_workers_come_and_go(start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """One that starts later is found; one that dies is shown as gone, with its sessions."""
    first = start_worker("live-come", 2)
    terminal = in_terminal("top", "--refresh-rate", "10", "--worker", "live-come", "--worker", "live-late")
    terminal.wait_for(shows("job-0001", "2 sessions"))
    start_worker("live-late", 1)
    terminal.wait_for(shows("2 workers", "live-late", "3 sessions"))
    first.kill()
    terminal.wait_for(
        lambda screen: re.search(r"live-come +pid \d+ +GONE for \d+s: (it closed|nothing serves its socket)", screen)
    )
    assert terminal.screen.count(" GONE ") == 3
    terminal.press("q")
    assert terminal.wait_for_end() == 0


@pytest.mark.slow
def test_a_worker_killed_and_started_anew(start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """Its sessions are GONE and their last state stays, until the worker that was started in its place is there."""
    first = start_worker("live-again", 2)
    terminal = in_terminal("top", "--refresh-rate", "10", "--worker", "live-again")
    terminal.wait_for(shows("job-0001", f"pid {first.pid}"))
    terminal.press("w")
    terminal.wait_for(shows("connected"))
    first.kill()
    terminal.wait_for(
        lambda screen: re.search(
            r"GONE for \d+s, (next try in \d s|trying again): (it closed|nothing serves its socket)", screen
        )
    )
    terminal.press("w")
    terminal.wait_for(lambda screen: screen.count(" GONE ") == 3 and "job-0001" in screen)
    second = start_worker("live-again", 3)
    terminal.wait_for(lambda screen: f"pid {second.pid}" in screen and "job-0002" in screen and "GONE" not in screen)
    terminal.press("q")
    assert terminal.wait_for_end() == 0
    assert terminal.attributes_now == terminal.attributes


@pytest.mark.slow
def test_gone_workers_are_taken_off(start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """w, the worker, x: it and its sessions leave the view; Enter narrows the table to a worker."""
    lost = start_worker("live-b-lost", 2)
    start_worker("live-a-kept", 1)
    names = ("--worker", "live-a-kept", "--worker", "live-b-lost")
    terminal = in_terminal("top", "--refresh-rate", "10", *names)
    terminal.wait_for(shows("2 workers", "rows 1–3 of 3"))
    terminal.press("wjj\r")
    terminal.wait_for(shows("worker live-b-lost", "rows 1–2 of 2"))
    terminal.press("\x1b")
    terminal.wait_for(shows("rows 1–3 of 3"))
    lost.kill()
    terminal.wait_for(shows("2 workers, 1 gone"))
    terminal.press("wxw")
    terminal.wait_for(lambda screen: "live-b-lost" not in screen and "sort cpu%" in screen)
    assert "rows 1–1 of 1" in terminal.screen
    terminal.press("q")
    assert terminal.wait_for_end() == 0


def test_refresh_now(start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """r brings a snapshot before the next one is due, two seconds after the last."""

    def uptime(screen: str) -> int:
        return int(re.findall(r"up (?:\d+m)?(\d+)s", screen)[0])

    start_worker("live-refresh", 1)
    terminal = in_terminal("top", "--refresh-rate", "0.5", "--worker", "live-refresh")
    terminal.wait_for(shows("job-0000"))
    due_at = uptime(terminal.screen) + 1

    def asked_for(screen: str) -> bool:
        terminal.press("r")
        return uptime(screen) == due_at

    terminal.wait_for(asked_for)
    terminal.press("q")
    assert terminal.wait_for_end() == 0


def test_no_color(start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """With NO_COLOR there is no colour, and the selection still shows."""
    start_worker("live-plain", 2)
    terminal = in_terminal("top", "--worker", "live-plain", NO_COLOR="1")
    terminal.wait_for(shows("job-0000"))
    terminal.press("\x1b[B")
    terminal.wait_for(shows("▸"))
    terminal.press("q")
    assert terminal.wait_for_end() == 0
    assert not re.search(r"\x1b\[[0-9;]*m", terminal.written)


@pytest.mark.parametrize(("option", "term"), [(["--once"], "xterm"), (["--json"], "xterm"), ([], "dumb")])
def test_no_live_view(option: list[str], term: str, start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """In a terminal, too, --once and --json print and end; so does a terminal without a cursor."""
    start_worker("live-once", 2)
    terminal = in_terminal("top", "--worker", "live-once", *option, TERM=term)
    assert terminal.wait_for_end() == 0
    assert "job-0001" in terminal.written
    assert "\x1b[?1049h" not in terminal.written


def test_named_socket(in_terminal: InTerminal) -> None:
    """A socket that nothing serves is an error before the screen is taken."""
    terminal = in_terminal("top", "--socket", "/nowhere/x.sock")
    assert terminal.wait_for_end() == 1
    assert terminal.written.startswith("error: no worker answers at '/nowhere/x.sock'")


@pytest.mark.slow
def test_demo_live(in_terminal: InTerminal) -> None:
    """The demo shows the culprit blocking with the time running, and ends by itself after --seconds."""
    terminal = in_terminal("demo", "--sessions", "3", "--seconds", "6")
    terminal.wait_for(shows("job-blocks-now-and-then", "5 sessions"))
    terminal.wait_for(lambda screen: re.search(r"^ (BLOCKED|SLOW).*job-blocks-now-and-then", screen, re.MULTILINE))
    assert terminal.wait_for_end() == 0
    assert terminal.attributes_now == terminal.attributes
