"""Whether a process grows: resident memory and descriptors, sampled over its life."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos.history import Violation

WARM_UP = 0.2  # of a process's life, not looked at
SHORTEST = 10.0  # minutes; what lived for less is not judged: caches and arenas still fill


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

    @property
    def minutes(self) -> float:
        return (self.seconds[-1] - self.seconds[0]) / 60 if self.seconds else 0.0


@dataclass(frozen=True)
class Bounds:
    """Growth a minute. Up to `small` it is flat; above that it may be noise, but never above `large`."""

    small: float
    large: float


KIB = Bounds(small=16, large=128)  # 16 KiB a minute are 23 MiB a day
DESCRIPTORS = Bounds(small=0.1, large=1)


@dataclass(frozen=True)
class Slope:
    """A line through samples of a process's life but its beginning, by least squares."""

    per_minute: float
    # Of per_minute, from the medians of ten parts, since neighbouring samples are no independent ones.
    standard_error: float

    def is_flat(self, bounds: Bounds) -> bool:
        in_noise = self.per_minute <= 3 * self.standard_error and self.per_minute <= bounds.large
        return self.per_minute <= bounds.small or in_noise

    @staticmethod
    def of(seconds: Sequence[float], values: Sequence[float], skipped: float = WARM_UP) -> Slope | None:
        first = int(len(seconds) * skipped)
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


def judge(processes: Iterable[Samples]) -> tuple[list[dict[str, Any]], list[Violation]]:
    """How each grows, and which do not stay flat. `flat` is none where one lived too briefly to be judged."""
    found: list[dict[str, Any]] = []
    wrong: list[Violation] = []
    for samples in processes:
        kib = Slope.of(samples.seconds, samples.kib)
        late = Slope.of(samples.seconds, samples.kib, skipped=0.5)
        descriptors = Slope.of(samples.seconds, samples.descriptors)
        if kib is None or descriptors is None:
            continue
        flat = None
        if samples.minutes >= SHORTEST:
            flat = kib.is_flat(KIB) and descriptors.is_flat(DESCRIPTORS)
        if flat is False:
            what = f"{kib.per_minute} KiB (+-{kib.standard_error}) and {descriptors.per_minute} descriptors"
            wrong.append(
                Violation("memory", f"{samples.name} grows by {what} a minute over {samples.minutes:.0f} minutes")
            )
        found.append(
            {
                "name": samples.name,
                "minutes": round(samples.minutes, 1),
                "kib": samples.kib[-1],
                "kib_a_minute": asdict(kib),
                "kib_a_minute_late": asdict(late) if late else None,  # of the second half: whether growth fades
                "descriptors_a_minute": asdict(descriptors),
                "flat": flat,
            }
        )
    return found, wrong
