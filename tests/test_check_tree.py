"""scripts/check_tree.py finds each kind of fault in a small tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
SOUND = {
    "CMakeLists.txt": "find_package(Threads REQUIRED)\nfind_package(absl CONFIG REQUIRED)\n",
    "THIRD_PARTY.md": "| Abseil | `absl` |\n| pytest | `pytest` |\n",
    "requirements-test.txt": "pytest==1.0\n",
    "runtime/README.md": "# runtime\n",
    "runtime/files.h": "#pragma once\n",
    "cli/README.md": "# cli\n",
    "cli/main.cc": '#include "runtime/files.h"\n',
}


def check(root: Path, files: dict[str, str]) -> tuple[int, list[str]]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    command = [sys.executable, str(REPO / "scripts" / "check_tree.py"), str(root)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stderr == ""
    return result.returncode, result.stdout.splitlines()[:-1]


def test_a_sound_tree(tmp_path: Path) -> None:
    assert check(tmp_path, SOUND) == (0, [])


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("corpus/index.h", "#pragma once\n", "corpus: has no README.md"),
        ("runtime/long.cc", "\n" * 401, "runtime/long.cc: 401 lines"),
        ("runtime/utils/x.txt", "", "runtime/utils: name a folder"),
        ("runtime/files.cc", '#include "cli/main.h"\n', "runtime/files.cc: includes cli/"),
        ("cli/train.cc", "#include <torch/torch.h>\n", "torch/torch.h: included by cli/train.cc"),
        ("CMakeLists.txt", "find_package(Boost)\n", "does not list `Boost`"),
        ("requirements.txt", "# pinned\nnumpy==2.0\n", "does not list `numpy`"),
        ("polystill", "apt_packages=(\n  cmake\n)\n", "does not list `cmake`"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, name: str, text: str, fault: str) -> None:
    status, faults = check(tmp_path, {**SOUND, name: text})
    assert status == 1
    assert len(faults) == 1
    assert fault in faults[0]
