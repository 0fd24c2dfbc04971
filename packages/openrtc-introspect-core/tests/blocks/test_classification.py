"""From facts to causes, one table row a rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openrtc_introspect_core._accounting.account import Account
from openrtc_introspect_core._accounting.gc_monitor import Asked
from openrtc_introspect_core._blocks.classification import Classification, Facts, classify
from openrtc_introspect_core._blocks.stall_samples import StallSamples
from openrtc_introspect_core._blocks.without_gil import WithoutGil
from openrtc_introspect_core._loops.hook import Running
from openrtc_introspect_core._os.stacks import Call
from openrtc_introspect_core._os.thread_usage import Usage
from openrtc_introspect_core._sessions.session import Session

START, END = 10.0, 10.2
CALLS = (Call("agents/a.py", 1, "lookup"), Call("agents/a.py", 2, "entrypoint"))
NOBODY = Running()


def stall(
    *,
    cpu: float,
    run_delay: float = 0.0,
    late: tuple[float, ...] = (0.0,) * 20,
    module: str | None = None,
    keeper: int | None = None,
    end: float = END,
) -> StallSamples:
    """Sampled from a quarter into the block on; `cpu` and `run_delay` are shares of the sampled time.

    late: of each sample. keeper: who kept the GIL meanwhile, by a sample without it.
    """
    samples = StallSamples(START, Usage(START, 0.0, 0.0))
    calls = tuple(call._replace(module=module) for call in CALLS)
    due = START + 0.045
    for each in late:
        came = due + each
        seen = [WithoutGil(due + 0.01, came, keeper, calls)] if keeper is not None else []
        samples.add(calls, NOBODY, due, came, lambda since, until, seen=seen: seen)  # type: ignore[misc]
        due = samples.next_due = came + 0.005
    samples.usage_after_first = Usage(START + 0.05, 0.05 * cpu, 0.05 * run_delay)
    return samples.up_to(end)


LIMIT = 0.05


def facts(seen: StallSamples | None, *, cpu: float = 0.0, run_delay: float | None = 0.0, **more: Any) -> Facts:
    after = Usage(END, 0.2 * cpu, None if run_delay is None else 0.2 * run_delay)
    return Facts(START, END, **{"in_step": True, "limit": LIMIT, "stall": seen, "after": after, **more})


def test_a_call_that_waits_is_a_sync_call() -> None:
    """The thread used little processor time."""
    assert classify(facts(stall(cpu=0.05), cpu=0.05)) == Classification("sync-call")


def test_python_code_that_computes_is_cpu() -> None:
    """It gives the GIL away only after its interval, so samples come a little late."""
    assert classify(facts(stall(cpu=1, late=(0.0, 0.005, 0.005, 0.006, *[0.005] * 12)), cpu=1)) == Classification("cpu")


def test_c_code_that_keeps_the_gil_is_native() -> None:
    """The only sample came when it was over."""
    assert classify(facts(stall(cpu=1, late=(0.15,)), cpu=1)) == Classification("native")


def test_c_code_that_released_the_gil_is_native_too() -> None:
    """It computes, and samples are never late."""
    assert classify(facts(stall(cpu=1), cpu=1)) == Classification("native")


def test_c_code_that_waits_while_it_keeps_the_gil_is_the_session_s() -> None:
    """Samples without the GIL have seen the loop's own thread keep it, so no other thread did."""
    seen = stall(cpu=0.02, late=(0.15,), keeper=1)
    assert classify(facts(seen, cpu=0.02)) == Classification("native", "its C code waited while it kept the GIL")
    assert classify(facts(seen, cpu=0.02, in_step=False)) == Classification("callback")


def test_another_thread_that_was_seen_with_the_gil_leaves_the_block_unattributed() -> None:
    """So does one of which nothing is known."""
    for keeper in (0, 2):
        assert classify(facts(stall(cpu=0.02, late=(0.15,), keeper=keeper), cpu=0.02)).cause == "gil-contention"


def test_what_took_most_of_the_time_decides() -> None:
    """A short C call after much Python code is no cause, nor is a short wait for the GIL after a long call."""
    assert classify(facts(stall(cpu=1, late=(*[0.005] * 10, 0.03)), cpu=1)).cause == "cpu"
    assert classify(facts(stall(cpu=0.02, late=(*[0.0] * 20, 0.04)), cpu=0.02)).cause == "sync-call"
    assert classify(facts(stall(cpu=1, late=(0.005, 0.005, 0.12)), cpu=1)).cause == "native"


def test_another_thread_with_the_gil_leaves_the_block_unattributed() -> None:
    """The watchdog was starved, and the loop's thread computed nothing."""
    classification = classify(facts(stall(cpu=0.02, late=(0.15,)), cpu=0.02))
    assert (classification.cause, classification.unattributed) == ("gil-contention", True)


def test_where_no_thread_computed_the_process_may_have_been_stopped() -> None:
    """From inside, SIGSTOP and a paused container look like a thread that waits with the GIL: the detail names both."""
    seen = stall(cpu=0.02, late=(0.15,))
    assert seen.usage_after_first is not None
    seen.usage_before, seen.usage_after_first = (
        seen.usage_before._replace(process_s=1.0),
        seen.usage_after_first._replace(process_s=1.001),
    )
    stopped = facts(seen, cpu=0.02)
    assert stopped.after is not None
    computed = replace(stopped, after=stopped.after._replace(process_s=1.19))
    stopped = replace(stopped, after=stopped.after._replace(process_s=1.005))
    expected = "none of the process's threads computed: it was stopped, or one that waited kept the GIL"
    assert classify(stopped) == Classification("gil-contention", expected)
    assert classify(computed) == Classification("gil-contention", "another thread kept the GIL")


def test_run_delay_leaves_the_block_unattributed() -> None:
    """It does not matter what the thread was about to do."""
    classification = classify(facts(stall(cpu=0.1, run_delay=0.8, late=(0.1,)), cpu=0.1, run_delay=0.8))
    assert (classification.cause, classification.unattributed) == ("descheduled", True)
    assert classification.detail == "run delay 160 ms"


def test_what_would_have_been_a_block_on_a_free_machine_is_the_session_s() -> None:
    """It computed for 60 of its 200 ms, more than the threshold; the detail has the run delay."""
    late = (0.0, 0.005, 0.005, 0.006, *[0.005] * 12)
    classification = classify(facts(stall(cpu=0.3, run_delay=0.7, late=late), cpu=0.3, run_delay=0.7))
    assert classification == Classification("cpu", "run delay 140 ms")


def test_on_a_crowded_machine_computing_is_still_computing() -> None:
    """A third of the time running and a third of it ready to run is no waiting in a call, and no one else's GIL."""
    late = (0.0, 0.005, 0.005, 0.006, *[0.005] * 12)
    assert classify(facts(stall(cpu=0.35, run_delay=0.35, late=late), cpu=0.35, run_delay=0.35)).cause == "cpu"
    assert classify(facts(stall(cpu=0.35, run_delay=0.35, late=(0.15,)), cpu=0.35, run_delay=0.35)).cause == "native"


def test_on_a_crowded_machine_a_wait_is_still_a_wait() -> None:
    """It waited for 80 ms, then 120 ms for its processor, and computed nothing."""
    assert classify(facts(stall(cpu=0.0, run_delay=0.6), run_delay=0.6)) == Classification(
        "sync-call", "run delay 120 ms"
    )


def test_a_sample_that_never_came_is_evidence_too() -> None:
    """A sample was due and never came: the GIL was kept, by the thread itself if it computed."""

    seen = StallSamples(START, Usage(START, 0.0, 0.0), next_due=START + 0.045).up_to(END)
    assert classify(facts(seen, cpu=1)).cause == "native"
    assert classify(facts(seen, cpu=0)).cause == "gil-contention"
    assert classify(facts(seen, cpu=0, in_step=False)).cause == "gil-contention"


def test_a_short_native_block_is_distinguished_from_python_code() -> None:
    """The first tick comes late in it: what counts is how late it is against what was left of the block."""
    end = START + 0.059
    for late, cause in ((0.0135, "native"), (0.0055, "cpu")):
        seen = stall(cpu=1, late=(late,), end=end)
        block = Facts(START, end, in_step=True, limit=LIMIT, stall=seen, after=Usage(end, 0.059, 0.0))
        assert classify(block).cause == cause


def test_what_the_loop_was_idle_for_is_not_counted_as_work_ahead() -> None:
    """A tick long before the block, and nothing but waiting in between: all the processor time is the block's."""
    seen = StallSamples(START, Usage(START - 0.04, 0.0, 0.0), idle_before=1.0)
    seen.add(CALLS, NOBODY, START + 0.005, START + 0.02)
    seen.next_due = START + 0.06
    seen = seen.up_to(START + 0.06)
    expected = Facts(
        START,
        START + 0.06,
        in_step=True,
        limit=LIMIT,
        stall=seen,
        after=Usage(START + 0.06, 0.035, 0.0),
        idle_after=1.04,
    )
    assert classify(expected).cause == "cpu"
    seen.idle_before = expected.idle_after = None
    assert classify(expected).cause == "sync-call"


def test_a_late_wake_up_of_an_idle_loop_is_no_run_delay_of_the_block_after_it() -> None:
    """The thread was ready to run for 0.3 s before the block, in the loop's idle time, and the watchdog was, too."""
    seen = StallSamples(START, Usage(START - 0.4, 0.0, 0.0), idle_before=1.0)
    seen.add(CALLS, NOBODY, START + 0.36, START + 0.36)
    seen.usage_after_first = Usage(START + 0.36, 0.0, 0.3)
    after = Usage(START + 0.4, 0.0, 0.3)
    block = Facts(START, START + 0.4, in_step=True, limit=LIMIT, stall=seen, after=after, idle_after=1.4)
    assert classify(block).cause == "sync-call"
    seen.usage_before = Usage(START - 0.02, 0.0, 0.0)
    assert classify(block) == Classification("sync-call", "run delay 284 ms")


def test_a_collection_that_took_most_of_it_leaves_the_block_unattributed() -> None:
    """The detail has its generation and its part."""
    classification = classify(facts(stall(cpu=1), cpu=1, gc_s=0.15, gc_generation=2))
    assert classification == Classification("gc", "generation 2, 150 ms of it")
    assert classification.unattributed


@pytest.mark.parametrize(("asked", "what"), [(None, "generation 2"), (Asked(None, ()), "gc.collect()")])
def test_the_detail_has_the_objects_that_a_collection_went_through(asked: Asked | None, what: str) -> None:
    """If the collector reports them: the more there are, the longer it takes."""
    seen = facts(stall(cpu=1), cpu=1, gc_s=0.15, gc_generation=2, gc_asked=asked, gc_objects=1_204_511)
    assert classify(seen).detail == f"{what}, 150 ms of it, 1,204,511 objects"


def test_an_import_is_reported_with_the_module() -> None:
    """It does not matter how the import spends its time."""
    assert classify(facts(stall(cpu=1, module="numpy"), cpu=1)) == Classification("import", "numpy")


def test_an_import_whose_module_nobody_could_read_is_still_an_import() -> None:
    """Samples without the GIL see that one is under way. Where another sample has read its name, that counts."""
    assert classify(facts(stall(cpu=1, module=""), cpu=1)) == Classification("import")
    seen = stall(cpu=1, module="")
    named = tuple(call._replace(module="numpy") for call in CALLS)
    seen.places[named, NOBODY] = 0.001
    assert classify(facts(seen, cpu=1)) == Classification("import", "numpy")


def test_a_burst_names_the_sessions_that_took_part() -> None:
    """The three that took most; all untagged tasks count as one."""
    sessions = [Session(f"job-{n}", "a", {}, 0.0) for n in range(3)]
    steps = {Account(session): 0.02 * (n + 1) for n, session in enumerate(sessions)} | {Account(): 0.05}
    classification = classify(facts(None, in_step=False, steps=steps))
    assert classification == Classification("burst", "job-2 60 ms, untagged tasks 50 ms, job-1 40 ms")


def test_an_iteration_without_steps_is_a_callback() -> None:
    """What ran was no task."""
    assert classify(facts(stall(cpu=0), in_step=False)) == Classification("callback")


def test_what_was_not_seen_has_no_cause() -> None:
    """Nothing is guessed."""
    assert classify(facts(None)) == Classification(None)
    assert classify(facts(None, in_step=False)) == Classification(None)


def test_starving_is_known_without_processor_times() -> None:
    """Some platforms have no clock of a thread."""
    for late, cause in (((0.15,), "native"), ((0.0,) * 20, None)):
        seen = stall(cpu=0, late=late)
        seen.usage_before = seen.usage_before._replace(cpu_s=None, run_delay_s=None)
        assert classify(facts(seen, run_delay=None)) == Classification(cause)


# --- without a GIL -----------------------------------------------------------------------------------


def test_without_a_gil_no_thread_keeps_it() -> None:
    """A late sample says nothing of other threads: a thread that waited, waited in a call."""
    assert classify(facts(stall(cpu=0.02, late=(0.15,)), cpu=0.02, gil=False)) == Classification("sync-call")


def test_collections_that_were_called_for_are_a_cause_of_their_own() -> None:
    """The caller's session is blamed."""
    classification = classify(facts(stall(cpu=1), cpu=1, gc_s=0.15, gc_generation=2, gc_asked=Asked(None, ())))
    assert classification == Classification("explicit-gc", "gc.collect(), 150 ms of it")
    assert classification.culprit == "session"


def test_without_a_gil_c_code_is_classified_as_python_code() -> None:
    """Samples are never late, and would be no evidence if they were."""
    assert classify(facts(stall(cpu=1, late=(0.15,)), cpu=1, gil=False)) == Classification("cpu")
    assert classify(facts(stall(cpu=1), cpu=1, gil=False)) == Classification("cpu")


def test_without_a_gil_another_threads_collection_stops_the_loop() -> None:
    """It is unattributed, as the loop's own would be."""
    classification = classify(facts(stall(cpu=0.02), cpu=0.02, gil=False, gc_elsewhere_s=0.15))
    assert classification == Classification("gc", "on another thread, 150 ms of it")
    assert classify(facts(stall(cpu=0.9), cpu=0.9, gil=False, gc_elsewhere_s=0.15)).cause == "cpu"


def test_a_signal_handler_that_ran_for_most_of_the_time_is_the_cause() -> None:
    """Whatever it did, in a step or a callback; for less than half of the time it is none."""
    handler = Running(signal=("agents/a.py", "lookup"))
    for in_step in (True, False):
        seen = stall(cpu=0.05)
        seen.places.clear()
        seen.places[CALLS, handler] = 0.11
        seen.places[CALLS, NOBODY] = 0.09
        assert classify(facts(seen, cpu=0.05, in_step=in_step)) == Classification("signal")
        seen.places[CALLS, NOBODY] = 0.12
        assert classify(facts(seen, cpu=0.05, in_step=in_step)) != Classification("signal")
