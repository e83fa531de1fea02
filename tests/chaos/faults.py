"""Which fault comes when: a schedule, which follows from the seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

# A worker or server that is silent for so long counts as dead (docs/elastic.md).
HEARTBEAT_TIMEOUT = 5.0
# Seconds that labels take longer on their way, each way: with two steps asked for ahead some 50 steps a second, be it
# one worker or four.
LABEL_DELAY = 0.02
FASTEST = 300.0  # steps a second of this model, whatever the labels' way
NEVER = 1 << 62  # steps


class Kind(StrEnum):
    KILL_STUDENT = "kill_student"
    KILL_TEACHER = "kill_teacher"
    KILL_COORDINATOR = "kill_coordinator"
    STOP_STUDENT = "stop_student"  # SIGSTOP, and SIGCONT later
    STOP_TEACHER = "stop_teacher"
    STOP_COORDINATOR = "stop_coordinator"
    CUT_HOST = "cut_host"  # no packet comes or goes
    CUT_PAIR = "cut_pair"  # none between two students, or a student and the coordinator; both reach all others
    RESET = "reset"  # the connections to a server are reset,
    REFUSE = "refuse"  # and new ones too, for a while
    HALF_CLOSE = "half_close"
    HOLD = "hold"  # the connections to a server are a black hole
    THROTTLE = "throttle"
    DELAY = "delay"
    LEAVE = "leave"  # SIGTERM
    JOIN = "join"  # one more worker than wanted
    SCALE = "scale"  # another number of workers is wanted


WEIGHTS = {
    Kind.KILL_STUDENT: 28,
    Kind.KILL_TEACHER: 12,
    Kind.KILL_COORDINATOR: 10,
    Kind.STOP_STUDENT: 8,
    Kind.STOP_TEACHER: 5,
    Kind.STOP_COORDINATOR: 4,
    Kind.CUT_HOST: 5,
    Kind.CUT_PAIR: 5,
    Kind.RESET: 5,
    Kind.REFUSE: 3,
    Kind.HALF_CLOSE: 3,
    Kind.HOLD: 3,
    Kind.THROTTLE: 3,
    Kind.DELAY: 3,
    Kind.LEAVE: 3,
    Kind.JOIN: 2,
    Kind.SCALE: 3,
}
# Those that leave the coordinator and the teachers alive, whose memory is then watched.
CHURN = [
    Kind.KILL_STUDENT,
    Kind.STOP_STUDENT,
    Kind.CUT_HOST,
    Kind.CUT_PAIR,
    Kind.RESET,
    Kind.REFUSE,
    Kind.HALF_CLOSE,
    Kind.HOLD,
    Kind.LEAVE,
    Kind.JOIN,
    Kind.SCALE,
]
# Those whose recovery has a figure to reach.
MEASURED = [Kind.KILL_STUDENT, Kind.STOP_STUDENT, Kind.KILL_COORDINATOR]
# The last faults of a run, three of fifty, are of these and come one by one. Among faults every three seconds few are
# alone until they have recovered, and those least that take long.
CALM_SECONDS = 7.0
LASTING = {Kind.CUT_HOST, Kind.CUT_PAIR, Kind.REFUSE, Kind.HOLD, Kind.THROTTLE, Kind.DELAY}


@dataclass(frozen=True)
class Fault:
    kind: Kind
    # Which student, teacher, server or host, or how many workers: taken modulo what there is.
    target: int
    # Until it is healed: a killed process is started again, a stopped one continued.
    seconds: float
    # It comes once so many steps more are applied than at the fault before, or `after_seconds` later if that is sooner.
    after_steps: int
    after_seconds: float
    # It waits until all that was done before is over.
    calm: bool = False


def draw(seed: int, count: int, steps_between: float, kinds: list[Kind] | None = None) -> Iterator[Fault]:
    """Each kind once, in any order, before any comes again. A third of the faults comes within two seconds of the one
    before, whatever that one has done to the run; the others after `steps_between` steps in the mean. Unless `kinds`
    are given, the last of many are calm."""
    generator = random.Random(seed)
    allowed = list(kinds or WEIGHTS)
    first = generator.sample(allowed, len(allowed))
    weights = [WEIGHTS[kind] for kind in allowed]
    calm = 0 if kinds else count // 50 * 3
    for number in range(count - calm):
        kind = first[number] if number < len(first) else generator.choices(allowed, weights)[0]
        soon = generator.random() < 1 / 3
        yield Fault(
            kind,
            target=generator.randrange(1 << 16),
            seconds=_duration(generator, kind),
            after_steps=NEVER if soon else max(1, round(generator.expovariate(1 / steps_between))),
            after_seconds=generator.uniform(0, 2) if soon else 20,
        )
    for _ in range(calm):
        kind = generator.choices(MEASURED, [WEIGHTS[kind] for kind in MEASURED])[0]
        yield Fault(kind, generator.randrange(1 << 16), _duration(generator, kind), NEVER, CALM_SECONDS, calm=True)


def _duration(generator: random.Random, kind: Kind) -> float:
    if kind in (Kind.THROTTLE, Kind.DELAY):
        return generator.uniform(0.5, 4)
    if kind in LASTING or kind.startswith("stop"):
        beyond = generator.random() < 0.3
        return (
            generator.uniform(HEARTBEAT_TIMEOUT + 0.5, HEARTBEAT_TIMEOUT + 4) if beyond else generator.uniform(0.1, 2)
        )
    if kind in (Kind.LEAVE, Kind.SCALE):
        return generator.uniform(1, 8)
    return generator.uniform(0, 2)


def fastest(label_delay: float) -> float:
    """Steps a second, at most, with labels so many seconds longer on their way, each way."""
    return min(1.05 / label_delay, FASTEST) if label_delay > 0 else FASTEST


def steps_for(faults: list[Fault], speed: float, tail: float = 30) -> int:
    """Steps of a run that outlasts the faults at so many steps a second; `tail`: seconds in which all comes to rest."""
    # After a fault in quick succession the run stands still for a part of the time.
    soon = sum(fault.after_seconds * (1 if fault.calm else 0.8) for fault in faults if fault.after_steps == NEVER)
    return sum(fault.after_steps for fault in faults if fault.after_steps != NEVER) + round((soon + tail) * speed)
