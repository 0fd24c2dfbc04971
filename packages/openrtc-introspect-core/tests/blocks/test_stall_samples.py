"""What each stall sample stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from openrtc_introspect_core._blocks.stall_samples import MAX_PLACES, Look, StallSamples
from openrtc_introspect_core._blocks.without_gil import WithoutGil
from openrtc_introspect_core._loops.hook import Running
from openrtc_introspect_core._os.stacks import Call, Calls
from openrtc_introspect_core._os.thread_usage import Usage

NOBODY = Running()


def at(function: str) -> Calls:
    return (Call("agents/a.py", 7, function),)


def span() -> StallSamples:
    """A step that began at second 10, whose first sample is due after 20 ms."""
    return StallSamples(10.0, Usage(10.0, 0.0, 0.0), next_due=10.02)


def sees(*samples: WithoutGil) -> Look:
    """Return these samples that were taken without the GIL, whenever asked."""

    def look(since: float, until: float) -> Sequence[WithoutGil]:
        return samples

    return look


def seconds(samples: StallSamples) -> dict[str, float]:
    """The seconds by function."""
    return {calls[0].function: round(each, 6) for (calls, _), each in samples.places.items()}


def test_a_sample_stands_for_the_time_until_the_next_one_is_due() -> None:
    """The first one, since the beginning; the last one, to the end."""
    samples = span()
    samples.add(at("prepare"), NOBODY, 10.02, 10.02)
    samples.add(at("prepare"), NOBODY, 10.025, 10.03)
    samples.add(at("redact"), NOBODY, 10.035, 12.0)
    samples.next_due = 12.005
    assert seconds(samples.up_to(12.004)) == {"prepare": 0.035, "redact": 1.969}


def test_after_a_late_sample_the_next_one_counts_from_there() -> None:
    """What had kept the GIL was just over."""
    samples = span()
    samples.add(at("redact"), NOBODY, 10.02, 11.0)
    samples.add(at("prepare"), NOBODY, 11.005, 11.01)
    samples.add(at("prepare"), NOBODY, 11.015, 11.02)
    assert seconds(samples) == {"redact": 1.0, "prepare": 0.02}


def test_reading_consumes_nothing() -> None:
    """A snapshot reads while the block goes on."""
    samples = span()
    samples.add(at("prepare"), NOBODY, 10.02, 10.02)
    samples.next_due = 10.025
    assert seconds(samples.up_to(10.026)) == {"prepare": 0.026}
    assert seconds(samples) == {"prepare": 0.02}


def test_what_was_seen_without_the_gil_counts_until_a_late_sample_came() -> None:
    """The late sample finds where the GIL was given away, which is later."""
    samples = span()
    samples.add(at("prepare"), NOBODY, 10.02, 10.02)
    seen = WithoutGil(10.035, 10.5, 1, at("redact")), WithoutGil(10.51, 10.69, 1, at("encode"))
    samples.add(at("answer"), NOBODY, 10.025, 10.7, sees(*seen))
    assert seconds(samples) == {"prepare": 0.025, "redact": 0.475, "encode": 0.2, "answer": 0.0}
    assert samples.latest == (at("answer"), NOBODY)
    assert samples.kept_by_loop


def test_a_sample_that_comes_in_time_asks_for_nothing() -> None:
    """There is nothing that the GIL was kept for."""

    def look(since: float, until: float) -> Sequence[WithoutGil]:
        raise AssertionError

    span().add(at("prepare"), NOBODY, 10.02, 10.025, look)


def test_the_end_of_a_span_that_no_sample_has_seen_was_seen_without_the_gil() -> None:
    """The loop's thread records the block before the watchdog has got the GIL."""
    samples = span()
    samples.add(at("prepare"), NOBODY, 10.02, 10.02)
    samples.next_due = 10.025
    ended = samples.up_to(11.0, sees(WithoutGil(10.04, 10.99, 1, at("redact"))))
    assert seconds(ended) == {"prepare": 0.025, "redact": 0.975}
    assert (ended.unseen_s, ended.starved, ended.kept_by_loop) == (0.0, True, True)


def test_where_nobody_could_see_the_end_it_is_unseen() -> None:
    """So it counts for no place."""
    samples = span()
    samples.add(at("prepare"), NOBODY, 10.02, 10.02)
    samples.next_due = 10.025
    ended = samples.up_to(11.0)
    assert (seconds(ended), round(ended.unseen_s, 6), ended.starved) == ({"prepare": 0.025}, 0.975, True)


def test_a_span_without_any_sample_was_seen_without_the_gil() -> None:
    """The first one was due, and the block ended before it came."""
    ended = span().up_to(10.3, sees(WithoutGil(10.03, 10.29, 2, at("redact"))))
    assert seconds(ended) == {"redact": 0.3}
    assert (ended.starved, ended.kept_by_loop) == (True, False)


def test_the_loops_thread_kept_the_gil_if_nobody_else_had_it_meanwhile() -> None:
    """Though nobody looked: before a sample that came late, or until the end."""
    samples = span()
    samples.add(at("prepare"), NOBODY, 10.02, 10.02)
    samples.add(at("redact"), NOBODY, 10.025, 10.225, alone=True)
    assert (samples.kept_by_loop, samples.alone_s) == (True, pytest.approx(0.2))
    samples.delayed_by(0.1)
    assert (samples.kept_by_loop, samples.alone_s) == (True, pytest.approx(0.1))
    samples.add(at("answer"), NOBODY, 10.23, 10.43)
    samples.delayed_by(0.05)
    assert (samples.kept_by_loop, samples.alone_s) == (False, pytest.approx(0.1))
    samples.next_due = 10.435
    assert samples.up_to(10.7, alone=True).kept_by_loop
    assert not samples.up_to(10.7).kept_by_loop


def test_a_sample_that_was_not_due_yet_is_not_missed() -> None:
    """The block was over before."""
    ended = span().up_to(10.021)
    assert (seconds(ended), ended.kept_s, ended.unseen_s, ended.starved) == ({}, 0.0, 0.0, False)


def test_lateness_before_the_span_does_not_count() -> None:
    """The sample was due before the step began."""
    samples = span()
    samples.add(at("redact"), NOBODY, 9.0, 10.5)
    assert (samples.kept_s, samples.first_due) == (0.5, 10.0)


@pytest.mark.parametrize(("run_delay", "kept"), [(0.0, 0.5), (0.2, 0.3), (0.495, 0.0), (1.0, 0.0)])
def test_run_delay_of_the_watchdog_is_no_wait_for_the_gil(run_delay: float, kept: float) -> None:
    """What is left is within the time in which Python code gives the GIL away, or counts."""
    samples = span()
    samples.add(at("redact"), NOBODY, 10.02, 10.52)
    samples.delayed_by(run_delay)
    assert samples.kept_s == pytest.approx(kept)


def test_the_place_with_the_least_time_makes_room() -> None:
    """A long block that is everywhere is bounded, and the place that it is at most is kept."""
    samples = span()
    now = 10.02
    for number in range(3 * MAX_PLACES):
        for name, pause in ((f"f{number}", 0.005), ("often", 0.006)):
            samples.add(at(name), NOBODY, now, now + pause)
            now += pause
    assert len(samples.places) == MAX_PLACES
    assert seconds(samples)["often"] == pytest.approx(0.006 * 3 * MAX_PLACES)


def test_what_was_seen_without_the_gil_before_a_signal_handler_is_not_the_handler_s() -> None:
    """C code kept the GIL, and Python called the handler as soon as that was over."""
    task = Call("agents/a.py", 7, "answer")
    handler = Running(signal=("agents/a.py", "handle"))
    samples = span()
    before, inside = (Call("agents/a.py", 8, "redact"), task), (Call("agents/a.py", 9, "handle"), task)
    seen = WithoutGil(10.1, 10.4, 1, before), WithoutGil(10.45, 10.6, 1, inside)
    samples.add(inside, handler, 10.02, 10.7, sees(*seen))
    assert {calls[0].function: running for (calls, running) in samples.places} == {"redact": None, "handle": handler}


Correct = Callable[[StallSamples], None]


def late_once(late: float, correct: Correct = lambda samples: None) -> StallSamples:
    """Return the samples of Python code, of which the second one came late.

    correct: says what is known of the late sample, when it has been added.
    """
    samples, due = span(), 10.02
    for number, each in enumerate((0.005, late, *[0.005] * 8)):
        samples.add(at("compute"), NOBODY, due, due + each)
        if number == 1:
            correct(samples)
        due += each + 0.005
    return samples


@pytest.mark.parametrize(
    ("correct", "only_c"),
    [
        (lambda samples: None, True),
        (lambda samples: samples.delayed_by(0.145), False),
        (lambda samples: samples.delayed_by(0.0, 0.145), False),
        (lambda samples: samples.delayed_by(0.12, 0.12), False),
        (lambda samples: samples.delayed_by(0.0, passed=True), False),
        (lambda samples: samples.delayed_by(0.01, 0.02), True),
    ],
    ids=["kept", "the watchdog did not run", "the loop's thread did not", "neither", "passed around", "mostly kept"],
)
def test_a_late_sample_counts_for_what_ran_meanwhile(correct: Correct, only_c: bool) -> None:
    """One long wait is not taken for C code if the threads waited for a processor, or for their turn."""
    assert late_once(0.15, correct).is_only_c(0.0) is only_c


def test_collections_are_no_c_code_of_the_block() -> None:
    """They keep the GIL, too: what is left is judged without them."""
    samples = late_once(0.15)
    assert samples.is_only_c(0.0)
    assert not samples.is_only_c(0.14)


def test_what_did_not_run_until_the_end_was_not_kept() -> None:
    """Of the sample that was due then, nobody knows; the place before it goes on."""
    samples = span()
    samples.add(at("compute"), NOBODY, 10.02, 10.025)
    samples.next_due = 10.03
    kept, not_run = samples.up_to(10.2), samples.up_to(10.2, not_run_s=0.17)
    assert (round(kept.kept_s, 6), kept.is_only_c(0.0)) == (0.17, True)
    assert (not_run.kept_s, not_run.unseen_s, not_run.is_only_c(0.0)) == (0.0, 0.0, False)


def test_code_that_was_seen_to_keep_the_gil_while_it_ran_is_c() -> None:
    """Whatever the waits say on a busy machine. While the thread does not run, any stack stands still."""
    samples = span()
    samples.add(at("compute"), NOBODY, 10.02, 10.025)
    samples.add(at("compute"), NOBODY, 10.03, 10.2, sees(WithoutGil(10.04, 10.2, 1, at("compute"))))
    samples.delayed_by(0.16, 0.16)
    assert not samples.is_only_c(0.0, 0.165)
    assert samples.is_only_c(0.0, 0.1)
