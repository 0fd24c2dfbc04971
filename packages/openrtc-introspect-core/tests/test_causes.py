"""From facts to causes, one table row a rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from openrtc_introspect_core._causes import Facts, Judgement, judge
from openrtc_introspect_core._ledger import Span
from openrtc_introspect_core._sessions import Account, Session
from openrtc_introspect_core._stacks import Call
from openrtc_introspect_core._usage import Usage
from openrtc_introspect_core._watchdog import Incident

CODE = judge.__code__
START, END = 10.0, 10.2


def incident(
    *, cpu: float, waited: float = 0.0, late: tuple[float, ...] = (0.0,) * 5, module: str | None = None
) -> Any:
    """Looked at from a quarter into the block on; `cpu` and `waited` are shares of what was watched."""
    looks = [[Call(CODE, 1), Call(CODE, 2, module)] for _ in late]
    before = Usage(START, 0.0, 0.0)
    first = Usage(START + 0.05, 0.05 * cpu, 0.05 * waited)
    dues = [START + 0.045 + 0.005 * n for n in range(len(late))]
    return Incident(START, before=before, first=first, looks=looks, late=list(late), dues=dues)


LIMIT = 0.05


def facts(seen: Incident | None, *, cpu: float = 0.0, waited: float | None = 0.0, **more: Any) -> Facts:
    after = Usage(END, 0.2 * cpu, None if waited is None else 0.2 * waited)
    return Facts(START, END, **{"in_step": True, "limit": LIMIT, "incident": seen, "after": after, **more})


def test_a_call_that_waits_is_a_sync_call() -> None:
    """The thread used little processor time."""
    assert judge(facts(incident(cpu=0.05), cpu=0.05)) == Judgement("sync-call")


def test_python_code_that_computes_is_cpu() -> None:
    """It gives the GIL away only after its interval, so looks come a little late."""
    assert judge(facts(incident(cpu=1, late=(0.0, 0.005, 0.005, 0.006)), cpu=1)) == Judgement("cpu")


def test_c_code_that_keeps_the_gil_is_native() -> None:
    """The one look came when it was over."""
    assert judge(facts(incident(cpu=1, late=(0.15,)), cpu=1)) == Judgement("native")


def test_c_code_that_let_go_of_the_gil_is_native_too() -> None:
    """It computes, and looks are never late."""
    assert judge(facts(incident(cpu=1), cpu=1)) == Judgement("native")


def test_another_thread_with_the_gil_is_nobody_s_fault() -> None:
    """Starved, and yet it computed nothing."""
    judgement = judge(facts(incident(cpu=0.02, late=(0.15,)), cpu=0.02))
    assert (judgement.cause, judgement.nobodys) == ("gil-contention", True)


def test_where_no_thread_computed_the_process_may_have_been_stopped() -> None:
    """From inside, SIGSTOP and a paused container look like a thread that waits with the GIL: both are told."""
    seen = incident(cpu=0.02, late=(0.15,))
    assert seen.first is not None
    seen.before, seen.first = seen.before._replace(process_s=1.0), seen.first._replace(process_s=1.001)
    stopped = facts(seen, cpu=0.02)
    assert stopped.after is not None
    computed = replace(stopped, after=stopped.after._replace(process_s=1.19))
    stopped = replace(stopped, after=stopped.after._replace(process_s=1.005))
    told = "none of the process's threads computed: it was stopped, or one that waited kept the GIL"
    assert judge(stopped) == Judgement("gil-contention", told, nobodys=True)
    assert judge(computed) == Judgement("gil-contention", "another thread kept the GIL", nobodys=True)


def test_a_thread_that_was_not_let_run_is_nobody_s_fault() -> None:
    """Whatever it was about to do."""
    judgement = judge(facts(incident(cpu=0.1, waited=0.8, late=(0.1,)), cpu=0.1, waited=0.8))
    assert (judgement.cause, judgement.nobodys) == ("descheduled", True)
    assert judgement.detail == "ready to run, and not let, for 160 ms"


def test_what_would_have_been_a_block_on_a_free_machine_is_the_session_s() -> None:
    """60 of its 200 ms it computed, more than the threshold; how long it was not let is told beside."""
    late = (0.0, 0.005, 0.005, 0.006)
    judgement = judge(facts(incident(cpu=0.3, waited=0.7, late=late), cpu=0.3, waited=0.7))
    assert judgement == Judgement("cpu", "ready to run, and not let, for 140 ms")


def test_on_a_crowded_machine_computing_is_still_computing() -> None:
    """A third of the time running and a third of it ready to run is no waiting in a call, and no one else's GIL."""
    late = (0.0, 0.005, 0.005, 0.006)
    assert judge(facts(incident(cpu=0.35, waited=0.35, late=late), cpu=0.35, waited=0.35)).cause == "cpu"
    assert judge(facts(incident(cpu=0.35, waited=0.35, late=(0.15,)), cpu=0.35, waited=0.35)).cause == "native"


def test_not_having_been_looked_at_is_evidence_too() -> None:
    """A look was due and never came: the GIL was kept, by the thread itself where it computed."""

    def unseen() -> Incident:
        return Incident(START, before=Usage(START, 0.0, 0.0), late=[0.155], dues=[START + 0.045])

    assert judge(facts(unseen(), cpu=1)).cause == "native"
    assert judge(facts(unseen(), cpu=0)).cause == "gil-contention"
    assert judge(facts(unseen(), cpu=0, in_step=False)).cause == "gil-contention"


def test_a_short_native_block_is_told_from_python_code() -> None:
    """The first tick comes late in it: what counts is how late it is against what was left of the block."""
    after = Usage(START + 0.059, 0.059, 0.0)
    for late, cause in ((0.0135, "native"), (0.0055, "cpu")):
        looks = [[Call(CODE, 1)]]
        first = Usage(START + 0.045 + late, 0.045 + late, 0.0)
        seen = Incident(START, Usage(START, 0.0, 0.0), first, looks, late=[late], dues=[START + 0.045])
        assert judge(Facts(START, START + 0.059, in_step=True, limit=LIMIT, incident=seen, after=after)).cause == cause


def test_what_the_loop_was_idle_for_is_not_counted_as_work_ahead() -> None:
    """A tick long before the block, and nothing but waiting in between: all the processor time is the block's."""
    seen = Incident(START, before=Usage(START - 0.04, 0.0, 0.0), late=[0.015], dues=[START + 0.005], idle_before=1.0)
    seen.looks = [[Call(CODE, 1)]]
    told = Facts(
        START,
        START + 0.06,
        in_step=True,
        limit=LIMIT,
        incident=seen,
        after=Usage(START + 0.06, 0.035, 0.0),
        idle_after=1.04,
    )
    assert judge(told).cause == "cpu"
    seen.idle_before = told.idle_after = None
    assert judge(told).cause == "sync-call"


def test_a_collection_that_took_most_of_it_is_nobody_s_fault() -> None:
    """Its generation and its part are told."""
    judgement = judge(facts(incident(cpu=1), cpu=1, gc_s=0.15, gc_generation=2))
    assert judgement == Judgement("gc", "generation 2, 150 ms of it", nobodys=True)


def test_an_import_is_told_with_the_module() -> None:
    """However it spends its time."""
    assert judge(facts(incident(cpu=1, module="numpy"), cpu=1)) == Judgement("import", "numpy")


def test_a_burst_names_who_took_part() -> None:
    """The three who took most; untagged tasks together."""
    sessions = [Session(f"job-{n}", "a", {}, 0.0) for n in range(3)]
    steps = [Span(Account(session), START, START + 0.02 * (n + 1)) for n, session in enumerate(sessions)]
    steps.append(Span(Account(), START, START + 0.05))
    judgement = judge(facts(None, in_step=False, steps=steps))
    assert judgement == Judgement("burst", "job-2 60 ms, untagged tasks 50 ms, job-1 40 ms")


def test_an_iteration_without_steps_is_a_callback() -> None:
    """What ran was no task."""
    assert judge(facts(incident(cpu=0), in_step=False)) == Judgement("callback")


def test_what_was_not_seen_has_no_cause() -> None:
    """Nothing is guessed."""
    assert judge(facts(None)) == Judgement(None)
    assert judge(facts(None, in_step=False)) == Judgement(None)


def test_where_processor_time_is_not_told_starving_still_is() -> None:
    """On platforms without a thread clock."""
    seen = incident(cpu=0, late=(0.15,))
    seen.before = seen.before._replace(cpu_s=None, waited_s=None)
    assert judge(facts(seen, waited=None)) == Judgement("native")
    seen.late = [0.0]
    assert judge(facts(seen, waited=None)) == Judgement(None)


# --- without a GIL -----------------------------------------------------------------------------------


def test_without_a_gil_nobody_keeps_it() -> None:
    """A look that came late says nothing of another thread: a thread that waited, waited in a call."""
    assert judge(facts(incident(cpu=0.02, late=(0.15,)), cpu=0.02, gil=False)) == Judgement("sync-call")


def test_without_a_gil_c_code_is_not_told_from_python_code() -> None:
    """Looks are never late, and would be no evidence if they were."""
    assert judge(facts(incident(cpu=1, late=(0.15,)), cpu=1, gil=False)) == Judgement("cpu")
    assert judge(facts(incident(cpu=1), cpu=1, gil=False)) == Judgement("cpu")


def test_without_a_gil_another_threads_collection_stops_the_loop() -> None:
    """It is nobody's, as the loop's own would be."""
    judgement = judge(facts(incident(cpu=0.02), cpu=0.02, gil=False, gc_elsewhere_s=0.15))
    assert judgement == Judgement("gc", "on another thread, 150 ms of it", nobodys=True)
    assert judge(facts(incident(cpu=0.9), cpu=0.9, gil=False, gc_elsewhere_s=0.15)).cause == "cpu"


def test_a_look_that_is_being_added_is_no_error() -> None:
    """The watchdog adds to its lists one after the other, and the loop's thread may read them in between."""
    seen = incident(cpu=1, late=(0.0, 0.15))
    seen.dues.pop()
    assert not seen.starved(END)
