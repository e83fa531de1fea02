"""What a chaos run's histories say about time."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chaos.checker import Verdict
from chaos.faults import Kind

# A fault is in force until it is healed and so many seconds more,
SOON = 1.0
# or, when it hit a student, until that student's next step, but for no more seconds than these: it may not be wanted.
RETURN = 5.0
# A recovery counts if no other fault was in force during so many seconds of it.
ALONE = 10.0
# A student works when it has applied a step within so many seconds of the last one of all.
IDLE = 1.0
BEFORE, AFTER = 30.0, 5.0


@dataclass
class Done:
    """A fault that was done."""

    kind: Kind
    name: str
    at: float  # Unix time
    healed: float = math.inf
    # Until when it is in force: set by note_returns() when all is known.
    over: float = math.inf
    # It hit a student that had no part in the steps just then: one too many, or one that was still coming back.
    idle: bool = False
    steps: int = 0


@dataclass(frozen=True)
class Summary:
    count: int
    median: float
    max: float

    @staticmethod
    def of(values: Sequence[float]) -> Summary | None:
        if not values:
            return None
        return Summary(len(values), round(statistics.median(values), 3), round(max(values), 3))


def commits(verdict: Verdict) -> list[float]:
    """When each step of the lineage was first applied, in Unix time."""
    times = []
    for stretch in verdict.lineage:
        members = verdict.generations[stretch.generation].values()
        for step in range(stretch.begin, stretch.end):
            times.append(min(stay.applied[step]["at"] for stay in members if step in stay.applied))
    return times


def final_loss(verdict: Verdict, steps: int = 200) -> float | None:
    """Mean loss of a record over the last steps of the lineage."""
    losses, records = 0.0, 0
    for stretch in verdict.lineage:
        for step in range(max(stretch.begin, verdict.steps - steps), stretch.end):
            for stay in verdict.generations[stretch.generation].values():
                if step in stay.applied:
                    count = len(stay.slices[step]["ids"])
                    losses += stay.applied[step]["loss"] * count
                    records += count
    return losses / records if records else None


def steps_undone(verdict: Verdict) -> list[int]:
    """By generation of the lineage: steps that somebody had applied before it, and that it did again."""
    found = []
    before = 0
    for stretch in verdict.lineage:
        stays = [s for n in range(before, stretch.generation) for s in verdict.generations.get(n, {}).values()]
        found.append(max([stay.steps for stay in stays if stay.applied], default=stretch.begin) - stretch.begin)
        before = stretch.generation
    return found


def steps_by_student(verdict: Verdict) -> dict[str, list[float]]:
    """When each student applied a step, whatever became of it; in order. A history's file is NAME-LIFE.jsonl."""
    found: dict[str, list[float]] = {}
    for members in verdict.generations.values():
        for stay in members.values():
            mine = found.setdefault(stay.agreed.place.rpartition("-")[0], [])
            mine += [line["at"] for line in stay.applied.values()]
    return {name: sorted(times) for name, times in found.items()}


def note_returns(times: Sequence[float], faults: Sequence[Done], students: Mapping[str, Sequence[float]]) -> None:
    """Sets until when each fault is in force: a student that it hit works again, or a server has had time to start."""
    for fault in faults:
        fault.over = fault.healed + SOON
        mine = students.get(fault.name, ())
        if fault.kind in (Kind.KILL_STUDENT, Kind.STOP_STUDENT):
            last, last_of_all = _last(mine, fault.at), _last(times, fault.at)
            fault.idle = last < last_of_all - IDLE
        if mine and not fault.idle:
            index = bisect_right(mine, fault.healed)
            fault.over = min(mine[index] if index < len(mine) else math.inf, fault.healed + RETURN)


def _last(times: Sequence[float], at: float) -> float:
    index = bisect_right(times, at)
    return times[index - 1] if index > 0 else -math.inf


@dataclass(frozen=True)
class Recovery:
    """The longest time without a step of the lineage that began while the fault was in force."""

    fault: Done
    begin: float  # Unix time
    seconds: float
    # No other fault was in force until it had ended, or had lasted ALONE seconds.
    alone: bool

    @property
    def end(self) -> float:
        return self.begin + self.seconds


def silence(times: Sequence[float], begin: float, until: float) -> tuple[float, float]:
    """The longest time without a commit of those that began from `begin` to `until`: its beginning, and its seconds."""
    longest = begin, 0.0
    index = bisect_right(times, begin)
    while index < len(times):
        since = max(begin, times[index - 1]) if index > 0 else begin
        if since > until:
            break
        if times[index] - since > longest[1]:
            longest = since, times[index] - since
        index += 1
    return longest


def alone(fault: Done, faults: Sequence[Done], end: float) -> bool:
    """Whether no other fault was in force from the one until `end`."""
    return not any(other is not fault and other.at < end and other.over > fault.at for other in faults)


def recoveries(times: Sequence[float], faults: Sequence[Done]) -> list[Recovery]:
    """After each fault."""
    found = []
    for fault in faults:
        begin, seconds = silence(times, fault.at, max(fault.over, fault.at + SOON))
        # A slow recovery is not left out for what happened to it later.
        found.append(Recovery(fault, begin, seconds, alone(fault, faults, begin + min(seconds, ALONE))))
    return found


@dataclass(frozen=True)
class RecoverySummary:
    """Seconds; of the faults that were alone, and of those that are left out because others were in force. Those of
    students that did not work are in neither."""

    count: int
    median: float | None
    max: float | None
    left_out: int
    left_out_max: float | None
    idle: int

    @staticmethod
    def of(found: Iterable[Recovery], kind: Kind) -> RecoverySummary | None:
        mine = [recovery for recovery in found if recovery.fault.kind is kind]
        if not mine:
            return None
        working = [recovery for recovery in mine if not recovery.fault.idle]
        counted = Summary.of([recovery.seconds for recovery in working if recovery.alone])
        others = Summary.of([recovery.seconds for recovery in working if not recovery.alone])
        return RecoverySummary(
            counted.count if counted else 0,
            counted.median if counted else None,
            counted.max if counted else None,
            others.count if others else 0,
            others.max if others else None,
            len(mine) - len(working),
        )


def step_ratio_of_coordinator_deaths(times: Sequence[float], faults: Sequence[Done]) -> tuple[int, float] | None:
    """Median step of the 5 s after the death divided by that of the 30 s before: how many deaths had no other fault in
    force in those 5 s, and the median over them."""
    ratios = []
    for fault in faults:
        if fault.kind is not Kind.KILL_COORDINATOR or not alone(fault, faults, fault.at + AFTER):
            continue
        before = _steps(times, fault.at - BEFORE, fault.at)
        after = _steps(times, fault.at, fault.at + AFTER)
        if len(before) >= 10 and after:
            ratios.append(statistics.median(after) / statistics.median(before))
    return (len(ratios), round(statistics.median(ratios), 3)) if ratios else None


def _steps(times: Sequence[float], begin: float, end: float) -> list[float]:
    first, last = max(1, bisect_right(times, begin)), min(len(times), bisect_right(times, end) + 1)
    return [times[i] - times[i - 1] for i in range(first, last)]
