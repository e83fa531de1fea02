"""Does faults to a site, and undoes them when their time has come."""

from __future__ import annotations

import heapq
import itertools
import signal
import time
from collections.abc import Callable

from chaos.faults import Fault, Kind
from chaos.measures import Done
from chaos.proxy import Rule
from chaos.site import COORDINATOR, Site

RULES = {
    Kind.REFUSE: Rule(refuse=True),
    Kind.HOLD: Rule(hold=True),
    Kind.THROTTLE: Rule(bytes_per_second=20_000),
    Kind.DELAY: Rule(delay=0.3),
}
CUTS = {Kind.RESET: "reset", Kind.HALF_CLOSE: "half_close"}


class Injector:
    def __init__(self, site: Site, workers: int) -> None:
        """`workers`: wanted, but while SCALE is in force."""
        self.site, self.workers = site, workers
        self.done: list[Done] = []
        self._closed = False
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def do(self, fault: Fault) -> Done | None:
        """None when there is nothing to do it to just now."""
        kind = fault.kind
        if kind in (Kind.JOIN, Kind.SCALE, Kind.LEAVE):
            done = self._resize(fault)
        elif kind.startswith("kill"):
            done = self._kill(fault)
        elif kind.startswith("stop"):
            done = self._stop(fault)
        elif kind is Kind.CUT_HOST:
            done = self._cut(fault)
        elif kind is Kind.CUT_PAIR:
            done = self._cut_pair(fault)
        else:
            done = self._disturb(fault)
        if done is not None:
            self.done.append(done)
        return done

    def rest(self) -> float:
        """Seconds since the last fault was undone; 0 while one is in force."""
        if self._later:
            return 0.0
        return time.time() - max((done.healed for done in self.done), default=0.0)

    def tick(self) -> None:
        """Does what is due."""
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()

    def close(self) -> None:
        """Undoes at once what was to be undone later, but starts nothing: the run is done."""
        self._closed = True
        while self._later:
            heapq.heappop(self._later)[2]()

    def _heal_later(self, seconds: float, done: Done, heal: Callable[[], object]) -> Done:
        def do() -> None:
            heal()
            done.healed = time.time()

        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), do))
        return done

    def _pick(self, kind: Kind, target: int) -> str | None:
        """One of those that run, and are not stopped, of the kind's role."""
        if kind.endswith("coordinator"):
            names = [COORDINATOR]
        else:
            names = self.site.teachers if kind.endswith("teacher") else self.site.students
        names = [n for n in self.site.running(names) if not self.site.lives[n].stopped and not self._is_leaving(n)]
        return names[target % len(names)] if names else None

    def _is_leaving(self, name: str) -> bool:
        return self.site.lives[name].told_to_leave

    def _kill(self, fault: Fault) -> Done | None:
        name = self._pick(fault.kind, fault.target)
        if name is None:
            return None
        done = Done(fault.kind, name, time.time())
        self.site.kill(name)
        return self._heal_later(fault.seconds, done, lambda: self._start_again(name))

    def _start_again(self, name: str) -> None:
        if not self.site.is_running(name) and not self._closed:
            self.site.start(name)

    def _stop(self, fault: Fault) -> Done | None:
        name = self._pick(fault.kind, fault.target)
        if name is None:
            return None
        life = self.site.lives[name]
        done = Done(fault.kind, name, time.time())
        life.send(signal.SIGSTOP)
        return self._heal_later(fault.seconds, done, lambda: life.send(signal.SIGCONT))

    def _cut(self, fault: Fault) -> Done:
        names = [COORDINATOR, *self.site.teachers, *self.site.students]
        name = names[fault.target % len(names)]
        done = Done(fault.kind, name, time.time())
        self.site.hosts.cut(name)
        return self._heal_later(fault.seconds, done, lambda: self.site.hosts.mend(name))

    def _cut_pair(self, fault: Fault) -> Done:
        # The coordinator's host too: rendezvous is there, on a port that no proxy stands before.
        pairs = list(itertools.combinations([*self.site.students, COORDINATOR], 2))
        one, other = pairs[fault.target % len(pairs)]
        done = Done(fault.kind, f"{one} and {other}", time.time())
        self.site.hosts.part(one, other)
        return self._heal_later(fault.seconds, done, lambda: self.site.hosts.join(one, other))

    def _disturb(self, fault: Fault) -> Done:
        servers = [COORDINATOR, *self.site.teachers]
        server = servers[fault.target % len(servers)]
        # Of one caller, or of all.
        callers = [None, *self.site.students]
        caller = callers[fault.target // len(servers) % len(callers)]
        client = None if caller is None else self.site.hosts.address(caller)
        control = self.site.controls[server]
        done = Done(fault.kind, f"{server} for {caller or 'all'}", time.time())
        if fault.kind in CUTS:
            control.cut(CUTS[fault.kind], client)
            done.healed = done.at
            return done
        control.rule(RULES[fault.kind], client)
        return self._heal_later(fault.seconds, done, lambda: control.rule(self.site.healed_rule(server), client))

    def _resize(self, fault: Fault) -> Done | None:
        done = Done(fault.kind, "", time.time())
        if fault.kind is Kind.SCALE:
            workers = 1 + fault.target % len(self.site.students)
            heard = self.site.scale(workers)
            done.name = f"{workers} workers" + ("" if heard else ", not heard")
            return self._heal_later(fault.seconds, done, lambda: self._scale_back(done))
        if fault.kind is Kind.JOIN:
            absent = [name for name in self.site.students if not self.site.is_running(name)]
            if absent:
                done.name, done.healed = absent[-1], time.time()
                self.site.start(absent[-1])
                return done
        name = self._pick(Kind.KILL_STUDENT, fault.target)
        return None if name is None else self._leave(done, name, fault.seconds)

    def _scale_back(self, done: Done) -> None:
        # One worker has no survivors when it dies: a run of three is to be disturbed, not one of one.
        if not self._closed and not self.site.scale(self.workers):
            self._heal_later(1, done, lambda: self._scale_back(done))  # the coordinator is away

    def _leave(self, done: Done, name: str, seconds: float) -> Done:
        done.name = name
        self.site.lives[name].send(signal.SIGTERM)

        def come_back() -> None:
            if self.site.is_running(name) and not self._closed:
                self._heal_later(0.5, done, come_back)  # it still leaves
            else:
                self._start_again(name)

        return self._heal_later(seconds, done, come_back)
