"""Ratios of two sides that are measured in turn, so that what slows the machine slows both."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FEWEST_PAIRS = 7


@dataclass
class Ratio:
    """Samples of two sides, in seconds; the ratio is taken pair by pair: `over` by `under`."""

    name: str
    over: str
    under: str
    samples: dict[str, list[float]] = field(default_factory=dict)

    def pairs(self) -> list[float]:
        return [a / b for a, b in zip(self.samples[self.over], self.samples[self.under], strict=True)]

    def median(self) -> float:
        return statistics.median(self.pairs())

    def interval(self) -> tuple[float, float]:
        """Of the median: the narrowest order statistics that hold it with at least 95%, whatever the distribution."""
        ordered = sorted(self.pairs())
        cut, tail = 0, 0.5 ** len(ordered)
        while True:
            tail += math.comb(len(ordered), cut + 1) * 0.5 ** len(ordered)
            if 2 * tail > 0.05:
                return ordered[cut], ordered[-1 - cut]
            cut += 1

    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        low, high = self.interval()
        seconds = ", ".join(f"{name} {statistics.median(values):.3g}" for name, values in self.samples.items())
        return self.name, f"{self.median():.3f}", f"{low:.3f} to {high:.3f}", str(len(self.pairs())), seconds


@dataclass
class Figure:
    """A number that is no ratio of times, with the tables that it was taken from: rows of a name and a value each."""

    name: str
    value: float
    note: str = ""
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def cells(self) -> tuple[str, ...]:
        return self.name, f"{self.value:.3f}", self.note


Results = Sequence[Ratio | Figure]


def measure(ratio: Ratio, sides: dict[str, Callable[[], float]], pairs: int) -> Ratio:
    """Fills in `pairs` samples of each side, after one of each that does not count: A B, B A, A B ..."""
    ratio.samples = {name: [] for name in (ratio.over, ratio.under)}
    for name in ratio.samples:
        sides[name]()
    for pair in range(pairs):
        for name in list(ratio.samples)[:: 1 if pair % 2 == 0 else -1]:
            ratio.samples[name].append(sides[name]())
        if sys.stderr.isatty():
            print(f"\r\033[K  {ratio.name}: {pair + 1} of {pairs} pairs", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return ratio


def machine() -> dict[str, Any]:
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")), ""
    )
    return {
        "cpu": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def table(results: Results) -> str:
    paired = any(isinstance(result, Ratio) for result in results)
    heads = ("ratio", "median", "95% interval", "pairs", "median seconds") if paired else ("figure", "value", "")
    return aligned([heads, *(result.cells() for result in results)])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def write(name: str, results: Results, settings: dict[str, Any], about: dict[str, Any], folder: Path) -> Path:
    ratios = [result for result in results if isinstance(result, Ratio)]
    figures = [result for result in results if isinstance(result, Figure)]
    report = {
        "name": name,
        "ratios": {ratio.name: ratio.median() for ratio in ratios} | {figure.name: figure.value for figure in figures},
        "intervals": {ratio.name: ratio.interval() for ratio in ratios},
        "samples": {ratio.name: ratio.samples for ratio in ratios},
        "tables": {key: rows for figure in figures for key, rows in figure.tables.items()},
        "settings": settings,
        "machine": about,
    }
    path = folder / f"bench-{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path
