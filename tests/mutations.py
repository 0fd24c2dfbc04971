"""Faults put into a copy of the sources, one at a time, to see that tests turn red.

    python tests/mutations.py             every one of them, with the tests that must notice
    python tests/mutations.py NAME ...    these only

Exit code 0: each was noticed by every test that is named with it. A test that stays green is reported: then it
does not test what it says.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("openrtc-introspect-core", "openrtc-top", "openrtc-introspect-testing")
COPIED = ("packages", "tests", "benchmarks", "docs", "examples", "pyproject.toml")
CORE = "packages/openrtc-introspect-core/src/openrtc_introspect_core"
LIMIT_S = 120.0

_CORE_TESTS = "packages/openrtc-introspect-core/tests"
_TESTING_TESTS = "packages/openrtc-introspect-testing/tests"
_EXACT = f"{_TESTING_TESTS}/test_workloads.py::test_on_virtual_time_what_is_told_is_exact"
_KNOWS = f"{_TESTING_TESTS}/test_blockers.py::test_it_is_reported_as_what_it_knows_itself_to_be"
_CONFORMS = "tests/test_conformance.py::test_our_server_keeps_every_rule"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One fault, and who must notice."""

    name: str
    file: str
    old: str
    """Occurs once in the file."""
    new: str
    tests: tuple[str, ...]
    """Files and functions; of a parametrised one at least one case must fail."""


def core(name: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    """One in the core, or where its path says; the core's own tests are named by their file in its folder."""
    elsewhere = ("packages/", "tests/")
    paths = (test if test.startswith(elsewhere) else f"{_CORE_TESTS}/{test}" for test in tests)
    return Mutation(name, file if file.startswith(elsewhere) else f"{CORE}/{file}", old, new, tuple(paths))


_PROMISES = runpy.run_path(str(Path(__file__).with_name("promises.py")))["PROMISES"]


MUTATIONS: tuple[Mutation, ...] = (
    core(
        "a block is blamed on who held least of it",
        "_ledger.py",
        "holder = max(shares, key=shares.__getitem__)",
        "holder = min(shares, key=shares.__getitem__)",
        "test_ledger.py::test_a_nested_overrun_is_reported_once_and_for_the_culprit",
    ),
    core(
        "a block is blamed on no session, though one did it",
        "_detector.py",
        "holder = overrun.holder.session if overrun.holder is not None else None",
        "holder = None",
        "test_watchdog.py::test_a_block_has_the_line_of_the_user_s_own_frame",
        f"{_KNOWS}[sleep]",
    ),
    core(
        "every other block is dropped",
        "_blocks.py",
        "            self._kept.append(block)",
        "            if block.seq % 2:\n                self._kept.append(block)",
        "test_blocks.py::test_the_history_is_bounded_and_numbers_go_on",
        "test_introspector.py::test_blocks_are_read_from_another_thread_too",
    ),
    core(
        "a block of less than twice the threshold is dropped",
        "_ledger.py",
        "        if end - start > self.limit:",
        "        if end - start > 2 * self.limit:",
        "test_ledger.py::test_an_overrun_is_the_holder_s",
    ),
    core(
        "a step that overran is reported again by its iteration",
        "_detector.py",
        "        self._reported.append((start, end))",
        "        pass",
        "test_asyncio.py::test_a_step_that_overran_is_reported_once",
    ),
    core(
        "a nested step is charged to the outer one as well",
        "_meter.py",
        "                    ledger.running = outside\n                    ledger.since = end\n",
        "                    ledger.running = outside\n                    ledger.since = since\n",
        "test_meter.py::test_a_step_inside_another_is_charged_and_counted_once",
    ),
    core(
        "what came before a nested step is charged to nobody",
        "_ledger.py",
        "            outside.busy += self.weight * (now - self.since)\n            if self._in_use",
        "            if self._in_use",
        "test_ledger.py::test_a_nested_step_is_charged_once",
        "test_meter.py::test_a_step_inside_another_is_charged_and_counted_once",
    ),
    core(
        "a nested step is not counted",
        "_meter.py",
        "                    running.steps += 1",
        "                    running.steps += outside is None",
        "test_meter.py::test_a_step_inside_another_is_charged_and_counted_once",
    ),
    core(
        "a scope entered late is charged from the step's begin",
        "_ledger.py",
        "self.running = Suspended(holder, running.weight, running.run)\n        self.since = now\n",
        "self.running = Suspended(holder, running.weight, running.run)\n",
        "test_ledger.py::test_a_switch_in_mid_step_divides_the_step",
        _EXACT,
    ),
    core(
        "the steps that are timed are counted out, not drawn",
        "_ledger.py",
        "int(log(1.0 - self._random()) * self._scale)",
        "weight - 1",
        "test_budget.py::test_sums_are_estimated_without_bias",
    ),
    core(
        "a collection is charged to whose step it fell into",
        "_ledger.py",
        "            self.parts.append(Span(self.gc, start, end))\n        self.since = end",
        "            self.parts.append(Span(self.gc, start, end))",
        "test_ledger.py::test_a_collection_is_charged_to_nobody_who_works",
    ),
    core(
        "a session is blamed for a collection",
        "_causes.py",
        'return Judgement("gc", told, nobodys=True)',
        'return Judgement("gc", told)',
        "test_causes.py::test_a_collection_that_took_most_of_it_is_nobody_s_fault",
    ),
    core(
        "a session is blamed for a host that did not let it run",
        "_causes.py",
        'return Judgement("descheduled", told, nobodys=True)',
        'return Judgement("descheduled", told)',
        "test_causes.py::test_a_thread_that_was_not_let_run_is_nobody_s_fault",
    ),
    core(
        "another thread's GIL is a call of the session's",
        "_causes.py",
        "    if starved and cpu is not None and not computing:",
        "    if False:",
        "test_causes.py::test_another_thread_with_the_gil_is_nobody_s_fault",
        f"{_KNOWS}[gil]",
    ),
    core(
        "waiting in a call is called computing",
        "_causes.py",
        "computing = cpu is not None and cpu + (waited or 0.0) >= MOST",
        "computing = cpu is not None",
        "test_causes.py::test_a_call_that_waits_is_a_sync_call",
        f"{_KNOWS}[http]",
    ),
    core(
        "idle time is counted as busy",
        "_asyncio.py",
        "                ledger.idle += waited  #",
        "                ledger.idle += 0.0  #",
        "test_asyncio.py::test_idle_and_busy_time_add_up",
        "test_report.py::test_parts_of_the_loop_s_time_add_up",
    ),
    core(
        "a share is of the whole lifetime",
        "_report.py",
        "                session.mark(moment.now, moment.busy_of(session))",
        "                pass",
        "test_report.py::test_a_share_is_of_the_last_seconds_not_of_a_lifetime",
    ),
    core(
        "counters are consumed by reading",
        "_report.py",
        "            if share > session.peak_mb:",
        "            for account in session.accounts:\n                account.busy, account.steps = 0.0, 0\n"
        "            if share > session.peak_mb:",
        _CONFORMS,
        "test_report.py::test_reading_consumes_nothing",
    ),
    core(
        "a block in progress does not show",
        "_detector.py",
        "        if now - since <= self._ledger.limit:\n            return None",
        "        if now - since <= self._ledger.limit or True:\n            return None",
        "test_report.py::test_the_step_in_progress_shows_as_blocked_and_growing",
        "test_watchdog.py::test_a_block_in_progress_has_its_line_already",
    ),
    core(
        "the innermost line is named, be it a library's",
        "_stacks.py",
        "return next((call for call in others if self.is_users(call.code.co_filename)), others[0] if others else None)",
        "return others[0] if others else None",
        "test_stacks.py::test_the_user_s_own_frame_is_the_innermost_that_is_not_a_library_s",
        f"{_KNOWS}[http]",
    ),
    core(
        "the outermost line of the user's is named",
        "_stacks.py",
        "        others = [call for call in calls if",
        "        others = [call for call in reversed(calls) if",
        "test_watchdog.py::test_a_block_has_the_line_of_the_user_s_own_frame",
        f"{_KNOWS}[sleep]",
    ),
    core(
        "a victim's delay goes to the blocker as well",
        "_victims.py",
        " if wait[0] is not culprit)",
        ")",
        "test_victims.py::test_waits_are_booked_to_those_who_waited_and_not_to_the_culprit",
    ),
    core(
        "a timer's wait is told as the whole block",
        "_victims.py",
        "min(seconds, now - timer._when)",
        "seconds",
        "test_victims.py::test_timers_tell_since_when_they_wait",
    ),
    core(
        "the socket is 0644",
        "wire/_endpoint.py",
        "            os.chmod(path, 0o600)",
        "            os.chmod(path, 0o644)",
        "wire/test_endpoint.py::test_the_modes_hold_under_any_umask",
        "test_introspector.py::test_the_five_lines_of_the_readme_work",
        _CONFORMS,
    ),
    core(
        "the socket is open to others for a moment",
        "wire/_endpoint.py",
        "os.fchmod(listener.fileno(), 0o600)",
        "os.fchmod(listener.fileno(), 0o666)",
        "wire/test_endpoint.py::test_the_socket_is_private_from_the_moment_it_exists",
    ),
    core(
        "every user may read",
        "wire/_endpoint.py",
        "    return uid is None or uid in (0, _uid())",
        "    return True",
        "wire/test_endpoint.py::test_who_may_read_and_who_is_believed",
    ),
    core(
        "frames are reordered",
        "wire/_server.py",
        "            for line in lines:\n",
        "            for line in reversed(lines):\n",
        "wire/test_server.py::test_requests_are_answered_in_order",
        _CONFORMS,
    ),
    core(
        "a frame comes after its watch is done",
        "wire/_server.py",
        "        cancelled = self._watches.pop(request_id, None)",
        "        cancelled = self._watches.get(request_id)",
        "wire/test_server.py::test_no_frame_comes_after_a_cancelled_watch_is_done",
    ),
    core(
        "a slow reader gets a queue of old frames",
        "wire/_server.py",
        "            while unread_bytes(self._socket):",
        "            while False:",
        "wire/test_server.py::test_a_slow_reader_of_small_frames_gets_the_newest_too",
    ),
    core(
        "a reply has another request's id",
        "wire/_source.py",
        "return to_json(SnapshotRequest(id=request_id))[:-1], self._body",
        "return to_json(SnapshotRequest(id=1))[:-1], self._body",
        "wire/test_server.py::test_a_snapshot_is_answered_under_its_id",
        _CONFORMS,
    ),
    core(
        "a client goes on at another major version",
        "wire/_framing.py",
        "    if claimed is not None and int(claimed[1]) != PROTOCOL_MAJOR:",
        "    if False:",
        "wire/test_framing.py::test_another_major_version_is_told_with_both",
        "packages/openrtc-introspect-testing/tests/test_worker.py::test_the_other_major_version_is_named",
        "tests/test_conformance.py::test_our_commands_keep_every_rule[ps]",
    ),
    core(
        "half a line is taken for a request",
        "wire/_framing.py",
        "        self._pending += rest\n",
        "        self._pending += rest\n        if rest.endswith(b'}'):\n"
        "            yield bytes(self._pending)\n            self._pending = bytearray()\n",
        "wire/test_server.py::test_half_a_line_at_the_end_is_no_request",
        _CONFORMS,
    ),
    *(core(*promise[:4], *promise[4]) for promise in _PROMISES),
)


# --- running them --------------------------------------------------------------------------------


def main(names: Sequence[str]) -> int:
    unknown = [name for name in names if name not in {mutation.name for mutation in MUTATIONS}]
    if unknown:
        print(f"error: no mutation {unknown[0]!r}", file=sys.stderr)
        return 2
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    survived = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Path(folder)
        for each in COPIED:
            (shutil.copytree if (ROOT / each).is_dir() else shutil.copy)(ROOT / each, copy / each)
        print("without a fault: ", end="", flush=True)
        red = failures(copy, sorted({test for mutation in chosen for test in mutation.tests}))
        print(f"red already: {', '.join(sorted(red))}" if red else "all green", flush=True)
        if red:
            return 1
        for mutation in chosen:
            began = time.monotonic()
            file = copy / mutation.file
            source = file.read_text(encoding="utf-8")
            file.write_text(mutated(source, mutation), encoding="utf-8")
            red = failures(copy, mutation.tests)
            file.write_text(source, encoding="utf-8")
            green = [test for test in mutation.tests if not any(matches(test, failed) for failed in red)]
            survived += bool(green)
            verdict = f"SURVIVED {', '.join(green)}" if green else f"noticed by all {len(mutation.tests)}"
            print(f"{mutation.name}: {verdict} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{len(chosen)} mutations, {len(chosen) - survived} noticed, {survived} survived")
    return int(survived > 0)


def mutated(source: str, mutation: Mutation) -> str:
    if source.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: {mutation.old!r} occurs {source.count(mutation.old)} times, not once")
    return source.replace(mutation.old, mutation.new)


def failures(copy: Path, tests: Sequence[str]) -> set[str]:
    """The ids of the tests that fail there; all of them where they cannot even be run."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(str(copy / "packages" / name / "src") for name in PACKAGES),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S * len(tests),
        )
    except subprocess.TimeoutExpired:
        return set(tests)
    found = set(re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE))
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest could not run {' '.join(tests)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found


def matches(test: str, failed: str) -> bool:
    return failed == test or failed.startswith(f"{test}[")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
