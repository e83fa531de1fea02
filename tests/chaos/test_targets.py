"""Which recovery times miss what is asked for, and which are a hang."""

from __future__ import annotations

import pytest

from chaos.faults import Kind
from chaos.measures import Done, Recovery
from chaos.targets import HANG, hangs, missed


def after(kind: Kind, seconds: float, begin: float = 100.0, alone: bool = True) -> Recovery:
    return Recovery(Done(kind, "student-1", begin, begin + 1, steps=7), begin, seconds, alone)


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [(Kind.KILL_STUDENT, 10.0), (Kind.STOP_STUDENT, 8.0), (Kind.KILL_COORDINATOR, 1.0)],
)
def test_slow_recoveries_are_named(kind: Kind, allowed: float) -> None:
    assert missed([after(kind, allowed - 0.01)], None, None) == []
    lines = missed([after(kind, allowed + 0.5)], None, None)
    assert len(lines) == 1
    assert f"{kind} student-1" in lines[0] and "step 7" in lines[0] and f"{allowed:g} s are allowed" in lines[0]
    # With others in force it is nobody's, unless it is a hang.
    assert missed([after(kind, allowed + 0.5, alone=False)], None, None) == []
    assert len(missed([after(kind, HANG + 1, alone=False)], None, None)) == 1


def test_medians_are_judged() -> None:
    assert missed([], 2.0, 1.1) == []
    assert len(missed([], 2.1, None)) == 1
    assert len(missed([], None, 1.2)) == 1


@pytest.mark.parametrize("kind", [Kind.KILL_STUDENT, Kind.STOP_STUDENT])
@pytest.mark.parametrize("alone", [True, False])
def test_a_hang_makes_the_run_fail(kind: Kind, alone: bool) -> None:
    assert hangs([after(kind, HANG - 1, alone=alone)]) == []
    assert [violation.kind for violation in hangs([after(kind, 90, alone=alone)])] == ["hang"]


def test_one_hang_is_one_violation_however_many_faults_come_during_it() -> None:
    found = [after(Kind.KILL_STUDENT, 90, begin=100), after(Kind.STOP_STUDENT, 50, begin=140)]
    assert len(hangs(found)) == 1
    assert len(hangs([*found, after(Kind.KILL_STUDENT, 90, begin=300)])) == 2
    # Slow for another reason: it is in the list of what is missed.
    held = after(Kind.HOLD, 90)
    assert hangs([held]) == [] and len(missed([held], None, None)) == 1
