"""What workers write with --trace-records: one JSON object a line (student_worker/record_trace.h).

A step of the plan is counted from 0: `slice` and `applied` of step s lead from a state of s steps to one of s + 1.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Fields = dict[str, type | tuple[type, ...]]
WHO: Fields = {"job": str, "generation": int, "rank": int, "at": (int, float)}
FIELDS: dict[str, Fields] = {
    # All ranks of a generation hold one state of `steps` steps, which had been made in `from_generation`.
    "agreed": WHO | {"world_size": int, "steps": int, "digest": str, "from_generation": int, "from_checkpoint": bool},
    # Before the gradients of these records are reduced. `digest`: SHA-256 of the ids joined by line feeds.
    "slice": WHO | {"world_size": int, "step": int, "digest": str, "ids": list},
    # The optimiser has run.
    "applied": WHO | {"step": int, "loss": (int, float)},
    # The job's last step has been applied.
    "done": WHO | {"steps": int, "weights_digest": str},
}


@dataclass(frozen=True)
class Violation:
    kind: str
    message: str
    # FILE:LINE of what shows it.
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" + (f" ({', '.join(self.lines)})" if self.lines else "")


@dataclass(frozen=True)
class Line:
    place: str
    event: str
    values: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


@dataclass(frozen=True)
class History:
    """Of one process. A killed one may have been writing its last line."""

    path: Path
    killed: bool = True

    def read(self, job: str) -> tuple[list[Line], list[Violation]]:
        """The lines about a job, and what is wrong with any line."""
        lines: list[Line] = []
        wrong: list[Violation] = []
        texts = self.path.read_bytes().split(b"\n")
        torn = texts.pop()  # what follows the last line feed
        if torn and not self.killed:
            wrong.append(Violation("torn", "the last line of a process that nobody killed", (self._place(len(texts)),)))
        for number, text in enumerate(texts):
            try:
                line = Line(self._place(number), *self._parse(text))
            except (ValueError, TypeError) as error:
                wrong.append(Violation("malformed", str(error), (self._place(number),)))
                continue
            if line["job"] == job:
                lines.append(line)
        return lines, wrong

    def _place(self, index: int) -> str:
        return f"{self.path.name}:{index + 1}"

    @staticmethod
    def _parse(text: bytes) -> tuple[str, dict[str, Any]]:
        values = json.loads(text)
        if not isinstance(values, dict) or values.get("event") not in FIELDS:
            raise ValueError(f"no event of a history: {text[:80]!r}")
        for name, kind in FIELDS[values["event"]].items():
            value = values.get(name)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{values['event']}: {name} is {value!r}")
        if values["event"] == "slice" and digest_of(values["ids"]) != values["digest"]:
            raise ValueError("the digest of a slice is not that of its ids")
        return values["event"], values


def digest_of(ids: list[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def plan_of(history: History, job: str) -> list[list[str]]:
    """The records of each step, by the history of one worker that nothing disturbed."""
    lines, wrong = history.read(job)
    if wrong:
        raise ValueError(f"the undisturbed history: {wrong[0]}")
    steps: list[list[str]] = []
    for line in lines:
        if line.event == "slice":
            if line["world_size"] != 1 or line["step"] != len(steps):
                raise ValueError(f"{line.place}: the undisturbed history is not that of one worker")
            steps.append(line["ids"])
    if not lines or lines[-1].event != "done" or lines[-1]["steps"] != len(steps):
        raise ValueError(f"{history.path}: the undisturbed worker did not end")
    return steps
