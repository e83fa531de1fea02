"""Runs clang's thread-safety analysis over every source file that uses an annotated class.

python scripts/check_thread_safety.py [BUILD_FOLDER]

The compiler that builds Polystill, GCC, ignores the annotations of runtime/mutex.h. Needs clang++-14 and the
compile_commands.json of a configured build whose generated sources are there (build/release by default).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILER = ["clang++-14", "-fsyntax-only", "-Wno-everything", "-Wthread-safety", "-Werror"]
ANNOTATIONS = "runtime/mutex.h"
# Must be found, else the analysis is off.
FAULT = f"""
#include "{ANNOTATIONS}"
class Counter {{
 public:
  int count() const {{ return count_; }}
 private:
  polystill::Mutex mutex_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
}};
int Count(const Counter& counter) {{ return counter.count(); }}
"""


def includes(path: Path) -> set[str]:
    return set(re.findall(r'^#include "([^"]+)"', path.read_text("utf-8"), re.MULTILINE))


def is_annotated(path: Path) -> bool:
    """Whether a file, or a header that it includes, includes the annotations."""
    found = includes(path)
    headers = (ROOT / name for name in found)
    return ANNOTATIONS in found or any(ANNOTATIONS in includes(header) for header in headers if header.is_file())


def flags_of(command: str) -> list[str]:
    """A compiler's command less the compiler, its warnings, its input and its output."""
    words = iter(shlex.split(command)[1:])
    kept = []
    for word in words:
        if word in ("-o", "-c"):
            next(words)
        elif not word.startswith("-W"):
            kept.append(word)
    return kept


def analyse(flags: list[str], folder: str, file: str, text: str | None = None) -> str:
    """What the compiler says; nothing when all is well."""
    command = [*COMPILER, *flags, *(["-x", "c++", "-"] if text else [file])]
    result = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True)
    return result.stderr if result.returncode else ""


def main(arguments: list[str]) -> int:
    build = Path(arguments[0] if arguments else ROOT / "build" / "release")
    entries = json.loads((build / "compile_commands.json").read_text("utf-8"))
    ours = [
        entry for entry in entries if Path(entry["file"]).is_relative_to(ROOT) and is_annotated(Path(entry["file"]))
    ]
    if not ours:
        print(f"{build}/compile_commands.json: names no file that includes {ANNOTATIONS}")
        return 1
    jobs = [(flags_of(entry["command"]), entry["directory"], entry["file"]) for entry in ours]
    if "-Wthread-safety" not in analyse(*jobs[0], FAULT):
        print(f"clang does not find a planted fault: {analyse(*jobs[0], FAULT) or 'it says nothing'}")
        return 1
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = [text for text in pool.map(lambda job: analyse(*job), jobs) if text]
    print("\n".join(said), end="")
    print(f"{len(jobs)} files, {len(said)} with faults")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
