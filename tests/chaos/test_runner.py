"""What a run is said to have been, from a planted history and planted samples."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chaos.checker import check
from chaos.faults import Kind
from chaos.measures import Done
from chaos.planted import JOB, PLAN, STEPS, disturbed, write
from chaos.runner import Options, Outcome, conclude
from chaos.targets import HANG
from chaos.test_memory import lived


def concluded(folder: Path, hang: float, growth: float, churn: bool = True) -> Outcome:
    """Of a run that stood still for `hang` seconds after a student was killed, while a teacher grew."""
    run = disturbed()
    at = sorted(line["at"] for lines in run.values() for line in lines if line["event"] == "applied")[40]
    for lines in run.values():
        for line in lines:
            line["at"] += hang if line["at"] > at else 0
    verdict = check(write(run, folder), JOB, PLAN)
    faults = [Done(Kind.KILL_STUDENT, "student-9", at, healed=at + 1)]
    watch = SimpleNamespace(
        injector=SimpleNamespace(done=faults),
        samples={1: lived(30, kib_a_minute=growth)},
        site=SimpleNamespace(small_buffers=[]),
        violations=[],
        began=0.0,
    )
    return conclude(Options(folder, 1, 1, churn=churn), cast(Any, watch), verdict, [1.0])


def test_a_good_run(tmp_path: Path) -> None:
    outcome = concluded(tmp_path, hang=0, growth=0)
    assert outcome.violations == []
    assert (outcome.result["steps"], outcome.result["missed"]) == (STEPS, [])
    assert outcome.result["recovery_seconds"]["idle"] == 1
    assert outcome.result["steps_undone"] == {"times": 1, "max": 6}
    assert outcome.result["memory"][0]["flat"] is True


@pytest.mark.parametrize(
    ("hang", "growth", "kinds"), [(HANG + 1, 0, ["hang"]), (0, 1000, ["memory"]), (HANG + 1, 1000, ["hang", "memory"])]
)
def test_a_hang_and_growing_memory_make_it_fail(tmp_path: Path, hang: float, growth: float, kinds: list[str]) -> None:
    assert [violation.kind for violation in concluded(tmp_path, hang, growth).violations] == kinds


def test_memory_is_looked_at_where_processes_live_on(tmp_path: Path) -> None:
    outcome = concluded(tmp_path, hang=0, growth=1000, churn=False)
    assert outcome.result["memory"] is None and outcome.violations == []
