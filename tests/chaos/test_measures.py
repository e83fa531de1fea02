"""Times, on lists that are small enough to be reckoned by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.checker import check
from chaos.faults import Kind
from chaos.measures import (
    ALONE,
    RETURN,
    SOON,
    Done,
    Recovery,
    RecoverySummary,
    alone,
    commits,
    final_loss,
    note_returns,
    recoveries,
    silence,
    step_ratio_of_coordinator_deaths,
    steps_by_student,
    steps_undone,
)
from chaos.planted import JOB, PLAN, STEPS, disturbed, write

# A step each 0.1 s for 100 s, but for 50.0 to 52.5 and 80.2 to 81.0; in Unix time a little above 1000.
TIMES = [1000 + i / 10 for i in range(1, 1000) if not (500 < i < 525 or 802 < i < 810)]


@pytest.mark.parametrize(
    ("at", "until", "begin", "seconds"),
    [
        (1010.03, 1011, 1010.1, 0.1),  # nothing happened
        (1050.05, 1051, 1050.05, 2.45),  # from the fault on
        (1049.33, 1050.5, 1050.0, 2.5),  # a few steps more were applied
        (1048.5, 1049.5, 1048.6, 0.1),  # what begins after the time asked for is another's
        (1048.5, 1050, 1050.0, 2.5),
        (1051.0, 1051.0, 1051.0, 1.5),
        (1099.95, 1101, 1099.95, 0.0),  # there is no step after it
    ],
)
def test_the_silence_after_a_fault(at: float, until: float, begin: float, seconds: float) -> None:
    found = silence(TIMES, at, until)
    assert found[1] == pytest.approx(seconds, abs=1e-6)
    if seconds > 0.2:
        assert found[0] == pytest.approx(begin, abs=1e-6)


def kill(at: float, seconds: float = 1.0, name: str = "student-0", kind: Kind = Kind.KILL_STUDENT) -> Done:
    return Done(kind, name, at, healed=at + seconds)


def found_after(times: list[float], faults: list[Done], **students: list[float]) -> list[Recovery]:
    named = {name.replace("_", "-"): steps for name, steps in students.items()}
    note_returns(times, faults, {"student-0": times, "student-1": times} | named)
    return recoveries(times, faults)


def steps_but(*gaps: tuple[float, float], end: float = 200) -> list[float]:
    """A step each 0.1 s from 0 on, but within these times."""
    return [i / 10 for i in range(int(end * 10)) if not any(a < i / 10 < b for a, b in gaps)]


def test_a_hang_counts_although_faults_come_during_it() -> None:
    # As a machine that stands for 90 s sees it: the next fault comes 20 s later.
    times = steps_but((10, 100))
    faults = [kill(10.05), kill(30.0), kill(31.0)]
    found = found_after(times, faults)
    assert found[0].alone and found[0].seconds == pytest.approx(89.95)
    summary = RecoverySummary.of(found, Kind.KILL_STUDENT)
    assert summary is not None
    assert (summary.count, summary.max, summary.left_out, summary.left_out_max) == (1, 89.95, 2, 70.0)
    # One within its first seconds may be the cause.
    assert not found_after(times, [kill(10.05), kill(10.05 + ALONE - 1)])[0].alone
    assert RecoverySummary.of(found, Kind.STOP_STUDENT) is None


def test_who_comes_back_stops_the_others_and_that_is_the_faults() -> None:
    # Killed at 10, started at 12, joins at 14: the others stand for three seconds.
    times = steps_but((14, 17))
    mine = [t for t in times if t <= 10 or t >= 17]
    fault = kill(10.05, seconds=2)
    found = found_after(times, [fault], student_0=mine)
    assert fault.over == 17 and not fault.idle
    assert (found[0].begin, found[0].seconds) == (14, 3)
    # Nor is it the fault's that comes meanwhile: that one is not alone.
    later = kill(13.0, seconds=0.5, name="student-1")
    found = found_after(times, [fault, later], student_0=mine)
    assert not found[1].alone and not found[0].alone
    # A stopped one that was taken for dead comes back likewise.
    stopped = kill(10.05, seconds=2, kind=Kind.STOP_STUDENT)
    assert found_after(times, [stopped], student_0=mine)[0].seconds == 3
    # One that is never seen again may not be wanted.
    found_after(times, [fault], student_0=[t for t in times if t <= 10])
    assert fault.over == fault.healed + RETURN
    # A server has a fixed time.
    server = kill(10.05, name="teacher-0", kind=Kind.KILL_TEACHER)
    found_after(times, [server])
    assert server.over == server.healed + SOON


def test_who_had_no_part_in_the_steps_is_not_counted() -> None:
    times = steps_but()
    faults = [kill(50.05), kill(90.05, name="student-1"), kill(130.0, name="student-2")]
    found = found_after(times, faults, student_1=[t for t in times if t < 80])
    assert [fault.idle for fault in faults] == [False, True, True]
    assert faults[1].over == faults[1].healed + SOON
    summary = RecoverySummary.of(found, Kind.KILL_STUDENT)
    assert summary is not None and (summary.count, summary.left_out, summary.idle) == (1, 0, 2)
    # While all stand still, who had part in the last steps works.
    fault = kill(30.0)
    found_after(steps_but((10, 50)), [fault])
    assert not fault.idle


def test_alone() -> None:
    one, other = kill(10.0), kill(13.0)
    one.over, other.over = 12.0, 15.0
    assert alone(one, [one, other], 13.0) and not alone(one, [one, other], 13.1)
    assert alone(other, [one, other], 20.0)
    one.over = 13.5  # it has not come back yet
    assert not alone(other, [one, other], 13.1)
    # One that was never healed lasts.
    assert not alone(one, [one, Done(Kind.HOLD, "coordinator", 1.0)], 10.1)


def test_the_step_after_the_coordinators_death() -> None:
    # 20 ms steps, 30 ms ones for 5 s after the death with a gap of half a second.
    times = [1000 + i * 0.02 for i in range(2000)]
    death = times[-1]
    times += [death + 0.5 + i * 0.03 for i in range(300)]
    faults = [kill(death + 0.001, name="coordinator", kind=Kind.KILL_COORDINATOR)]
    found = found_after(times, faults)
    assert step_ratio_of_coordinator_deaths(times, faults) == (1, 1.5)
    summary = RecoverySummary.of(found, Kind.KILL_COORDINATOR)
    assert summary is not None and summary.max == pytest.approx(0.499)
    faults.append(kill(death + 3))
    found_after(times, faults)
    assert step_ratio_of_coordinator_deaths(times, faults) is None


def test_the_steps_of_each_student(tmp_path: Path) -> None:
    run = disturbed()
    names = {"a": "student-0-0", "b": "student-1-0", "c": "student-2-0", "d": "student-0-1", "e": "student-1-10"}
    verdict = check(write({names.get(who, "student-3-0"): lines for who, lines in run.items()}, tmp_path), JOB, PLAN)
    found = steps_by_student(verdict)
    assert set(found) == {f"student-{i}" for i in range(4)}

    def times(*who: str) -> list[float]:
        return [line["at"] for name in who for line in run[name] if line["event"] == "applied"]

    assert found["student-0"] == sorted(times("a", "d"))
    assert found["student-1"] == sorted(times("b", "e"))


def test_steps_that_were_done_again(tmp_path: Path) -> None:
    """A checkpoint of 14 steps won where 20 had been applied, and that is no matter of the generations after it."""
    verdict = check(write(disturbed(), tmp_path), JOB, PLAN)
    assert [stretch.generation for stretch in verdict.lineage] == [1, 2, 5, 7, 8]
    assert steps_undone(verdict) == [0, 0, 6, 0, 0]


def test_commits_and_loss_of_the_lineage(tmp_path: Path) -> None:
    run = disturbed()
    for process, entries in run.items():
        for entry in entries:
            if entry["event"] == "applied":
                # c is on the lineage in generations 1, 2, 7 and 8 alone.
                entry["loss"] = 100.0 if process == "d" or (process, entry["generation"]) == ("c", 4) else 2.0
    verdict = check(write(run, tmp_path), JOB, PLAN)
    times = commits(verdict)
    assert len(times) == STEPS
    assert times == sorted(times)
    assert final_loss(verdict) == 2.0
