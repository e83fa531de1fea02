"""Starts a rival as a process of its own."""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.ours import output_of


def number_from(module: str, settings: dict[str, Any]) -> float:
    """The number that `python -m benchmarks.rivals.MODULE` prints last."""
    return float(output_of([sys.executable, "-m", f"benchmarks.rivals.{module}", json.dumps(settings)]).split()[-1])
