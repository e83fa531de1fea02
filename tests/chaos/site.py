"""The processes of a run, each on a host of its own, with proxies in front of the servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from hosts import Hosts
from processes import BIN, REPO

from chaos.history import History
from chaos.proxy import Control, Rule

COORDINATOR = "coordinator"
PORT, PROXY_PORT = 7000, 7001  # of the coordinator
TEACHER_PORT = 7070
BUFFERS = 4096, 16384  # bytes; gradients are 100 kB
PYTHON = os.environ | {"PYTHONPATH": f"{REPO / 'tests'}:{REPO / 'python'}"}


@dataclass
class Life:
    """A process from its start to its end."""

    name: str
    process: subprocess.Popen[bytes]
    history: Path | None = None
    # A signal of ours ends it, or has ended it.
    killed: bool = False
    told_to_leave: bool = False
    stopped: bool = False
    since: float = field(default_factory=time.time)

    @property
    def runs(self) -> bool:
        return self.process.poll() is None and not self.killed

    def send(self, number: int) -> None:
        self.killed |= number == signal.SIGKILL
        self.told_to_leave |= number == signal.SIGTERM
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.stopped = number == signal.SIGSTOP
        self.process.send_signal(number)


class Site:
    """Hosts: the coordinator's, one a teacher, one a student. Everything in it ends with the block."""

    def __init__(self, folder: Path, spec: Path, teachers: int, students: int, label_delay: float) -> None:
        self.folder, self.spec = folder, spec
        self.label_rule = Rule(delay=label_delay)
        self.teachers = [f"teacher-{i}" for i in range(teachers)]
        self.students = [f"student-{i}" for i in range(students)]
        self.hosts = Hosts(COORDINATOR, *self.teachers, *self.students)
        self.lives: dict[str, Life] = {}
        self.past: list[Life] = []
        self.proxies: list[subprocess.Popen[str]] = []
        self.controls: dict[str, Control] = {}
        self.small_buffers: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> Site:
        for name in ("logs", "history"):
            (self.folder / name).mkdir(parents=True)
        with ExitStack() as stack:
            stack.enter_context(self.hosts)
            stack.callback(self._end)
            # Of every other student, so that gradients leave in pieces, and others arrive faster than they are read.
            self.small_buffers = [name for name in self.students[::2] if self.hosts.shrink_buffers(name, *BUFFERS)]
            self._front(COORDINATOR, PROXY_PORT, f"127.0.0.1:{PORT}")
            for name in self.teachers:
                self.hosts.add_address(name, self._behind(name))
                self._front(name, TEACHER_PORT, f"{self._behind(name)}:{TEACHER_PORT}")
                self.controls[name].rule(self.label_rule)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # The processes.

    def start(self, name: str) -> Life:
        if name == COORDINATOR:
            words = ["polystill-coordinator", "--spec", str(self.spec), "--resume-or-start", "--insecure"]
            words += ["--listen", f"0.0.0.0:{PORT}", "--advertise", self.hosts.address(name)]
        elif name in self.teachers:
            words = ["polystill-teacher", "--coordinator", self.coordinator, "--teacher", "english", "--insecure"]
            words += ["--server-id", name]
            words += ["--listen", f"{self._behind(name)}:{TEACHER_PORT}", "--advertise", self.hosts.address(name)]
        else:
            words = ["polystill-student", "--coordinator", self.coordinator, "--host", self.hosts.address(name)]
        history = None
        if name in self.students:
            history = self.folder / "history" / f"{name}-{sum(life.name == name for life in self.past)}.jsonl"
            words += ["--trace-records", str(history)]
        with (self.folder / "logs" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self._on(name), str(BIN / words[0]), *words[1:]],
                stdout=log,
                stderr=log,
                cwd=REPO,
                start_new_session=True,  # Ctrl-C is for the one who runs all this
            )
        self.lives[name] = life = Life(name, process, history)
        self.past.append(life)
        return life

    def is_running(self, name: str) -> bool:
        return name in self.lives and self.lives[name].runs

    def running(self, names: list[str]) -> list[str]:
        return [name for name in names if self.is_running(name)]

    def kill(self, name: str) -> None:
        self.lives[name].send(signal.SIGKILL)
        self.lives[name].process.wait()

    def histories(self) -> list[History]:
        """Of all students that there ever were."""
        return [
            History(life.history, life.killed)
            for life in self.past
            if life.history is not None and life.history.exists()
        ]

    def log(self, name: str, lines: int = 5) -> str:
        path = self.folder / "logs" / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    @property
    def coordinator(self) -> str:
        return f"{self.hosts.address(COORDINATOR)}:{PROXY_PORT}"

    def scale(self, workers: int) -> bool:
        """Whether the coordinator has heard it."""
        words = [sys.executable, "-m", "chaos.scale", f"{self.hosts.address(COORDINATOR)}:{PORT}", str(workers)]
        with (self.folder / "logs" / "scale.log").open("ab") as log:
            done = subprocess.run([*self._on(COORDINATOR), *words], stdout=log, stderr=log, env=PYTHON, check=False)
        return done.returncode == 0

    # The network.

    def healed_rule(self, server: str) -> Rule:
        return self.label_rule if server in self.teachers else Rule()

    def _behind(self, teacher: str) -> str:
        """The address at which the teacher itself listens; that of its host is the proxy's."""
        return self.hosts.address(teacher).replace("10.7.", "10.9.", 1)

    def _front(self, name: str, port: int, to: str) -> None:
        control = self.folder / f"{name}.proxy"
        words = ["--listen", f"{self.hosts.address(name)}:{port}", "--to", to, "--control", str(control)]
        process = subprocess.Popen(
            [*self._on(name), sys.executable, "-m", "chaos.proxy", *words],
            stdout=subprocess.PIPE,
            text=True,
            env=PYTHON,
            start_new_session=True,
        )
        self.proxies.append(process)
        assert process.stdout is not None
        if not process.stdout.readline().startswith("listening"):
            raise RuntimeError(f"the proxy of {name} did not start")
        self.controls[name] = Control(control)

    def _on(self, name: str) -> list[str]:
        """A process of a host also ends when this one is killed."""
        return [*self.hosts.on(name), "setpriv", "--pdeathsig", "KILL"]

    def _end(self) -> None:
        for life in self.lives.values():
            if life.process.poll() is None:
                life.send(signal.SIGKILL)
        for proxy in self.proxies:
            proxy.kill()
        for life in self.lives.values():
            life.process.wait()
        for proxy in self.proxies:
            proxy.wait()
            if proxy.stdout is not None:
                proxy.stdout.close()
