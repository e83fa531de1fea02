"""./polystill chaos: see --help."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

from processes import BIN, REPO

from chaos.faults import CHURN, LABEL_DELAY, Kind, fastest
from chaos.runner import Options, run

EXAMPLES = """examples:
  ./polystill chaos --faults 50                        a few minutes
  ./polystill chaos --faults 1000 --seed 7             under an hour, unattended
  ./polystill chaos --churn --minutes 30               whether the memory of coordinator and teachers stays flat

Needs iproute2 and namespaces (root, or user namespaces). A seed draws the same faults, but processes and machine decide
what they hit. The last three of each fifty faults come one by one, since few others are alone until the run has
recovered from them. What the run leaves is in build/chaos/seed-N: histories, logs, violations.txt.

The last line is one JSON object:
  steps_undone            how often a generation did steps again that somebody had applied, and how many at most
  recovery_seconds        the longest time without a committed step that begins between SIGKILL of a student and that
                          student's next step (at most 5 s after its start). It counts if no other fault was in force
                          until it ended or had lasted 10 s; left_out: how many do not; idle: students without a part in
                          the steps just then, which are in neither
  stop_recovery_seconds   the same after SIGSTOP; coordinator_recovery_seconds: after SIGKILL of the coordinator;
                          any_recovery_seconds: after any fault, whatever else was in force
  coordinator_step_ratio  median step of the 5 s after SIGKILL of the coordinator / of the 30 s before
  missed                  recoveries over 10 s (SIGKILL), 8 s (SIGSTOP), 1 s (coordinator), and medians over what is
                          asked for. They leave the exit status alone: machines are noisy
  memory                  of --churn: growth of coordinator and teachers. flat: at most 16 KiB and 0.1 descriptors a
                          minute, or within noise (3 standard errors) and at most 128 KiB and 1 descriptor a minute;
                          null: lived for less than 10 minutes; kib_a_minute_late: of the second half of its life
Exit status: 0 every record counts once and everything ended well, 1 it does not, or more than 30 s without a step after
SIGKILL or SIGSTOP of a student, or memory that is not flat, 2 wrong arguments."""
SECONDS_BETWEEN = 5.0  # of --minutes without --faults
DISTURBED = 2 / 3  # of the fastest steps a second, about


def parse(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="./polystill chaos",
        description="Kills, stops and cuts off the processes of a run; proves that every record counts exactly once.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--faults", type=int, help="how many (default 50, or one in 5 s with --minutes)")
    parser.add_argument("--seed", type=int, help="of the faults and of the run (default: a random one)")
    parser.add_argument("--minutes", type=float, help="over which the faults are spread, about")
    parser.add_argument(
        "--churn", action="store_true", help="leave coordinator and teachers alive, and watch their memory"
    )
    parser.add_argument("--workers", type=int, default=3, help="students wanted; one more may come (default 3)")
    parser.add_argument("--teachers", type=int, default=2, help="teacher servers (default 2)")
    parser.add_argument(
        "--undisturbed", type=int, default=1, help="undisturbed runs to compare losses with, of other seeds (default 1)"
    )
    parser.add_argument(
        "--label-delay",
        type=float,
        default=LABEL_DELAY * 1000,
        metavar="MS",
        help="that labels take longer, each way, which hides what else takes less in a step (default 20; 0: none)",
    )
    parser.add_argument("--out", type=Path, help="folder to make (default build/chaos/seed-N, which is emptied)")
    given = parser.parse_args(arguments)
    if given.out is not None and given.out.exists():
        parser.error(f"--out: {given.out} is there already")
    for name in ("faults", "minutes", "workers", "teachers", "undisturbed"):
        value = getattr(given, name)
        if value is not None and value <= 0:
            parser.error(f"--{name}: {value} is not above 0")
    if not 0 <= given.label_delay <= 1000:
        parser.error(f"--label-delay: {given.label_delay} is not 0 to 1000 ms")
    delay = given.label_delay / 1000
    fewest = len(CHURN if given.churn else list(Kind))
    faults = given.faults or (round(given.minutes * 60 / SECONDS_BETWEEN) if given.minutes else 50)
    seed = random.SystemRandom().randrange(1 << 31) if given.seed is None else given.seed
    if faults < fewest:
        print(f"polystill chaos: with fewer than {fewest} faults not every kind of them comes", file=sys.stderr)
    seconds_between = given.minutes * 60 * DISTURBED / faults if given.minutes else 0.6  # of the fastest
    return Options(
        folder=(given.out or REPO / "build" / "chaos" / f"seed-{seed}").resolve(),
        faults=faults,
        seed=seed,
        churn=given.churn,
        workers=given.workers,
        teachers=given.teachers,
        steps_between=seconds_between * fastest(delay),
        label_delay=delay,
        undisturbed=given.undisturbed,
    )


def say(text: str) -> None:
    """One line that changes, for people who watch."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        print(f"\r\033[K{text[: width - 1]}", end="", file=sys.stderr, flush=True)


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    options = parse(sys.argv[1:])
    if not (BIN / "polystill-student").exists():
        print(f"polystill chaos: {BIN} holds no programs; run ./polystill build", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, interrupt)
    try:
        outcome = run(options, say)
    except KeyboardInterrupt:
        say("")
        print("polystill chaos: interrupted; every process has been ended", file=sys.stderr)
        return 130
    except (RuntimeError, OSError) as error:
        say("")
        print(f"polystill chaos: {error}", file=sys.stderr)
        return 1
    say("")
    if outcome.violations:
        path = options.folder / "violations.txt"
        path.write_text("".join(f"{violation}\n" for violation in outcome.violations))
        for violation in outcome.violations[:20]:
            print(violation, file=sys.stderr)
        print(f"{len(outcome.violations)} violations, in {path}; logs are beside it", file=sys.stderr)
    print(json.dumps(outcome.result | {"violations": len(outcome.violations)}))
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
