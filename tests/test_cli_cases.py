"""Every wrong invocation of cli_cases.yaml: exit code, message, and nothing left behind."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import BIN, REPO

WRITTEN = yaml.safe_load((Path(__file__).parent / "cli_cases.yaml").read_text())
CASES: list[dict[str, Any]] = WRITTEN["cases"]


def files_of(case: dict[str, Any], here: Path) -> dict[str, str]:
    def fill(text: str) -> str:
        sample = REPO / "recipes" / "package_topics" / "sample"
        return text.replace("{sample}", str(sample)).replace("{here}", str(here))

    run_file: str = WRITTEN["base"]
    for old, new in case.get("replace", []):
        assert run_file.count(old) == 1, f"{old!r} is {run_file.count(old)} times in the run file"
        run_file = run_file.replace(old, new)
    return {name: fill(text) for name, text in ({"run.yaml": run_file} | case.get("files", {})).items()}


def contents(folder: Path) -> dict[str, str]:
    """What lies in the folder, less that of a run that began: it stays, with its logs."""
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if not path.is_dir()}
    return {name: path.read_bytes().decode() for name, path in paths.items() if not name.startswith("out/")}


@pytest.fixture(scope="module")
def busy() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield str(taken.getsockname()[1])


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 40
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case["name"].replace(" ", "-") for case in CASES])
def test_case(case: dict[str, Any], tmp_path: Path, busy: str) -> None:
    files = files_of(case, tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    command = [
        str(BIN / "polystill"),
        *(word.replace("{busy}", busy) for word in case.get("command", ["run", "run.yaml"])),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == case["exit"], said
    for part in case["says"]:
        assert part.replace("{busy}", busy) in said
    assert contents(tmp_path) == files
    if case["exit"] == 2:
        assert not (tmp_path / "out").exists()
