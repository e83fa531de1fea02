"""Sums up JUnit files of ctest and pytest: prints what failed and, last, `N passed, N failed`. Exits 1 on a failure."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

OUTPUT_LINES = 40  # of a failed test


def outcome(case: ElementTree.Element) -> str:
    """passed, failed or skipped. ctest calls a test whose program is missing skipped: here that is a failure."""
    skipped = case.find("skipped")
    message = "" if skipped is None else skipped.get("message", "")
    if case.find("failure") is not None or case.find("error") is not None or "Unable to find" in message:
        return "failed"
    return "passed" if skipped is None and case.get("status") != "disabled" else "skipped"


def describe(case: ElementTree.Element) -> str:
    name = ".".join(dict.fromkeys([case.get("classname", ""), case.get("name", "")])).strip(".")
    text = "\n".join("".join(part.itertext()) for part in case)
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join([f"FAILED {name}", *(f"  {line}" for line in lines[-OUTPUT_LINES:])])


def main(paths: list[str]) -> int:
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for path in map(Path, paths):
        try:
            cases = list(ElementTree.parse(path).iter("testcase"))
        except (OSError, ElementTree.ParseError) as error:
            print(f"FAILED {path.stem}: no results: {error}")
            counts["failed"] += 1
            continue
        if not cases:
            print(f"FAILED {path.stem}: it ran no test")
            counts["failed"] += 1
        for case in cases:
            result = outcome(case)
            counts[result] += 1
            if result == "failed":
                print(describe(case))
            elif result == "skipped":
                print(f"skipped {case.get('name')}")
    print(f"{counts['passed']} passed, {counts['failed']} failed")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
