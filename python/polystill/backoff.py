"""How long to wait before asking again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential, with jitter: pauses double from `first` to `longest` seconds, each times a factor in [0.5, 1)."""

    first: float = 0.1
    longest: float = 2.0

    def pause(self, attempt: int, uniform: float | None = None) -> float:
        """Seconds before retry `attempt`, counted from 0; `uniform` in [0, 1), drawn when left out."""
        drawn = random.random() if uniform is None else uniform
        doubled = self.first * 2.0 ** min(attempt, 60)
        return min(doubled, self.longest) * (0.5 + 0.5 * drawn)
