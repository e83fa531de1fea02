"""Starts a rival as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.ours import REPO


def number_from(module: str, settings: dict[str, Any]) -> float:
    """The number that `python -m benchmarks.rivals.MODULE` prints last."""
    command = [sys.executable, "-m", f"benchmarks.rivals.{module}", json.dumps(settings)]
    path = os.pathsep.join([str(REPO), str(REPO / "python")])
    done = subprocess.run(
        command, cwd=REPO, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"the rival {module} failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])
