"""Put faults into a copy of the sources, one at a time, and check that tests fail.

    python tests/mutations.py             runs all of them, with the tests that must notice
    python tests/mutations.py NAME ...    runs these only
    python tests/mutations.py --list      prints the table of mutations, and runs nothing

The exit code is 0 if every test named with a mutation noticed it. A test that stays green is reported: it does not test
what it claims to test.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promises import PROMISES

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("openrtc-introspect-core", "openrtc-top", "openrtc-introspect-testing")
COPIED = ("packages", "tests", "benchmarks", "docs", "examples", "pyproject.toml")
CORE = "packages/openrtc-introspect-core/src/openrtc_introspect_core"
LIMIT_S = 120.0

_CORE_TESTS = "packages/openrtc-introspect-core/tests"
_TESTING_TESTS = "packages/openrtc-introspect-testing/tests"
_EXACT = f"{_TESTING_TESTS}/workloads/test_workloads.py::test_on_virtual_time_what_is_reported_is_exact"
_KNOWS = f"{_TESTING_TESTS}/blockers/test_blockers.py::test_it_is_reported_as_what_it_knows_itself_to_be"
_CONFORMS = "tests/test_conformance.py::test_our_server_keeps_every_rule"


@dataclass(frozen=True, slots=True)
class Mutation:
    """A fault, and the tests that must notice it."""

    name: str
    file: str
    old: str
    """The text to replace, which occurs once in the file."""
    new: str
    tests: tuple[str, ...]
    """Files and functions. At least one case of a parametrised function must fail."""


def core(name: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    """Return a mutation. Paths are relative to core's sources and core's tests, or begin with packages/ or tests/."""
    from_root = ("packages/", "tests/")
    paths = (test if test.startswith(from_root) else f"{_CORE_TESTS}/{test}" for test in tests)
    return Mutation(name, file if file.startswith(from_root) else f"{CORE}/{file}", old, new, tuple(paths))


MUTATIONS: tuple[Mutation, ...] = (
    core(
        "a block is blamed on the session that held least of it",
        "_accounting/span_log.py",
        "holder = max(shares, key=shares.__getitem__)",
        "holder = min(shares, key=shares.__getitem__)",
        "accounting/test_ledger.py::test_a_nested_overrun_is_reported_once_and_for_the_culprit",
    ),
    core(
        "a session's block is unattributed",
        "_blocks/detector.py",
        "        self._record(facts, holder, task_name, start)",
        "        self._record(facts, None, task_name, start)",
        "blocks/test_watchdog.py::test_a_block_has_the_line_of_the_user_s_own_frame",
        f"{_KNOWS}[sleep]",
    ),
    core(
        "every other block is dropped",
        "_blocks/history.py",
        "            self._kept.append(block)",
        "            if block.seq % 2:\n                self._kept.append(block)",
        "blocks/test_history.py::test_the_history_is_bounded_and_numbers_go_on",
        "test_introspector.py::test_blocks_are_read_from_another_thread_too",
    ),
    core(
        "a block of less than twice the threshold is dropped",
        "_accounting/span_log.py",
        "        if end - start > self.limit:",
        "        if end - start > 2 * self.limit:",
        "accounting/test_ledger.py::test_an_overrun_is_the_holder_s",
    ),
    core(
        "a step that overran is reported again by its iteration",
        "_blocks/detector.py",
        "        self._reported.add(start, end)",
        "        pass",
        "loops/test_asyncio_hook.py::test_a_step_that_overran_is_reported_once",
    ),
    core(
        "a nested step is charged to the outer one as well",
        "_accounting/meter.py",
        "                    ledger.holder_since = end\n                    ledger.holder = outside\n",
        "                    ledger.holder_since = since\n                    ledger.holder = outside\n",
        "accounting/test_meter.py::test_a_step_inside_another_is_charged_and_counted_once",
    ),
    core(
        "time before a nested step is not charged",
        "_accounting/ledger.py",
        "            outside.busy += self.weight * seconds\n            outside.last_step",
        "            outside.last_step",
        "accounting/test_ledger.py::test_a_nested_step_is_charged_once",
        "accounting/test_meter.py::test_a_step_inside_another_is_charged_and_counted_once",
    ),
    core(
        "a block of a step with an eager task in it is taken to begin with the task",
        "_accounting/divided_step.py",
        "            self.rest_begins(self.holder_since)",
        "            self.rest_begins(self.clock())",
        "blocks/test_eager_steps.py::test_a_step_and_the_eager_tasks_that_it_starts_are_one_block",
    ),
    core(
        "a block has the line at which another session was that held less of the step",
        "_blocks/detector.py",
        "                facts.stall = facts.stall.held_by(session)",
        "                pass",
        "blocks/test_eager_steps.py::test_the_step_around_an_eager_task_is_the_culprit_of_what_it_held_itself",
    ),
    core(
        "a thread that waits for a processor is taken for C code that keeps the GIL",
        "_blocks/stall_samples.py",
        "            ran_s = max(0.0, late - own_s) * (1.0 - min(1.0, loop_s / late))",
        "            ran_s = late",
        "blocks/test_stall_samples.py::test_a_late_sample_counts_for_what_ran_meanwhile",
    ),
    core(
        "the watchdog judges by how late it is, and not by how long it waits for the GIL",
        "_blocks/gil_wait.py",
        "        late = now - max(due, self._ended)",
        "        late = now - due",
        "blocks/test_gil_wait.py::test_a_sample_that_is_due_when_another_has_been_taken_waits_for_the_gil_first",
    ),
    core(
        "of very many collections only the last ones count",
        "_accounting/collection_log.py",
        "            found[at] = found[at].with_later(each)",
        "            found[at] = each",
        "accounting/test_collection_log.py::test_the_sum_of_any_number_of_collections_is_kept",
    ),
    core(
        "a nested step is not counted",
        "_accounting/meter.py",
        "                    current.steps += 1",
        "                    current.steps += outside is None",
        "accounting/test_meter.py::test_a_step_inside_another_is_charged_and_counted_once",
    ),
    core(
        "a scope entered late is charged from the step's begin",
        "_accounting/ledger.py",
        "self.holder_since, self.holder = now, holder\n",
        "self.holder = holder\n",
        "accounting/test_ledger.py::test_a_switch_in_mid_step_divides_the_step",
        _EXACT,
    ),
    core(
        "every n-th step is sampled instead of a random one",
        "_accounting/step_sampling.py",
        "int(log(1.0 - self._random()) * self._scale)",
        "weight - 1",
        "accounting/test_budget.py::test_sums_are_estimated_without_bias",
    ),
    core(
        "a garbage collection is charged to the step in which it ran",
        "_accounting/ledger.py",
        "        self.divide(self.gc, end - start)\n        self.holder_since = end",
        "        self.divide(self.gc, end - start)",
        "accounting/test_ledger.py::test_a_collection_is_charged_to_no_session",
    ),
    core(
        "a session is blamed for a garbage collection",
        "_diagnosis/cause.py",
        """        meaning="garbage collections took most of it",
        culprit="none",""",
        """        meaning="garbage collections took most of it",
        culprit="session",""",
        "blocks/test_classification.py::test_a_collection_that_took_most_of_it_leaves_the_block_unattributed",
    ),
    core(
        "a session is blamed for run delay",
        "_diagnosis/cause.py",
        """        meaning="the operating system kept the ready thread waiting",
        culprit="none",""",
        """        meaning="the operating system kept the ready thread waiting",
        culprit="session",""",
        "blocks/test_classification.py::test_run_delay_leaves_the_block_unattributed",
    ),
    core(
        "GIL contention is classified as a synchronous call",
        "_blocks/classification.py",
        "    if starved and cpu is not None and not computing and not stall.kept_by_loop:",
        "    if False:",
        "blocks/test_classification.py::test_another_thread_with_the_gil_leaves_the_block_unattributed",
        f"{_KNOWS}[gil]",
    ),
    core(
        "waiting in a call is classified as computing",
        "_blocks/classification.py",
        "computing = cpu is not None and cpu >= MAJORITY * (1.0 - (run_delay or 0.0))",
        "computing = cpu is not None",
        "blocks/test_classification.py::test_a_call_that_waits_is_a_sync_call",
        f"{_KNOWS}[http]",
    ),
    core(
        "idle time is counted as busy",
        "_loops/selector_iterations.py",
        "                ledger.idle += waited  #",
        "                ledger.idle += 0.0  #",
        "loops/test_iterations.py::test_idle_and_busy_time_add_up",
        "service/test_loop_statistics.py::test_parts_of_the_loop_s_time_add_up",
    ),
    core(
        "a share is taken over the whole lifetime",
        "_service/housekeeping.py",
        "            session.mark(moment.now, moment.busy_of(session))",
        "            pass",
        "service/test_session_rows.py::test_a_share_is_of_the_last_seconds_not_of_a_lifetime",
    ),
    core(
        "counters are consumed by reading",
        "_service/session_rows.py",
        "            if share_mb > session.peak_mb:",
        "            for account in session.accounts:\n                account.busy, account.steps = 0.0, 0\n"
        "            if share_mb > session.peak_mb:",
        _CONFORMS,
        "service/test_session_rows.py::test_reading_consumes_nothing",
    ),
    core(
        "a block in progress does not show",
        "_blocks/detector.py",
        "        if now - since <= self._ledger.limit:\n            return None",
        "        if now - since <= self._ledger.limit or True:\n            return None",
        "service/test_snapshot_builder.py::test_the_step_in_progress_shows_as_blocked_and_growing",
        "blocks/test_watchdog.py::test_a_block_in_progress_has_its_line_already",
    ),
    core(
        "the innermost line is named, even in a library",
        "_os/stacks.py",
        "return next((call for call in others if self.is_users(call.file)), others[0] if others else None)",
        "return others[0] if others else None",
        "os/test_stacks.py::test_the_user_s_own_frame_is_the_innermost_that_is_not_a_library_s",
        f"{_KNOWS}[http]",
    ),
    core(
        "the calls of a task go on in the code that steps it",
        "_os/stacks.py",
        "        if frame is outermost:",
        "        if frame is None:",
        "os/test_stacks.py::test_calls_end_with_the_task_s_own_coroutine",
    ),
    core(
        "the outermost line of the user's code is named",
        "_os/stacks.py",
        "        others = [call for call in calls if",
        "        others = [call for call in reversed(calls) if",
        "blocks/test_watchdog.py::test_a_block_has_the_line_of_the_user_s_own_frame",
        f"{_KNOWS}[sleep]",
    ),
    core(
        "the culprit counts as a delayed session of its own block",
        "_loops/delays.py",
        " if wait[0] is not culprit)",
        ")",
        "loops/test_delays.py::test_waits_are_charged_to_those_who_waited_and_not_to_the_culprit",
    ),
    core(
        "a timer's delay is reported as the whole block",
        "_loops/delays.py",
        "min(seconds, now - timer._when)",
        "seconds",
        "loops/test_delays.py::test_timers_wait_since_they_were_due",
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
        "wire/_peer.py",
        "    return uid is None or uid in (0, own_uid())",
        "    return True",
        "wire/test_peer.py::test_who_may_read_and_who_is_believed",
    ),
    core(
        "frames are reordered",
        "wire/_connection.py",
        "            return self.answer(self._lines.popleft(), now)",
        "            return self.answer(self._lines.pop(), now)",
        "wire/test_server.py::test_requests_are_answered_in_order",
        _CONFORMS,
    ),
    core(
        "a frame comes after its watch is done",
        "wire/_connection.py",
        "        watch = self._watches.pop(request_id, None)",
        "        watch = self._watches.get(request_id)",
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
        'return chain([_begin("snapshot", request_id), begin]',
        'return chain([_begin("snapshot", 1), begin]',
        "wire/test_server.py::test_a_snapshot_is_answered_under_its_id",
        _CONFORMS,
    ),
    core(
        "an allocator's account that shows nothing is trusted",
        "_os/allocators.py",
        "return any(self._agrees(size, number) for _ in range(_MAX_TRIES))",
        "return True",
        "os/test_allocators.py::test_an_account_that_does_anything_else_is_not",
        "accounting/test_heap.py::test_a_worker_whose_memory_is_in_no_account_is_a_clear_error",
    ),
    core(
        "a frame of changes leaves out those of frames that its reader skipped",
        "wire/_row_table.py",
        "steps = [step for step in self._steps if step.seq > base]",
        "steps = [step for step in self._steps if step.seq == taken.seq]",
        "service/test_session_table.py::test_a_slow_readers_next_frame_has_all_that_has_changed",
    ),
    core(
        "a row whose status has changed is taken for unchanged",
        "_service/session_table.py",
        "or status != live.status or others",
        "or others",
        "service/test_session_table.py::test_a_block_changes_the_row_and_its_status_falls_back",
    ),
    core(
        "a client goes on at another major version",
        "wire/_framing.py",
        "    if claimed is not None and int(claimed[1]) != PROTOCOL_MAJOR:",
        "    if False:",
        "wire/test_framing.py::test_another_major_version_is_reported_with_both",
        "packages/openrtc-introspect-testing/tests/workers/test_fake_worker.py::test_the_other_major_version_is_named",
        "tests/test_conformance.py::test_our_commands_keep_every_rule[ps]",
    ),
    core(
        "half a line is accepted as a request",
        "wire/_framing.py",
        "        self._pending += rest\n",
        "        self._pending += rest\n        if rest.endswith(b'}'):\n"
        "            yield bytes(self._pending)\n            self._pending = bytearray()\n",
        "wire/test_server.py::test_half_a_line_at_the_end_is_no_request",
        _CONFORMS,
    ),
    core(
        "whoever waits for a lock is its holder",
        "_waits/held_locks.py",
        "            del exits[-1]\n",
        "            pass\n",
        "waits/test_held_locks.py::test_a_coroutine_that_waits_for_another_lock_holds_the_outer_one",
    ),
    core(
        "one of two likely holders is named",
        "_waits/holders.py",
        "if len(likely) == 1}",
        "if likely}",
        "waits/test_survey.py::test_of_two_tasks_that_called_acquire_none_is_named",
    ),
    core(
        "a likely holder is called certain",
        "_waits/holders.py",
        "found.certain and len(keys) == 1",
        "len(keys) == 1",
        "waits/test_survey.py::test_a_task_that_called_acquire_is_likely",
    ),
    core(
        "a lock that a condition has released counts as held",
        "_waits/held_locks.py",
        "            _forget_released(referents, held)\n",
        "            pass\n",
        "waits/test_held_locks.py::test_a_coroutine_that_waits_for_a_condition_has_released_its_lock",
    ),
    core(
        "the victim of a threading lock is named as its holder",
        "_waits/lock_holders.py",
        "if each.lock is lock), None)",
        "if each.lock is not lock), None)",
        "blocks/test_held_up.py::test_the_task_that_is_suspended_in_with_is_the_holder",
    ),
    core(
        "a task of another session counts as the session's own",
        "_waits/tasks_waited.py",
        'kind = "shared-task" if session is None else "own-task" if session is looker.session else "other-task"',
        'kind = "shared-task" if session is None else "own-task"',
        "waits/test_asyncio_waits.py::test_a_task_is_known_by_whose_it_is",
    ),
    core(
        "a wait is charged to the kind of the wait before it",
        "_sessions/waited_time.py",
        "        _share(charged, kinds, since - earlier)\n",
        "        _share(charged, self.kinds or kinds, since - earlier)\n",
        "sessions/test_waited_time.py::test_a_wait_counts_from_the_step_before_it",
    ),
    core(
        "time in which a session ran counts as waited",
        "_waits/wall_time.py",
        "    rest = total - running - delayed\n",
        "    rest = total - delayed\n",
        "waits/test_wall_time.py::test_the_parts_add_up_to_the_whole",
    ),
    core(
        "a session that steps elsewhere counts as stuck",
        "_waits/groups.py",
        "yield since != UNKNOWN and now - session.last_step >= STUCK_FOR * (now - since)",
        "yield since != UNKNOWN",
        "waits/test_groups.py::test_a_session_that_has_not_stepped_since_is_stuck",
    ),
    core(
        "a call that waits for a thread for a moment is a finding",
        "_diagnosis/rules/waiting.py",
        " or queued_s < QUEUED_S:",
        ":",
        "diagnosis/test_waits.py::test_a_rule_speaks_over_its_threshold_and_not_under_it",
    ),
    core(
        "idle chats are sessions that only grow",
        "_diagnosis/rules/growth.py",
        " and _only_gathers(each)",
        "",
        "diagnosis/test_waits.py::test_sessions_that_go_on_are_not_stale",
    ),
    core(
        "a ring of likely holders is a deadlock",
        "_diagnosis/waiting.py",
        "if each.certain and each.task_name is not None]",
        "if each.task_name is not None]",
        "diagnosis/test_waits.py::test_likely_holders_make_no_deadlock",
    ),
    core(
        "a crowd behind a lock is called well",
        "packages/openrtc-top/src/openrtc_top/_model/waits.py",
        "    return not group.holders and (",
        "    return (",
        "packages/openrtc-top/tests/model/test_waits.py::test_a_group_is_calm_if_nobody_waits_for_another",
    ),
    *(core(*promise[:4], *promise[4]) for promise in PROMISES),
)


# --- running them --------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Return the exit code: 0 if all were noticed, 1 if one survived, 2 for a name that is unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="print the table of mutations")
    options = parser.parse_args(arguments)
    if options.list:
        print(table())
        return 0
    names: list[str] = options.names
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


def table() -> str:
    """Return the mutations as a Markdown table, with paths without the packages' folders."""
    rows = ["| fault | in | noticed by |", "|---|---|---|"]
    for mutation in MUTATIONS:
        file = mutation.file.partition("/src/")[2]
        tests = ", ".join(f"`{test.rpartition('tests/')[2]}`" for test in mutation.tests)
        rows.append(f"| {mutation.name} | `{file}` | {tests} |")
    return "\n".join(rows)


def mutated(source: str, mutation: Mutation) -> str:
    """Return the source with the fault in it. Raise ValueError if the text does not occur exactly once."""
    if source.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: {mutation.old!r} occurs {source.count(mutation.old)} times, not once")
    return source.replace(mutation.old, mutation.new)


def failures(copy: Path, tests: Sequence[str]) -> set[str]:
    """Return the ids of the tests that fail in the copy; all of them if they do not end in time."""
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
    """Return whether the id of a failed test is that of the named test, or of one of its cases."""
    return failed == test or failed.startswith(f"{test}[")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
