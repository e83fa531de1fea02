"""A short chaos run with real processes on hosts of their own: a fault of every kind, and no record lost or doubled."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from processes import REPO

from chaos.faults import Kind
from chaos.site import PYTHON

SEED = 20261122


def chaos(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "chaos", *arguments],
        cwd=REPO,
        env=PYTHON,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background jobs ignore it, and so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines of living processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_a_fault_of_every_kind_loses_and_doubles_nothing(tmp_path: Path) -> None:
    process = chaos("--faults", str(len(Kind)), "--seed", str(SEED), "--out", str(tmp_path / "chaos"))
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors + output
    result = json.loads(output.splitlines()[-1])
    assert result["faults"] == len(Kind)
    assert set(result["kinds"]) == set(Kind)
    assert (result["records_lost"], result["records_doubled"], result["replicas_equal"]) == (0, 0, True)
    assert result["generations"] > 3
    assert result["any_recovery_seconds"]["count"] == len(Kind)
    assert result["final_loss"] < 2 * result["undisturbed_loss"][0]
    assert processes_of(tmp_path) == []


def test_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    process = chaos("--faults", "50", "--seed", "1", "--out", str(tmp_path / "chaos"))
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "chaos").glob("disturbed/history/*")):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "every process has been ended" in errors
    assert processes_of(tmp_path) == []
