"""The schedule of faults follows from the seed, and a run is as long as it."""

from __future__ import annotations

from collections import Counter

import pytest

from chaos.faults import (
    CALM_SECONDS,
    CHURN,
    LABEL_DELAY,
    LASTING,
    MEASURED,
    NEVER,
    Fault,
    Kind,
    draw,
    fastest,
    steps_for,
)


def test_a_seed_draws_the_same_faults_and_another_one_others() -> None:
    assert list(draw(7, 100, 60)) == list(draw(7, 100, 60))
    assert list(draw(7, 100, 60)) != list(draw(8, 100, 60))


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_once_before_any_comes_again(seed: int) -> None:
    kinds = [fault.kind for fault in draw(seed, 40, 60)]
    assert set(kinds[: len(Kind)]) == set(Kind)
    churn = [fault.kind for fault in draw(seed, 40, 60, CHURN)]
    assert set(churn) == set(CHURN)


def test_faults_come_often_in_quick_succession_and_lasting_ones_outlast_the_heartbeat_at_times() -> None:
    faults = list(draw(1, 3000, 60))
    faults = [fault for fault in faults if not fault.calm]
    soon = [fault for fault in faults if fault.after_steps == NEVER]
    assert 0.28 < len(soon) / len(faults) < 0.38
    assert all(fault.after_seconds <= 2 for fault in soon)
    assert sum(f.after_steps for f in faults if f.after_steps != NEVER) / (len(faults) - len(soon)) == pytest.approx(
        60, rel=0.1
    )
    long = [fault for fault in faults if fault.kind in LASTING | {Kind.STOP_STUDENT} and fault.seconds > 5]
    assert 100 < len(long) < 500
    assert all(fault.seconds <= 9 for fault in faults)
    counts = Counter(fault.kind for fault in faults)
    assert counts[Kind.KILL_STUDENT] > counts[Kind.KILL_TEACHER] > counts[Kind.JOIN] > 0


def test_the_last_of_many_faults_are_those_that_are_measured_and_come_one_by_one() -> None:
    faults = list(draw(3, 1000, 50))
    assert [fault.calm for fault in faults] == [False] * 940 + [True] * 60
    counts = Counter(fault.kind for fault in faults[940:])
    assert set(counts) == set(MEASURED) and min(counts.values()) >= 5
    assert all(fault.after_steps == NEVER and fault.after_seconds == CALM_SECONDS for fault in faults[940:])
    assert not any(fault.calm for fault in draw(3, 49, 50))
    assert not any(fault.calm for fault in draw(3, 1000, 50, CHURN))


def test_a_run_outlasts_its_faults() -> None:
    faults = [
        Fault(Kind.KILL_STUDENT, 0, 1, after_steps=50, after_seconds=20),
        Fault(Kind.RESET, 0, 1, after_steps=NEVER, after_seconds=1.5),
    ]
    assert steps_for(faults, speed=60, tail=10) == 50 + 72 + 600
    # With labels that come at once a second is more steps.
    assert fastest(LABEL_DELAY) > 1 / LABEL_DELAY  # what two steps asked for ahead allow
    assert fastest(0) > 3 * fastest(LABEL_DELAY)
    assert steps_for(faults, speed=fastest(0)) > 50 + 3 * (72 + 600)
