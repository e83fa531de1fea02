"""Times and slopes, on lists that are small enough to be reckoned by hand."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path

import pytest

from chaos.checker import check
from chaos.faults import Kind
from chaos.measures import (
    Done,
    Samples,
    Slope,
    Summary,
    alone,
    commits,
    coordinator_deaths,
    final_loss,
    recovery,
    silence,
)
from chaos.planted import JOB, PLAN, STEPS, disturbed, write

# A step each 0.1 s for 100 s, but for 50.0 to 52.5 and 80.2 to 81.0; in Unix time a little above 1000.
TIMES = [1000 + i / 10 for i in range(1, 1000) if not (500 < i < 525 or 802 < i < 810)]


@pytest.mark.parametrize(
    ("at", "seconds"),
    [
        (1010.03, 0.1),  # nothing happened
        (1050.05, 2.45),  # from the fault on
        (1049.33, 2.5),  # a few steps more were applied
        (1048.5, 0.1),  # what begins a second and a half later is no silence of this fault
        (1051.0, 1.5),
        (1099.95, 0.0),  # there is no step after it
    ],
)
def test_the_silence_after_a_fault(at: float, seconds: float) -> None:
    assert silence(TIMES, at) == pytest.approx(seconds, abs=1e-6)


def test_recovery_is_of_faults_that_were_alone() -> None:
    faults = [
        Done(Kind.KILL_STUDENT, "student-0", 1010.0, healed=1011.0),
        Done(Kind.KILL_STUDENT, "student-1", 1050.05, healed=1051.0),
        Done(Kind.KILL_STUDENT, "student-2", 1080.25, healed=1081.0),
        Done(Kind.STOP_TEACHER, "teacher-0", 1080.5, healed=1085.0),
    ]
    assert recovery(TIMES, faults, {Kind.KILL_STUDENT}) == Summary(2, 1.275, 2.45)
    assert recovery(TIMES, faults, {Kind.KILL_STUDENT}, by_itself=False) == Summary(3, 0.75, 2.45)
    assert recovery(TIMES, faults, {Kind.KILL_TEACHER}) is None
    assert not alone(faults[2], faults, 0.7)
    assert alone(faults[0], faults, 1)
    # One that was never healed lasts.
    assert not alone(faults[1], [*faults, Done(Kind.HOLD, "coordinator", 1001.0)], 1)


def test_the_step_after_the_coordinators_death() -> None:
    # 20 ms steps, 30 ms ones for 5 s after the death with a gap of half a second.
    times = [1000 + i * 0.02 for i in range(2000)]
    death = times[-1]
    times += [death + 0.5 + i * 0.03 for i in range(300)]
    faults = [Done(Kind.KILL_COORDINATOR, "coordinator", death + 0.001, healed=death + 1)]
    found = coordinator_deaths(times, faults)
    assert found is not None
    assert (found.count, found.step_ratio, found.longest_gap) == (1, 1.5, 0.5)
    faults.append(Done(Kind.KILL_STUDENT, "student-0", death + 3, healed=death + 4))
    assert coordinator_deaths(times, faults) is None


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


def test_slopes() -> None:
    generator = random.Random(1)
    seconds = [float(second) for second in range(1800)]
    flat = Slope.of(seconds, [50_000 + generator.gauss(0, 100) for _ in seconds])
    grows = Slope.of(seconds, [50_000 + second / 60 * 20 + generator.gauss(0, 100) for second in seconds])
    assert flat is not None and grows is not None
    assert flat.is_flat and abs(flat.per_minute) < 5
    assert not grows.is_flat and grows.per_minute == pytest.approx(20, abs=5)
    # The beginning does not count.
    begins = Slope.of(seconds, [min(second, 200) * 100 for second in seconds])
    assert begins == Slope(0, 0)
    assert Slope.of(seconds[:20], seconds[:20]) is None


def test_samples_are_of_living_processes() -> None:
    samples = Samples("this", os.getpid())
    samples.take(1.0)
    descriptor = os.open("/dev/null", os.O_RDONLY)
    samples.take(2.0)
    os.close(descriptor)
    assert samples.seconds == [1.0, 2.0]
    assert samples.descriptors[1] == samples.descriptors[0] + 1
    assert samples.kib[0] > 1000
    gone = Samples("gone", 1 << 22)
    gone.take(1.0)
    assert gone.seconds == []
    assert not math.isnan(samples.kib[0])
