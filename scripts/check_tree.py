"""Checks what no compiler does: READMEs, sizes, names of folders, layers, heavy includes, third-party notices.

python scripts/check_tree.py [ROOT]
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CODE = {".cc", ".h", ".py", ".proto", ".sh"}
MAX_LINES = 400  # most files are far shorter; a longer one is two files
MAX_TEST_LINES = 700
FORBIDDEN_FOLDERS = {"utils", "util", "common", "helpers", "misc"}

# Dependencies point one way: a folder includes folders of its own rank or below.
RANKS = {
    **dict.fromkeys(["runtime", "proto"], 0),
    **dict.fromkeys(["corpus", "soft_labels", "losses", "models", "collectives", "checkpoint", "evaluation"], 1),
    **dict.fromkeys(["coordinator", "teacher_server", "student_worker"], 2),
    **dict.fromkeys(["cli", "benchmarks", "tests"], 3),
}

# Headers that cost compile time or collide with others: how many files may include them, tests aside.
RARE_INCLUDES = {"torch/torch.h": 0, "torch/script.h": 1, "sentencepiece_processor.h": 1, "sentencepiece_trainer.h": 1}


@dataclass(frozen=True)
class Tree:
    root: Path
    files: list[Path]  # relative to root

    def code(self, *suffixes: str) -> Iterator[tuple[Path, str]]:
        for path in self.files:
            if path.suffix in (suffixes or CODE):
                yield path, (self.root / path).read_text("utf-8")

    def text(self, name: str) -> str:
        path = self.root / name
        return path.read_text("utf-8") if path.exists() else ""


def read_tree(root: Path) -> Tree:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    files = sorted({Path(line) for line in listed.stdout.splitlines()})
    return Tree(root, [path for path in files if (root / path).is_file()])


def readmes(tree: Tree) -> Iterator[str]:
    folders = {path.parts[0] for path, _ in tree.code() if len(path.parts) > 1}
    folders |= {f"recipes/{path.parts[1]}" for path in tree.files if path.parts[0] == "recipes" and len(path.parts) > 2}
    for folder in sorted(folders):
        if Path(folder, "README.md") not in tree.files:
            yield f"{folder}: has no README.md"


def sizes(tree: Tree) -> Iterator[str]:
    for path, text in tree.code():
        limit = MAX_TEST_LINES if path.stem.endswith("_test") or path.parts[0] == "tests" else MAX_LINES
        if (lines := text.count("\n")) > limit:
            yield f"{path}: {lines} lines, more than {limit}"


def folder_names(tree: Tree) -> Iterator[str]:
    for folder in sorted({parent for path in tree.files for parent in path.parents}):
        if folder.name in FORBIDDEN_FOLDERS:
            yield f"{folder}: name a folder by what it does"


def layers(tree: Tree) -> Iterator[str]:
    for path, text in tree.code(".cc", ".h"):
        rank = RANKS.get(path.parts[0])
        for folder in re.findall(r'^#include "([a-z_]+)/', text, re.MULTILINE):
            if rank is not None and RANKS.get(folder, 0) > rank:
                yield f"{path}: includes {folder}/, which is above {path.parts[0]}/"


def rare_includes(tree: Tree) -> Iterator[str]:
    for header, limit in RARE_INCLUDES.items():
        include = re.compile(rf"#include [<\"]{re.escape(header)}[>\"]")
        users = [
            str(path)
            for path, text in tree.code(".cc", ".h")
            if include.search(text) and not path.stem.endswith("_test")
        ]
        if len(users) > limit:
            yield f"{header}: included by {', '.join(users)}; {limit} may"


def third_party(tree: Tree) -> Iterator[str]:
    notices = tree.text("THIRD_PARTY.md")
    used = set(re.findall(r"find_package\(([\w+-]+)", tree.text("CMakeLists.txt"))) - {"Threads"}
    for name in ("requirements.txt", "requirements-test.txt"):
        used |= set(re.findall(r"^([A-Za-z][\w.-]*)==", tree.text(name), re.MULTILINE))
    packages = re.search(r"^apt_packages=\(([^)]*)\)", tree.text("polystill"), re.MULTILINE)
    used |= set(packages.group(1).split()) if packages else set()
    for name in sorted(used):
        if f"`{name}`" not in notices:
            yield f"THIRD_PARTY.md: does not list `{name}`"


CHECKS: tuple[Callable[[Tree], Iterator[str]], ...] = (
    readmes,
    sizes,
    folder_names,
    layers,
    rare_includes,
    third_party,
)


def main(arguments: list[str]) -> int:
    tree = read_tree(Path(arguments[0] if arguments else "."))
    wrong = [message for check in CHECKS for message in check(tree)]
    for message in wrong:
        print(message)
    print(f"{len(tree.files)} files, {len(wrong)} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
