"""`polystill run` starts processes that were killed again, and the run goes on to its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from processes import BIN, REPO
from test_resume import STEPS, write_spec


def pid_of(run: subprocess.Popen[str], program: str) -> int:
    children = [
        int(pid) for task in Path(f"/proc/{run.pid}/task").glob("*/children") for pid in task.read_text().split()
    ]
    return next(pid for pid in children if Path(f"/proc/{pid}/exe").resolve().name == program)


def wait_for_steps(status: Path, steps: int, run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while run.poll() is None and time.monotonic() < deadline:
        asked = subprocess.run(
            [str(BIN / "polystill"), "status", str(status), "--json"], capture_output=True, text=True
        )
        stages = json.loads(asked.stdout)["stages"] if asked.returncode == 0 else []
        if any(stage["name"] == "distilled" and int(stage["done"]) >= steps for stage in stages):
            return
        time.sleep(0.05)
    raise AssertionError(f"step {steps} was not reached")


def test_a_run_survives_the_kill_of_each_kind_of_process(tmp_path: Path) -> None:
    output = tmp_path / "run"
    spec = write_spec(tmp_path / "run.yaml", output, workers=2, min_workers=1, epochs=600)
    steps = STEPS * 4
    command = [str(BIN / "polystill"), "run", str(spec)]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        for share, program in [(0.1, "student"), (0.3, "coordinator"), (0.6, "teacher")]:
            wait_for_steps(output, int(steps * share), run)
            os.kill(pid_of(run, f"polystill-{program}"), signal.SIGKILL)
        out, err = run.communicate(timeout=180)
    assert run.returncode == 0, out + err
    again = re.findall(r"(student|coordinator|teacher)\S* was killed by signal 9 \(Killed\); it is started again", out)
    assert again == ["student", "coordinator", "teacher"], out
    assert "distilled" in out
    report = json.loads((output / "report.json").read_text())
    assert report["labels"]["count"] == steps * 16
