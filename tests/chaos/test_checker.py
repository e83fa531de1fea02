"""The checker passes undamaged histories, and finds every kind of damage by its name."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest

from chaos.checker import Stretch, check
from chaos.history import History, digest_of, plan_of
from chaos.planted import BATCH, JOB, PLAN, STEPS, Entry, Planted, Run, disturbed, undisturbed, write


def of(run: Run, process: str, event: str, **values: object) -> list[Entry]:
    found = [
        entry
        for entry in run[process]
        if entry["event"] == event and all(entry[name] == value for name, value in values.items())
    ]
    assert found, (process, event, values)
    return found


def drop(run: Run, processes: str, **values: object) -> None:
    """Takes the lines away that have these values."""
    for process in processes:
        before = len(run[process])
        run[process] = [e for e in run[process] if not all(e.get(name) == value for name, value in values.items())]
        assert len(run[process]) < before


def with_ids(entry: Entry, ids: list[str]) -> None:
    entry["ids"], entry["digest"] = ids, digest_of(ids)


# Each damages the run of disturbed().


def a_step_is_missing(run: Run) -> None:
    for event in ("slice", "applied"):
        drop(run, "ac", event=event, step=11)


def a_step_is_missing_at_the_seam(run: Run) -> None:
    """Generation 2 says that it went on from 9 steps; the ranks had 10 and 9, and no line of step 9 follows."""
    for process in "ac":
        of(run, process, "agreed", generation=2)[0]["steps"] = 11
    for event in ("slice", "applied"):
        drop(run, "ac", event=event, step=10)


def a_step_is_doubled(run: Run) -> None:
    for process in "ac":
        for event in ("slice", "applied"):
            entry = of(run, process, event, step=12)[0]
            run[process].insert(run[process].index(of(run, process, "applied", step=12)[0]) + 1, deepcopy(entry))


def a_step_is_done_again_on_the_lineage(run: Run) -> None:
    """Generation 2 goes on from 9 steps although a had applied a tenth, so both made step 9 count."""
    planted = Planted()
    planted.generation(1, "abc", 9, ahead="a")
    state = planted.held["a"]
    planted.held["a"] = planted.held["c"]
    planted.generation(2, "ac", STEPS)
    planted.done("ac")
    assert state[2] == 10
    run.clear()
    run.update(planted.run)


def other_ids(run: Run) -> None:
    entry = of(run, "a", "slice", step=11)[0]
    with_ids(entry, ["record-0-0", *entry["ids"][1:]])


def a_record_taken_by_two_ranks(run: Run) -> None:
    first, second = (of(run, process, "slice", step=11)[0] for process in "ac")
    with_ids(second, [first["ids"][0], *second["ids"][1:]])


def another_order(run: Run) -> None:
    entry = of(run, "a", "slice", step=11)[0]
    with_ids(entry, entry["ids"][::-1])


def slices_of_another_world_size(run: Run) -> None:
    for entry in of(run, "a", "slice", generation=2):
        entry["world_size"] = 3


def two_lineages_mixed(run: Run) -> None:
    """c goes on from its own state of 9 steps while a goes on from 10."""
    of(run, "c", "agreed", generation=2)[0]["steps"] = 9


def a_digest_that_differs(run: Run) -> None:
    of(run, "c", "agreed", generation=2)[0]["digest"] = "0" * 64


def one_name_for_two_states(run: Run) -> None:
    """A generation that ended before any step, and the next one from another state of that name."""
    planted = Planted()
    planted.generation(1, "abc", 9)
    planted.generation(2, "ab", 9)
    planted.held["a"] = ("1" * 64, 2, 9)
    planted.generation(3, "ab", STEPS)
    planted.done("ab")
    run.clear()
    run.update(planted.run)


def a_rank_two_steps_ahead(run: Run) -> None:
    """b stood still in step 8; a has applied steps 8 and 9."""
    drop(run, "b", event="applied", step=8)
    drop(run, "b", event="slice", step=9)


def applied_without_a_slice_of_the_killed_rank(run: Run) -> None:
    drop(run, "b", event="slice", step=9)


def agreed_from_a_state_that_nobody_had(run: Run) -> None:
    for process in "acd":
        of(run, process, "agreed", generation=4)[0]["from_generation"] = 3


def agreed_from_steps_that_nobody_had(run: Run) -> None:
    for process in "ef":
        of(run, process, "agreed", generation=5)[0]["from_generation"] = 1


def agreed_from_a_generation_to_come(run: Run) -> None:
    for process in "ac":
        of(run, process, "agreed", generation=2)[0]["from_generation"] = 4


def begun_in_the_middle(run: Run) -> None:
    """The first generation claims the steps of a run before."""
    drop(run, "abc", generation=1)
    for process in "ac":
        of(run, process, "agreed", generation=2)[0]["from_generation"] = 0


def an_older_state_won(run: Run) -> None:
    """c had 20 steps of generation 4 when generation 5 of e and f (17 steps from a checkpoint of 2) had not begun: now
    c is a member of generation 5 itself, and falls back."""
    planted = Planted()
    planted.generation(1, "abc", 9)
    saved = planted.state("a")
    planted.generation(2, "abc", 14)
    del planted.held["c"], planted.held["b"], planted.held["a"]
    planted.generation(3, "c", STEPS, saved=saved)
    planted.done("c")
    run.clear()
    run.update(planted.run)


def a_generation_formed_twice(run: Run) -> None:
    planted = Planted()
    planted.generation(1, "abc", 9)
    planted.generation(2, "a", 12)
    planted.generation(2, "b", 13)
    planted.generation(3, "ab", STEPS)
    planted.done("ab")
    run.clear()
    run.update(planted.run)


def an_older_generation_after_a_newer_one(run: Run) -> None:
    lines = run["c"]
    moved = of(run, "c", "slice", generation=1)[-1]
    lines.remove(moved)
    lines.insert(lines.index(of(run, "c", "agreed", generation=2)[0]) + 1, moved)


def work_before_agreement(run: Run) -> None:
    drop(run, "d", event="agreed")


def applied_before_the_slice_was_written(run: Run) -> None:
    lines = run["a"]
    taken = of(run, "a", "slice", step=11)[0]
    lines.remove(taken)
    lines.insert(lines.index(of(run, "a", "applied", step=11)[0]) + 1, taken)


def done_with_a_step_missing(run: Run) -> None:
    for process in "efc":
        for event in ("slice", "applied"):
            run[process] = [e for e in run[process] if not (e["event"] == event and e["step"] == STEPS - 1)]
        of(run, process, "done")[0]["steps"] = STEPS - 1
        of(run, process, "agreed", generation=8)[0]["steps"] = STEPS - 1


def done_says_more_than_was_applied(run: Run) -> None:
    of(run, "f", "done")[0]["steps"] = STEPS + 1


def nobody_is_done(run: Run) -> None:
    drop(run, "f", event="done")


def replicas_that_differ_at_the_end(run: Run) -> None:
    of(run, "f", "done")[0]["weights_digest"] = "0" * 64


def a_word_after_the_end(run: Run) -> None:
    run["f"].append(deepcopy(of(run, "f", "applied")[-1]))


def a_field_that_is_missing(run: Run) -> None:
    del of(run, "a", "applied", step=3)[0]["generation"]


def an_event_that_is_unknown(run: Run) -> None:
    of(run, "a", "applied", step=3)[0]["event"] = "rolled-back"


# Damage, the kind of violation that names it, and what it surely does to the count of records.
DAMAGE: list[tuple[Callable[[Run], None], str, set[str]]] = [
    (a_step_is_missing, "order", {"records_lost"}),
    (a_step_is_missing_at_the_seam, "lineage", {"records_lost"}),
    (a_step_is_doubled, "order", set()),
    (a_step_is_done_again_on_the_lineage, "older", set()),
    (other_ids, "records", {"records_lost", "records_doubled"}),
    (a_record_taken_by_two_ranks, "records", {"records_lost", "records_doubled"}),
    (another_order, "records", set()),
    (slices_of_another_world_size, "generation", set()),
    (two_lineages_mixed, "agreement", set()),
    (a_digest_that_differs, "agreement", set()),
    (one_name_for_two_states, "name", set()),
    (a_rank_two_steps_ahead, "apart", {"records_lost"}),
    (applied_without_a_slice_of_the_killed_rank, "slices", {"records_lost"}),
    (agreed_from_a_state_that_nobody_had, "lineage", set()),
    (agreed_from_steps_that_nobody_had, "lineage", {"records_lost"}),
    (agreed_from_a_generation_to_come, "lineage", {"records_lost"}),
    (begun_in_the_middle, "lineage", {"records_lost"}),
    (an_older_state_won, "older", set()),
    (a_generation_formed_twice, "generation", {"records_lost"}),
    (an_older_generation_after_a_newer_one, "order", set()),
    (work_before_agreement, "order", set()),
    (applied_before_the_slice_was_written, "order", set()),
    (done_with_a_step_missing, "done", {"records_lost"}),
    (done_says_more_than_was_applied, "order", set()),
    (nobody_is_done, "done", {"records_lost"}),
    (replicas_that_differ_at_the_end, "done", set()),
    (a_word_after_the_end, "order", set()),
    (a_field_that_is_missing, "malformed", set()),
    (an_event_that_is_unknown, "malformed", set()),
]


def test_an_undisturbed_history_is_the_plan(tmp_path: Path) -> None:
    (history,) = write(undisturbed(), tmp_path)
    assert plan_of(history, JOB) == PLAN
    verdict = check([history], JOB, PLAN)
    assert verdict.violations == []
    assert verdict.lineage == [Stretch(1, 0, STEPS)]


def test_a_disturbed_history_passes(tmp_path: Path) -> None:
    verdict = check(write(disturbed(), tmp_path), JOB, PLAN)
    assert verdict.violations == []
    assert (verdict.steps, verdict.records_lost, verdict.records_doubled) == (STEPS, 0, 0)
    assert verdict.replicas_equal
    # Generation 4 had gone on to 20 steps; it lost against 5, which knew only of the checkpoint.
    assert verdict.lineage == [
        Stretch(1, 0, 10),
        Stretch(2, 10, 14),
        Stretch(5, 14, 17),
        Stretch(7, 17, 30),
        Stretch(8, 30, 30),
    ]


@pytest.mark.parametrize(("damage", "kind", "counts"), DAMAGE, ids=[row[0].__name__ for row in DAMAGE])
def test_damage_is_found(tmp_path: Path, damage: Callable[[Run], None], kind: str, counts: set[str]) -> None:
    run = disturbed()
    damage(run)
    verdict = check(write(run, tmp_path), JOB, PLAN)
    assert kind in {violation.kind for violation in verdict.violations}, verdict.violations
    for count in counts:
        assert getattr(verdict, count) > 0, verdict


@pytest.mark.parametrize(
    "damage", [two_lineages_mixed, a_digest_that_differs, one_name_for_two_states, replicas_that_differ_at_the_end]
)
def test_replicas_that_are_apart_are_not_equal(tmp_path: Path, damage: Callable[[Run], None]) -> None:
    run = disturbed()
    damage(run)
    assert not check(write(run, tmp_path), JOB, PLAN).replicas_equal


def test_other_records_than_planned_are_counted(tmp_path: Path) -> None:
    plan = [*PLAN[:-1], [*PLAN[-1][:-2], "one", "two"]]
    verdict = check(write(disturbed(), tmp_path), JOB, plan)
    assert (verdict.records_lost, verdict.records_doubled) == (2, 2)
    longer = [*PLAN, [f"more-{i}" for i in range(BATCH)]]
    verdict = check(write(undisturbed(), tmp_path), JOB, longer)
    assert verdict.records_lost > 0 and verdict.violations


def test_a_torn_last_line_is_of_killed_processes_alone(tmp_path: Path) -> None:
    histories = write(disturbed(), tmp_path)
    killed = tmp_path / "b.jsonl"
    killed.write_text(killed.read_text() + '{"event":"applied","job":"dist')
    assert check(histories, JOB, PLAN).violations == []
    ended = [History(history.path, killed=False) for history in histories]
    (torn,) = check(ended, JOB, PLAN).violations
    assert torn.kind == "torn" and torn.lines[0].startswith("b.jsonl:")


def test_a_torn_line_elsewhere_is_not_accepted(tmp_path: Path) -> None:
    histories = write(disturbed(), tmp_path)
    path = tmp_path / "b.jsonl"
    lines = path.read_text().splitlines()
    lines[4] = lines[4][: len(lines[4]) // 2]
    path.write_text("\n".join(lines) + "\n")
    kinds = {(violation.kind, violation.lines) for violation in check(histories, JOB, PLAN).violations}
    assert ("malformed", ("b.jsonl:5",)) in kinds


def test_a_history_of_several_workers_is_no_plan(tmp_path: Path) -> None:
    histories = write(disturbed(), tmp_path)
    with pytest.raises(ValueError, match="one worker"):
        plan_of(histories[0], JOB)
