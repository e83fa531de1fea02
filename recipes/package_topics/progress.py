"""One line of progress on a terminal; nothing at all elsewhere."""

from __future__ import annotations

import sys

WIDTH = 30


class ProgressBar:
    def __init__(self, title: str) -> None:
        self._title = title
        self._shown = sys.stderr.isatty()

    def __call__(self, fraction: float) -> None:
        if not self._shown:
            return
        filled = round(WIDTH * min(max(fraction, 0.0), 1.0))
        bar = "━" * filled + "╌" * (WIDTH - filled)
        print(f"\r{self._title} {bar} {fraction:4.0%}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
