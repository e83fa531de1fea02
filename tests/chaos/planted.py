"""Histories of a run that never was: undamaged ones for the checker to pass, and to be damaged for it to find out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from chaos.history import History, digest_of

JOB = "distilled"
STEPS, BATCH = 30, 6
PLAN = [[f"record-{step}-{i}" for i in range(BATCH)] for step in range(STEPS)]

Entry = dict[str, Any]
# Process -> its lines.
Run = dict[str, list[Entry]]


def state_digest(*name: object) -> str:
    return hashlib.sha256(repr(name).encode()).hexdigest()


class Planted:
    """Writes what workers would have written. The digest of a state follows from the generations that made it."""

    def __init__(self) -> None:
        self.run: Run = {}
        self.clock = 1_000_000.0
        # Process -> the state that it holds: its digest, the generation of it, the steps.
        self.held: dict[str, tuple[str, int, int]] = {}

    def say(self, process: str, event: str, **values: Any) -> None:
        self.clock += 0.001
        self.run.setdefault(process, []).append({"event": event, "job": JOB, "at": self.clock} | values)

    def generation(
        self, number: int, processes: str, upto: int, ahead: str = "", reduced: bool = False, saved: Entry | None = None
    ) -> None:
        """`processes`, a letter each in the order of their ranks, work until `upto` steps are applied; the one of
        `ahead` applies one more before they break up. `reduced`: they break up in the next step's reduction.
        `saved`: the checkpoint, as a state, that wins."""
        states = [self.held.get(process, (state_digest(), 0, 0)) for process in processes]
        best = max(states, key=lambda state: state[1:])
        checkpoint = saved is not None and (saved["generation"], saved["step"]) > best[1:]
        if checkpoint and saved is not None:
            best = (saved["digest"], saved["generation"], saved["step"])
        digest, made_in, steps = best
        size = len(processes)
        for rank, process in enumerate(processes):
            common = {"generation": number, "rank": rank, "world_size": size, "from_generation": made_in}
            self.say(process, "agreed", **common, steps=steps, digest=digest, from_checkpoint=checkpoint)
            self.held[process] = (digest, number, steps)
        for step in range(steps, upto):
            self.slices(number, processes, step)
            for process in processes:
                self.apply(number, processes, process, step)
        if ahead or reduced:
            self.slices(number, processes, upto)
        for process in ahead:
            self.apply(number, processes, process, upto)

    def slices(self, number: int, processes: str, step: int) -> None:
        size = len(processes)
        for rank, process in enumerate(processes):
            ids = PLAN[step][rank * BATCH // size : (rank + 1) * BATCH // size]
            common = {"generation": number, "rank": rank, "world_size": size}
            self.say(process, "slice", **common, step=step, ids=ids, digest=digest_of(ids))

    def apply(self, number: int, processes: str, process: str, step: int) -> None:
        rank = processes.index(process)
        self.say(process, "applied", generation=number, rank=rank, step=step, loss=1.0)
        self.held[process] = (state_digest(self.held[process][0], len(processes), step), number, step + 1)

    def state(self, process: str) -> Entry:
        digest, number, steps = self.held[process]
        return {"digest": digest, "generation": number, "step": steps}

    def done(self, processes: str) -> None:
        for rank, process in enumerate(processes):
            digest, number, steps = self.held[process]
            self.say(process, "done", generation=number, rank=rank, steps=steps, weights_digest=digest)


def disturbed() -> Run:
    """Three workers; b is killed in step 9 after a and c have reduced it, of whom a has applied it; d comes; all are
    killed but c, which is stopped; a checkpoint wins over new ones e and f, and c wakes up and joins them."""
    planted = Planted()
    planted.generation(1, "abc", 9, ahead="a")
    planted.generation(2, "ac", 14)
    saved = planted.state("a")
    planted.generation(4, "acd", 20, reduced=True)
    planted.generation(5, "ef", 17, saved=saved)
    planted.generation(7, "efc", STEPS - 1, ahead="e")
    planted.generation(8, "efc", STEPS)
    planted.done("efc")
    return planted.run


def undisturbed() -> Run:
    planted = Planted()
    planted.generation(1, "a", STEPS)
    planted.done("a")
    return planted.run


def write(run: Run, folder: Path) -> list[History]:
    histories = []
    for process, entries in run.items():
        path = folder / f"{process}.jsonl"
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        histories.append(History(path, killed=True))
    return histories
