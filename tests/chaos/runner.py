"""A chaos run: from the teacher's package to the verdict."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos import memory, runs, targets
from chaos.checker import Verdict, check
from chaos.faults import CHURN, LABEL_DELAY, Fault, Kind, draw, fastest, steps_for
from chaos.history import Violation, plan_of
from chaos.injector import Injector
from chaos.measures import (
    RETURN,
    RecoverySummary,
    Summary,
    commits,
    final_loss,
    note_returns,
    recoveries,
    step_ratio_of_coordinator_deaths,
    steps_by_student,
    steps_undone,
)
from chaos.memory import Samples
from chaos.progress import Progress
from chaos.site import COORDINATOR, Site

TICK = 0.02
LOOK_EVERY = 0.1
SAMPLE_EVERY = 1.0
# Without a step for so long, a run that is not disturbed any more stands still.
STALL = 120.0
LEAVE_PATIENCE = 60.0
TOLD_PATIENCE = 5.0
EXIT_DONE, EXIT_TERMINATED = 0, 143
GOOD_ENDS = {EXIT_DONE, EXIT_TERMINATED}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    folder: Path
    faults: int
    seed: int
    # Faults that leave the coordinator and the teachers alive, whose memory is then watched.
    churn: bool = False
    workers: int = 3
    teachers: int = 2
    # Between two faults, in the mean of those that do not come in quick succession.
    steps_between: float = 60
    # Undisturbed runs, each of another seed; that of the run's own seed tells the plan.
    undisturbed: int = 1
    # Seconds that labels take longer on their way, each way.
    label_delay: float = LABEL_DELAY


@dataclass
class Outcome:
    result: dict[str, Any]
    violations: list[Violation] = field(default_factory=list)


class Watch:
    """One chaos run while it lasts."""

    def __init__(self, options: Options, site: Site, faults: list[Fault], steps: int, say: Say) -> None:
        self.options, self.site, self.say, self.steps = options, site, say, steps
        self.faults = faults[::-1]
        self.injector = Injector(site, options.workers)
        self.progress = Progress(runs.JOB, site.folder / "history")
        self.violations: list[Violation] = []
        self.samples: dict[int, Samples] = {}
        self.began = self.last_move = self.last_fault = time.monotonic()
        self.steps_at_last_fault = 0
        self._ended_at: dict[int, float] = {}  # by process id

    def run(self) -> None:
        for name in [COORDINATOR, *self.site.teachers, *self.site.students[: self.options.workers]]:
            self.site.start(name)
        next_look = next_sample = 0.0
        while not self._is_over():
            now = time.monotonic()
            self.injector.tick()
            if now >= next_look:
                next_look = now + LOOK_EVERY
                self._look(now)
            if now >= next_sample:
                next_sample = now + SAMPLE_EVERY
                self._sample(now)
            self._inject_if_due(now)
            time.sleep(TICK)
        self._wait_for_ends()

    def _look(self, now: float) -> None:
        if self.progress.look():
            self.last_move = now
        self._notice_ends(now)
        done = self.injector.done
        self.say(f"{len(done)} of {self.options.faults} faults, step {self.progress.steps} of {self.steps}")

    def _inject_if_due(self, now: float) -> None:
        if not self.faults or self.progress.steps == 0:
            return
        fault = self.faults[-1]
        steps = self.progress.steps - self.steps_at_last_fault
        if steps < fault.after_steps and now < self.last_fault + fault.after_seconds:
            return
        if fault.calm and self.injector.rest() < RETURN:
            return
        done = self.injector.do(fault)
        if done is None:
            return  # nobody is there to do it to; some come back soon
        done.steps = self.progress.steps
        when = time.strftime("%H:%M:%S", time.localtime(done.at)) + f".{int(done.at * 1000) % 1000:03}"
        with (self.site.folder / "faults.txt").open("a") as log:
            log.write(f"{when} step {done.steps}: {done.kind} {done.name} for {fault.seconds:.1f} s\n")
        self.faults.pop()
        self.last_fault = time.monotonic()
        self.steps_at_last_fault = self.progress.steps

    def _is_over(self) -> bool:
        life = self.site.lives[COORDINATOR]
        if not life.killed and life.process.poll() is not None:
            return True
        if time.monotonic() - self.last_move > STALL:
            self._wrong("stalled", f"no step for {STALL:.0f} s at step {self.progress.steps}", COORDINATOR)
            return True
        return False

    def _notice_ends(self, now: float) -> None:
        """Of processes that nobody killed. When the coordinator ends a little later, it has told them to."""
        for name, life in list(self.site.lives.items()):
            code = life.process.poll()
            if code is None or life.killed or name == COORDINATOR or (life.told_to_leave and code == EXIT_TERMINATED):
                continue
            if now - self._ended_at.setdefault(life.process.pid, now) > TOLD_PATIENCE:
                self._wrong("ended", f"{name} ended by itself with {code}", name)
                self.site.start(name)

    def _wait_for_ends(self) -> None:
        self.progress.look()
        life = self.site.lives[COORDINATOR]
        if life.process.poll() != EXIT_DONE:
            self._wrong("ended", f"the coordinator ended with {life.process.poll()}", COORDINATOR)
            return
        if self.faults:
            self._wrong("short", f"the run ended when {len(self.injector.done)} faults were done")
        deadline = time.monotonic() + LEAVE_PATIENCE
        self.injector.close()
        for name, other in self.site.lives.items():
            while other.process.poll() is None and time.monotonic() < deadline:
                time.sleep(TICK)
            if other.process.poll() is None:
                self._wrong("ended", f"{name} does not end although the run is done", name)
            elif not other.killed and other.process.returncode not in GOOD_ENDS:
                self._wrong("ended", f"{name} ended with {other.process.returncode} after the run", name)

    def _wrong(self, kind: str, message: str, name: str = "") -> None:
        said = f":\n{self.site.log(name)}" if name else ""
        self.violations.append(Violation(kind, f"after {len(self.injector.done)} faults: {message}{said}"))

    def _sample(self, now: float) -> None:
        for name in [COORDINATOR, *self.site.teachers]:
            if self.site.is_running(name):
                pid = self.site.lives[name].process.pid
                self.samples.setdefault(pid, Samples(name, pid)).take(now - self.began)


def run(options: Options, say: Say) -> Outcome:
    """RuntimeError when a run that nothing disturbs fails."""
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    kinds = CHURN if options.churn else None
    faults = list(draw(options.seed, options.faults, options.steps_between, kinds))
    steps = steps_for(faults, fastest(options.label_delay))
    say("training a teacher")
    package = runs.train_teacher(options.folder / "teacher")
    losses = []
    plan: list[list[str]] = []
    for number in range(options.undisturbed):
        say(f"a run of {steps} steps that nothing disturbs")
        history = runs.plan_run(options.folder / f"undisturbed-{number}", package, steps, options.seed + number)
        own = plan_of(history, runs.JOB)
        losses.append(final_loss(check([history], runs.JOB, own)))
        plan = plan or own
    folder = options.folder / "disturbed"
    size = runs.Size(steps, options.workers, options.workers + 1, options.teachers)
    folder.mkdir()
    spec = runs.write(runs.run_file(package, folder / "run", size, options.seed), folder / "run.yaml")
    with Site(folder, spec, options.teachers, options.workers + 1, options.label_delay) as site:
        watch = Watch(options, site, faults, steps, say)
        watch.run()
        histories = site.histories()
    say("checking the histories")
    return conclude(options, watch, check(histories, runs.JOB, plan), losses)


def conclude(options: Options, watch: Watch, verdict: Verdict, losses: list[float | None]) -> Outcome:
    done = watch.injector.done
    times = commits(verdict)
    note_returns(times, done, steps_by_student(verdict))
    found = recoveries(times, done)
    after_kill, after_stop, after_coordinator = (
        RecoverySummary.of(found, kind) for kind in (Kind.KILL_STUDENT, Kind.STOP_STUDENT, Kind.KILL_COORDINATOR)
    )
    undone = steps_undone(verdict)
    ratio = step_ratio_of_coordinator_deaths(times, done)
    growth, grown = memory.judge(watch.samples.values()) if options.churn else (None, [])
    result = {
        "faults": len(done),
        "steps": verdict.steps,
        "records_lost": verdict.records_lost,
        "records_doubled": verdict.records_doubled,
        "replicas_equal": verdict.replicas_equal,
        "steps_undone": {"times": sum(steps > 0 for steps in undone), "max": max(undone, default=0)},
        "recovery_seconds": plain(after_kill),
        "stop_recovery_seconds": plain(after_stop),
        "any_recovery_seconds": plain(Summary.of([recovery.seconds for recovery in found])),
        "coordinator_recovery_seconds": plain(after_coordinator),
        "coordinator_step_ratio": None if ratio is None else {"count": ratio[0], "median": ratio[1]},
        "missed": targets.missed(found, after_kill.median if after_kill else None, ratio[1] if ratio else None),
        "final_loss": final_loss(verdict),
        "undisturbed_loss": losses,
        "generations": len(verdict.generations),
        "memory": growth,
        "small_buffers": watch.site.small_buffers,
        "seed": options.seed,
        "seconds": round(time.monotonic() - watch.began, 1),
        "kinds": dict(sorted(Counter(str(fault.kind) for fault in done).items())),
    }
    return Outcome(result, watch.violations + verdict.violations + targets.hangs(found) + grown)


def plain(value: RecoverySummary | Summary | None) -> dict[str, Any] | None:
    return None if value is None else asdict(value)
