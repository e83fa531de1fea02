"""Proves from the histories of all workers that each planned record counts once on the lineage of the final state.

The lineage is walked back from the generation whose members are all done: each generation says from which state of
which earlier one it went on. The promises are those of docs/elastic.md, section Invariants.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from chaos.history import History, Line, Violation

StateName = tuple[int, int]  # the generation in which it was agreed upon, and the steps applied


@dataclass
class Stay:
    """What one process did as one rank of one generation."""

    agreed: Line
    # What the process held before, as far as its history says.
    held: StateName
    slices: dict[int, Line] = field(default_factory=dict)
    applied: dict[int, Line] = field(default_factory=dict)
    done: Line | None = None

    @property
    def begin(self) -> int:
        return int(self.agreed["steps"])

    @property
    def steps(self) -> int:
        """Applied by the state that it held last."""
        return self.begin + len(self.applied)

    @property
    def source(self) -> StateName:
        return self.agreed["from_generation"], self.begin


# By rank.
Generation = dict[int, Stay]


@dataclass(frozen=True)
class Stretch:
    """A part of the lineage: steps from `begin` to `end` were made in `generation`."""

    generation: int
    begin: int
    end: int


@dataclass
class Verdict:
    steps: int = 0
    records_lost: int = 0
    records_doubled: int = 0
    replicas_equal: bool = True
    # From the first step to the last.
    lineage: list[Stretch] = field(default_factory=list)
    generations: dict[int, Generation] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)


def check(histories: Iterable[History], job: str, plan: Sequence[Sequence[str]]) -> Verdict:
    """`plan`: the records of each step, by a run that nothing disturbed."""
    checker = _Checker(plan)
    for history in histories:
        lines, wrong = history.read(job)
        checker.verdict.violations += wrong
        checker.replay(lines)
    for number, generation in sorted(checker.verdict.generations.items()):
        checker.check_generation(number, generation)
    checker.check_names()
    checker.walk()
    return checker.verdict


class _Checker:
    def __init__(self, plan: Sequence[Sequence[str]]) -> None:
        self.plan = plan
        self.verdict = Verdict()

    def wrong(self, kind: str, message: str, *lines: Line | None) -> None:
        places = tuple(line.place for line in lines if line is not None)
        self.verdict.violations.append(Violation(kind, message, places))

    # What each process did, in its own order.

    def replay(self, lines: list[Line]) -> None:
        stay: Stay | None = None
        held: StateName = (0, 0)
        for line in lines:
            if stay is not None:
                held = (stay.agreed["generation"], stay.steps)
            if line.event == "agreed":
                stay = self.enter(line, held)
            elif stay is None or line["generation"] != stay.agreed["generation"] or line["rank"] != stay.agreed["rank"]:
                self.wrong("order", f"{line.event} in a generation upon whose state the rank has not agreed", line)
            else:
                self.follow(stay, line)

    def enter(self, line: Line, held: StateName) -> Stay:
        number, rank = line["generation"], line["rank"]
        if number <= held[0]:
            self.wrong("order", f"generation {number} after generation {held[0]} in one process", line)
        members = self.verdict.generations.setdefault(number, {})
        stay = Stay(line, held)
        if rank in members:
            self.wrong("generation", f"generation {number} has two members of rank {rank}", members[rank].agreed, line)
        elif not 0 <= rank < line["world_size"]:
            self.wrong("generation", f"rank {rank} of {line['world_size']}", line)
        members.setdefault(rank, stay)
        return stay

    def follow(self, stay: Stay, line: Line) -> None:
        if stay.done is not None:
            self.wrong("order", f"{line.event} after done in one generation", stay.done, line)
        elif line.event == "done":
            stay.done = line
            if line["steps"] != stay.steps:
                self.wrong("order", f"done with {line['steps']} steps, of which {stay.steps} are applied", line)
        elif line["step"] != stay.steps:
            self.wrong("order", f"{line.event} of step {line['step']} where {stay.steps} is next", line)
        elif line.event == "slice":
            if line["step"] in stay.slices:
                self.wrong("order", f"two slices of step {line['step']}", stay.slices[line["step"]], line)
            if line["world_size"] != stay.agreed["world_size"]:
                self.wrong("generation", f"one of {line['world_size']} among {stay.agreed['world_size']}", line)
            stay.slices[line["step"]] = line
        elif line["step"] not in stay.slices:
            self.wrong("order", f"step {line['step']} is applied without a slice", line)
        else:
            stay.applied[line["step"]] = line

    # What the members of one generation did together.

    def check_generation(self, number: int, members: Generation) -> None:
        first = next(iter(members.values()))
        for stay in members.values():
            for name in ("world_size", "steps", "digest", "from_generation", "from_checkpoint"):
                if stay.agreed[name] != first.agreed[name]:
                    self.verdict.replicas_equal &= name not in ("digest", "steps")
                    message = f"generation {number}: ranks agreed upon different {name}"
                    self.wrong("agreement", message, first.agreed, stay.agreed)
            # An older state may win only where nobody holds a greater one.
            if stay.source < stay.held:
                message = f"generation {number} went on from {stay.source} while rank {stay.agreed['rank']} had been at"
                self.wrong("older", f"{message} {stay.held}", stay.agreed)
        if not first.source[0] < number:
            self.wrong("lineage", f"generation {number} from generation {first.source[0]}", first.agreed)
        elif first.source != (0, 0) and self.holder(*first.source) is None:
            message = f"generation {number} went on from a state that nobody had: generation, steps {first.source}"
            self.wrong("lineage", message, first.agreed)
        applied = {rank: stay.steps for rank, stay in members.items()}
        if max(applied.values()) - min(applied.values()) > 1:
            self.wrong(
                "apart", f"generation {number}: ranks have applied {applied}", *(m.agreed for m in members.values())
            )
        for step in sorted({step for stay in members.values() for step in stay.applied}):
            self.check_batch(number, step)

    def check_batch(self, number: int, step: int) -> None:
        batch = self.batch(number, step)
        if batch is None or step >= len(self.plan):
            what = "without every rank's slice" if batch is None else "beyond the plan"
            self.wrong("slices", f"step {step} was applied in generation {number} {what}", *self.slices(number, step))
        elif batch != self.plan[step]:
            message = f"step {step} of generation {number} has other records than the plan, or in another order"
            self.wrong("records", message, *self.slices(number, step))

    def slices(self, number: int, step: int) -> list[Line]:
        members = self.verdict.generations.get(number, {})
        return [stay.slices[step] for _, stay in sorted(members.items()) if step in stay.slices]

    def batch(self, number: int, step: int) -> list[str] | None:
        """The records of the step in the order of the ranks; none where a rank's slice is missing."""
        slices = self.slices(number, step)
        if not slices or len(slices) != slices[0]["world_size"]:
            return None
        return [record for line in slices for record in line["ids"]]

    def check_names(self) -> None:
        """Two states of one name have one digest. What is agreed upon has the name that it had, and a new one."""
        known: dict[StateName, Line] = {}
        for number, members in sorted(self.verdict.generations.items()):
            for stay in members.values():
                for name in (stay.source, (number, stay.begin)):
                    other = known.setdefault(name, stay.agreed)
                    if other["digest"] != stay.agreed["digest"]:
                        self.verdict.replicas_equal = False
                        self.wrong("name", f"two states of the name {name} differ", other, stay.agreed)

    # The lineage.

    def holder(self, number: int, steps: int) -> Stay | None:
        """Who was at so many steps in that generation."""
        members = self.verdict.generations.get(number, {})
        return next((stay for stay in members.values() if stay.begin <= steps <= stay.steps), None)

    def walk(self) -> None:
        number, end = self.final_generation(), len(self.plan)
        while number > 0:
            holder = self.holder(number, end)
            if holder is None:
                break  # said already
            self.verdict.lineage.insert(0, Stretch(number, holder.begin, end))
            if holder.source[0] >= number:
                break  # said already
            number, end = holder.source
        self.count()

    def final_generation(self) -> int:
        """The last one whose members are all done; 0 if there is none."""
        final = 0
        for number, members in sorted(self.verdict.generations.items()):
            done = [stay.done for stay in members.values() if stay.done is not None]
            if len({line["weights_digest"] for line in done}) > 1:
                self.verdict.replicas_equal = False
                self.wrong("done", f"generation {number}: the weights differ at the end", *done)
            if done and len(done) == next(iter(members.values())).agreed["world_size"]:
                final = number
        if final == 0:
            self.wrong("done", "there is no generation whose members are all done")
            return 0
        for stay in self.verdict.generations[final].values():
            if stay.done is not None and stay.done["steps"] != len(self.plan):
                self.wrong("done", f"done with {stay.done['steps']} steps of {len(self.plan)}", stay.done)
        return final

    def count(self) -> None:
        counted: Counter[int] = Counter()
        lost: list[Counter[str]] = [Counter(records) for records in self.plan]
        for stretch in self.verdict.lineage:
            for step in range(stretch.begin, min(stretch.end, len(self.plan))):
                counted[step] += 1
                lost[step].subtract(record for line in self.slices(stretch.generation, step) for record in line["ids"])
        self.verdict.steps = len(counted)
        odd: list[int] = []
        for step, difference in enumerate(lost):
            missing = sum((+difference).values())
            surplus = sum((-difference).values())
            self.verdict.records_lost += missing
            self.verdict.records_doubled += surplus
            if (missing or surplus) and counted[step] != 1:
                odd.append(step)
        if odd:
            message = f"{len(odd)} steps between {odd[0]} and {odd[-1]} do not count once on the lineage"
            self.wrong("counted", message)
