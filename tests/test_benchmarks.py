"""The benchmarks' pairs of rounds, and their cases of other builds."""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

import pytest
from benchmarks import _pairs, _runner, cost

pytestmark = pytest.mark.program

PER_STEP = 1e-6


def alternated(*added: float, limit_s: float = 60.0) -> tuple[Mapping[str, object], list[str]]:
    """Run pairs with these differences by turns. Return what was compared, and the order of the rounds."""
    order: list[str] = []
    measured = itertools.cycle(added)

    async def plain(_: Sequence[str]) -> Mapping[str, float]:
        order.append("plain")
        return {"step": PER_STEP}

    async def attached(_: Sequence[str]) -> Mapping[str, float]:
        order.append("attached")
        return {"step": PER_STEP + next(measured)}

    return asyncio.run(_pairs.alternate(["step"], plain, attached, limit_s))["step"], order


def test_an_interval_has_the_median_in_it_as_often_as_it_says() -> None:
    chooser = random.Random(20_010_327)
    hits = 0
    for _ in range(1000):
        low, high = _pairs.interval([chooser.expovariate(1.0) for _ in range(50)])
        hits += low <= 0.6931 <= high
    assert hits >= 930


def test_an_interval_of_few_values_is_their_range() -> None:
    assert _pairs.interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_one_value_far_out_changes_neither_the_median_nor_its_interval() -> None:
    values = [float(number) for number in range(50)]
    with_outlier = [*values[:-1], 1e9]
    assert (median(values), _pairs.interval(values)) == (median(with_outlier), _pairs.interval(with_outlier))


def test_rounds_take_turns_in_either_order() -> None:
    _, order = alternated(0.1e-6)
    assert order[:8] == ["plain", "attached", "attached", "plain"] * 2


def test_pairs_end_when_the_interval_is_narrow() -> None:
    found, order = alternated(0.1e-6, 0.101e-6)
    assert found["narrow"]
    assert len(order) == 2 * _pairs.MIN_PAIRS


def test_pairs_end_when_the_time_is_over_and_say_so() -> None:
    found, order = alternated(0.1e-6, -0.1e-6, limit_s=0.05)
    assert not found["narrow"]
    assert len(order) >= 2


def test_a_case_of_the_build_before_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_runner.BEFORE_VARIABLE, str(_runner.ROOT))
    before = next(case for case in cost.cases(quick=True) if case.before)
    result = _runner.run(replace(before, arguments=before.arguments | {"limit_s": 0.0, "tasks": 100}))
    assert result["step"]["pairs"] == 1


def test_without_its_tree_there_is_no_case_of_the_build_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_runner.BEFORE_VARIABLE, raising=False)
    assert not any(case.before for case in cost.cases(quick=True))


def test_a_tree_without_packages_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks", "--list", "--before", "docs"]
    done = subprocess.run(command, cwd=_runner.ROOT, capture_output=True, text=True, timeout=60.0, check=False)
    assert done.returncode == 2
    assert "--before docs: it has no folder 'packages'" in done.stderr
