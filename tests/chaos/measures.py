"""What a chaos run's histories and samples say about time and memory."""

from __future__ import annotations

import math
import re
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.checker import Verdict
from chaos.faults import Kind

# A silence is a fault's when it begins within so many seconds of it.
SOON = 1.0
BEFORE, AFTER = 30.0, 5.0
WARM_UP = 0.2  # of a process's life, not looked at


@dataclass
class Done:
    """A fault that was done."""

    kind: Kind
    name: str
    at: float  # Unix time
    healed: float = math.inf
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


def silence(times: Sequence[float], at: float) -> float:
    """Seconds of the longest time without a commit that began after the fault, but soon."""
    longest = 0.0
    index = bisect_right(times, at)
    while index < len(times):
        begin = max(at, times[index - 1]) if index > 0 else at
        if begin > at + SOON:
            break
        longest = max(longest, times[index] - begin)
        index += 1
    return longest


def alone(fault: Done, faults: Sequence[Done], seconds: float) -> bool:
    """Whether no other fault was in force from the one to `seconds` after it."""
    return not any(other is not fault and other.at < fault.at + seconds and other.healed > fault.at for other in faults)


def recovery(
    times: Sequence[float], faults: Sequence[Done], kinds: set[Kind], by_itself: bool = True
) -> Summary | None:
    """Seconds without a commit after faults of these kinds; of those during which no other fault was in force."""
    found = []
    for fault in faults:
        seconds = silence(times, fault.at)
        if fault.kind in kinds and (not by_itself or alone(fault, faults, seconds)):
            found.append(seconds)
    return Summary.of(found)


@dataclass(frozen=True)
class CoordinatorDeath:
    """Over the deaths of the coordinator with no other fault in the five seconds after."""

    count: int
    # Median step of the 5 s after it, divided by that of the 30 s before: the median over the deaths.
    step_ratio: float
    longest_gap: float  # seconds


def coordinator_deaths(times: Sequence[float], faults: Sequence[Done]) -> CoordinatorDeath | None:
    ratios, gaps = [], []
    for fault in faults:
        if fault.kind is not Kind.KILL_COORDINATOR or not alone(fault, faults, AFTER):
            continue
        before = _steps(times, fault.at - BEFORE, fault.at)
        after = _steps(times, fault.at, fault.at + AFTER)
        if len(before) < 10 or not after:
            continue
        ratios.append(statistics.median(after) / statistics.median(before))
        gaps.append(max(after))
    if not ratios:
        return None
    return CoordinatorDeath(len(ratios), round(statistics.median(ratios), 3), round(max(gaps), 3))


def _steps(times: Sequence[float], begin: float, end: float) -> list[float]:
    first, last = max(1, bisect_right(times, begin)), min(len(times), bisect_right(times, end) + 1)
    return [times[i] - times[i - 1] for i in range(first, last)]


@dataclass
class Samples:
    """Of one process: resident memory and descriptors over time."""

    name: str
    pid: int
    seconds: list[float] = field(default_factory=list)
    kib: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def take(self, now: float) -> None:
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
            descriptors = sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())
        except OSError:
            return
        if found := re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE):
            self.seconds.append(now)
            self.kib.append(int(found.group(1)))
            self.descriptors.append(descriptors)


@dataclass(frozen=True)
class Slope:
    """A line through samples of a process's life but its beginning, by least squares."""

    per_minute: float
    # Of per_minute, from the medians of ten parts, since neighbouring samples are no independent ones.
    standard_error: float

    @property
    def is_flat(self) -> bool:
        return self.per_minute <= 3 * self.standard_error

    @staticmethod
    def of(seconds: Sequence[float], values: Sequence[float]) -> Slope | None:
        first = int(len(seconds) * WARM_UP)
        size = (len(seconds) - first) // 10
        if size < 3:
            return None
        parts = range(first, first + 10 * size, size)
        x = [statistics.fmean(seconds[i : i + size]) / 60 for i in parts]
        y = [statistics.median(values[i : i + size]) for i in parts]
        line = statistics.linear_regression(x, y)
        residual = sum((b - line.slope * a - line.intercept) ** 2 for a, b in zip(x, y, strict=True))
        spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
        error = math.sqrt(residual / (len(x) - 2) / spread)
        return Slope(round(line.slope, 3), round(error, 3))
