"""Starts Polystill's programs as real processes, as a person would by hand, on ports that the system chooses."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

REPO = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("POLYSTILL_BIN", REPO / "build" / "release" / "bin"))
SAMPLE = REPO / "recipes" / "package_topics" / "sample.yaml"
PATIENCE_SECONDS = 120
# For `unshare`: root needs no user namespace (and in a chroot may not make one), others are root in one of their own.
AS_ROOT = [] if os.geteuid() == 0 else ["--map-root-user"]


def wait_for_file(path: Path, process: subprocess.Popen[bytes], seconds: float = 60) -> str:
    """The content of a file that a process is about to write atomically."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode} before it wrote {path}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} was not written within {seconds} s")
        time.sleep(0.02)
    return path.read_text().strip()


def wait_for_text(path: Path, text: str, process: subprocess.Popen[Any], seconds: float = 60) -> None:
    """Until a log that a process writes holds `text`."""
    deadline = time.monotonic() + seconds
    while not path.exists() or text not in path.read_text(errors="replace"):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode} before {path} said {text!r}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not say {text!r} within {seconds} s")
        time.sleep(0.02)


@dataclass
class Cluster:
    """One coordinator, teachers and students on loopback; every process is ended when the block is left."""

    folder: Path
    spec: Path = SAMPLE
    settings: list[str] = field(default_factory=list)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    address: str = ""

    def __enter__(self) -> Cluster:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
        for process in self.processes.values():
            process.wait()

    def start(self, name: str, program: str, *arguments: str, on: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """`on`: what a host of hosts.py writes before its commands."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([*on, str(BIN / program), *arguments], stdout=log, stderr=log, cwd=REPO)
        self.processes[name] = process
        return process

    def start_coordinator(self, *arguments: str, on: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        address_file = self.folder / "coordinator.address"
        settings = [word for setting in self.settings for word in ("--set", setting)]
        process = self.start(
            "coordinator",
            "polystill-coordinator",
            "--spec",
            str(self.spec),
            "--address-file",
            str(address_file),
            *settings,
            *arguments,
            on=on,
        )
        self.address = wait_for_file(address_file, process)
        return process

    def start_teacher(
        self, teacher: str, index: int = 0, *arguments: str, on: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        words = ["--coordinator", self.address, "--teacher", teacher, *arguments]
        return self.start(f"teacher-{teacher}-{index}", "polystill-teacher", *words, on=on)

    def start_student(self, index: int, *arguments: str, on: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        return self.start(f"student-{index}", "polystill-student", "--coordinator", self.address, *arguments, on=on)

    def wait(self, name: str, seconds: float = PATIENCE_SECONDS) -> int:
        try:
            return self.processes[name].wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{name} still runs after {seconds} s:\n{self.log(name)}") from error

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")
