"""What each kind of fault does to a site, and that it is undone; on a site that only writes down what it is told."""

from __future__ import annotations

import signal
import time
from typing import Any, cast

import pytest

from chaos.faults import Fault, Kind
from chaos.injector import RULES, Injector
from chaos.proxy import Rule
from chaos.site import COORDINATOR, Site

SECONDS = 0.05
LABELS = Rule(delay=0.02)


class FakeLife:
    def __init__(self, site: FakeSite, name: str) -> None:
        self.site, self.name = site, name
        self.runs, self.stopped, self.told_to_leave = True, False, False

    def send(self, number: int) -> None:
        self.site.said.append(f"{signal.Signals(number).name} {self.name}")
        self.stopped = number == signal.SIGSTOP
        self.told_to_leave |= number == signal.SIGTERM


class FakeSite:
    """In place of a Site, its hosts and its proxies."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.hears = True
        self.teachers = ["teacher-0", "teacher-1"]
        self.students = ["student-0", "student-1", "student-2"]
        self.hosts = self
        self.controls = {name: FakeControl(self, name) for name in [COORDINATOR, *self.teachers]}
        self.lives: dict[str, FakeLife] = {}
        for name in [COORDINATOR, *self.teachers, "student-0", "student-1"]:
            self.start(name)
        self.said.clear()

    def start(self, name: str) -> None:
        self.said.append(f"start {name}")
        self.lives[name] = FakeLife(self, name)

    def kill(self, name: str) -> None:
        self.said.append(f"kill {name}")
        self.lives[name].runs = False

    def is_running(self, name: str) -> bool:
        return name in self.lives and self.lives[name].runs

    def running(self, names: list[str]) -> list[str]:
        return [name for name in names if self.is_running(name)]

    def scale(self, workers: int) -> bool:
        self.said.append(f"scale {workers}")
        return self.hears

    def healed_rule(self, server: str) -> Rule:
        return Rule() if server == COORDINATOR else LABELS

    def address(self, name: str) -> str:
        return f"host of {name}"

    def cut(self, name: str) -> None:
        self.said.append(f"cut {name}")

    def mend(self, name: str) -> None:
        self.said.append(f"mend {name}")

    def part(self, one: str, other: str) -> None:
        self.said.append(f"part {one} {other}")

    def join(self, one: str, other: str) -> None:
        self.said.append(f"join {one} {other}")


class FakeControl:
    def __init__(self, site: FakeSite, name: str) -> None:
        self.site, self.name = site, name

    def rule(self, rule: Rule, client: str | None = None) -> None:
        what = "heal" if rule == self.site.healed_rule(self.name) else str(rule)
        self.site.said.append(f"{what} {self.name} for {client}")

    def cut(self, how: str, client: str | None = None) -> int:
        self.site.said.append(f"{how} {self.name} for {client}")
        return 1


def make() -> tuple[FakeSite, Injector]:
    site = FakeSite()
    return site, Injector(cast(Any, site), workers=2)


def fault(kind: Kind, target: int = 0) -> Fault:
    return Fault(kind, target, SECONDS, after_steps=1, after_seconds=1)


CASES: list[tuple[Kind, int, list[str], list[str]]] = [
    (Kind.KILL_STUDENT, 3, ["kill student-1"], ["start student-1"]),
    (Kind.KILL_TEACHER, 0, ["kill teacher-0"], ["start teacher-0"]),
    (Kind.KILL_COORDINATOR, 5, ["kill coordinator"], ["start coordinator"]),
    (Kind.STOP_STUDENT, 0, ["SIGSTOP student-0"], ["SIGCONT student-0"]),
    (Kind.STOP_TEACHER, 1, ["SIGSTOP teacher-1"], ["SIGCONT teacher-1"]),
    (Kind.STOP_COORDINATOR, 0, ["SIGSTOP coordinator"], ["SIGCONT coordinator"]),
    (Kind.CUT_HOST, 3, ["cut student-0"], ["mend student-0"]),
    (Kind.CUT_PAIR, 0, ["part student-0 student-1"], ["join student-0 student-1"]),
    (Kind.CUT_PAIR, 5, ["part student-2 coordinator"], ["join student-2 coordinator"]),
    (Kind.RESET, 0, ["reset coordinator for None"], []),
    (Kind.HALF_CLOSE, 4, ["half_close teacher-0 for host of student-0"], []),
    (Kind.REFUSE, 0, [f"{RULES[Kind.REFUSE]} coordinator for None"], ["heal coordinator for None"]),
    (Kind.HOLD, 1, [f"{RULES[Kind.HOLD]} teacher-0 for None"], ["heal teacher-0 for None"]),
    (Kind.THROTTLE, 2, [f"{RULES[Kind.THROTTLE]} teacher-1 for None"], ["heal teacher-1 for None"]),
    (Kind.DELAY, 0, [f"{RULES[Kind.DELAY]} coordinator for None"], ["heal coordinator for None"]),
    (Kind.JOIN, 0, ["start student-2"], []),
    (Kind.SCALE, 3, ["scale 1"], ["scale 2"]),
]


@pytest.mark.parametrize(("kind", "target", "does", "undoes"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_each_fault_is_done_and_undone(kind: Kind, target: int, does: list[str], undoes: list[str]) -> None:
    site, injector = make()
    done = injector.do(fault(kind, target))
    assert done is not None and done.kind == kind
    assert site.said == does
    injector.tick()
    assert site.said == does  # not yet
    time.sleep(SECONDS)
    injector.tick()
    assert site.said == does + undoes
    assert done.at <= done.healed <= time.time()


def test_who_leaves_comes_back_once_it_has_left() -> None:
    site, injector = make()
    done = injector.do(fault(Kind.LEAVE))
    assert done is not None and site.said == ["SIGTERM student-0"]
    time.sleep(SECONDS)
    injector.tick()
    assert site.said == ["SIGTERM student-0"]  # it still leaves
    # Whoever leaves is not hit again.
    injector.do(fault(Kind.KILL_STUDENT, 0))
    assert site.said[-1] == "kill student-1"
    assert injector.do(fault(Kind.STOP_STUDENT)) is None
    site.lives["student-0"].runs = False
    injector.close()
    assert "start student-0" not in site.said


def test_a_fault_needs_somebody_to_hit() -> None:
    site, injector = make()
    for _ in range(2):
        assert injector.do(fault(Kind.KILL_TEACHER)) is not None
    assert injector.do(fault(Kind.KILL_TEACHER)) is None
    assert injector.do(fault(Kind.STOP_COORDINATOR)) is not None
    assert injector.do(fault(Kind.KILL_COORDINATOR)) is None
    assert len(injector.done) == 3
    assert site.said == ["kill teacher-0", "kill teacher-1", "SIGSTOP coordinator"]


def test_it_scales_back_until_it_is_heard() -> None:
    site, injector = make()
    site.hears = False
    done = injector.do(fault(Kind.SCALE))
    assert done is not None and done.name == "1 workers, not heard"
    time.sleep(SECONDS)
    injector.tick()
    assert site.said == ["scale 1", "scale 2"]
    assert injector.rest() == 0
    # What is left to do when the run is done is left.
    injector.close()
    assert site.said == ["scale 1", "scale 2"]


def test_it_rests_once_all_is_undone() -> None:
    _, injector = make()
    assert injector.rest() > 1000
    injector.do(fault(Kind.RESET))
    injector.do(fault(Kind.STOP_STUDENT))
    assert injector.rest() == 0
    time.sleep(SECONDS)
    assert injector.rest() == 0
    injector.tick()
    assert 0 <= injector.rest() < 10
    injector.done[-1].healed -= 20
    injector.done[0].healed -= 30
    assert 20 <= injector.rest() < 30


def test_after_the_run_stopped_processes_go_on_and_nothing_starts() -> None:
    site, injector = make()
    for kind in (Kind.KILL_STUDENT, Kind.STOP_TEACHER, Kind.CUT_HOST):
        injector.do(fault(kind))
    site.said.clear()
    injector.close()
    assert site.said == ["SIGCONT teacher-0", "mend coordinator"]


def test_the_fake_is_like_a_site() -> None:
    names = {name for name in vars(FakeSite) if not name.startswith("_")} - {"address", "cut", "mend", "part", "join"}
    assert names <= set(vars(Site))
