"""What is asked of recovery times, and what misses it. Machines are noisy: only a hang makes a run fail."""

from __future__ import annotations

import time
from collections.abc import Sequence

from chaos.faults import HEARTBEAT_TIMEOUT, Kind
from chaos.history import Violation
from chaos.measures import Recovery

# Seconds without a step.
AFTER_KILL = 10.0
AFTER_KILL_MEDIAN = 2.0
AFTER_STOP = HEARTBEAT_TIMEOUT + 3
AFTER_COORDINATOR_KILL = 1.0
STEP_RATIO = 1.1  # after the coordinator's death
# No fault lasts longer than HEARTBEAT_TIMEOUT + 4 s, so a run without a step for so long hangs.
HANG = 30.0

MOST = {
    Kind.KILL_STUDENT: AFTER_KILL,
    Kind.STOP_STUDENT: AFTER_STOP,
    Kind.KILL_COORDINATOR: AFTER_COORDINATOR_KILL,
}


def missed(found: Sequence[Recovery], median_after_kill: float | None, step_ratio: float | None) -> list[str]:
    """A line for each figure that is not reached. Recoveries count when no other fault was in force; a hang counts
    whatever else was."""
    lines = []
    for recovery in found:
        most = MOST.get(recovery.fault.kind)
        if most is not None and recovery.alone and recovery.seconds > most:
            lines.append(f"{describe(recovery)}; {most:g} s are allowed")
        elif recovery.seconds > HANG:
            lines.append(f"{describe(recovery)}, with other faults in force")
    if median_after_kill is not None and median_after_kill > AFTER_KILL_MEDIAN:
        lines.append(f"median after kill_student {median_after_kill} s; {AFTER_KILL_MEDIAN:g} s are allowed")
    if step_ratio is not None and step_ratio > STEP_RATIO:
        lines.append(f"steps take {step_ratio} times as long after kill_coordinator; {STEP_RATIO:g} is allowed")
    return lines


def hangs(found: Sequence[Recovery]) -> list[Violation]:
    """Of a kill or stop of a student, whatever else was in force: two faults in quick succession are the likeliest to
    hang a run. One violation a hang, however many faults came during it."""
    ends: set[float] = set()
    wrong = []
    for recovery in found:
        mine = recovery.fault.kind in (Kind.KILL_STUDENT, Kind.STOP_STUDENT) and recovery.seconds > HANG
        if mine and not any(abs(end - recovery.end) < 0.001 for end in ends):
            wrong.append(Violation("hang", describe(recovery)))
            ends.add(recovery.end)
    return wrong


def describe(recovery: Recovery) -> str:
    fault = recovery.fault
    when = time.strftime("%H:%M:%S", time.localtime(fault.at))
    return f"{fault.kind} {fault.name} at {when}, step {fault.steps}: {recovery.seconds:.1f} s without a step"
