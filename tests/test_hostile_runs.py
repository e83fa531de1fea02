"""What can go wrong around a run: each case ends with a message that names the culprit, and harms nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import yaml
from processes import AS_ROOT, BIN, REPO, SAMPLE, wait_for_text

FAILED, WRONG_USAGE = 1, 2


def polystill(*arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, str(BIN / "polystill"), *arguments],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=120,
    )


def said(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout + result.stderr


def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=200k none {disk} && exec "$0" "$@"'
    result = polystill(
        "run",
        str(SAMPLE),
        "--set",
        f"output={disk}/run",
        prefix=("unshare", *AS_ROOT, "--mount", "sh", "-c", script),
    )
    assert result.returncode == FAILED, said(result)
    assert "disk full" in said(result) or "No space left" in said(result), said(result)
    assert str(disk) in said(result)


def test_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = subprocess.run(
            [BIN / "polystill-coordinator", "--spec", SAMPLE, "--listen", address],
            cwd=REPO,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert result.returncode == FAILED
    assert address in result.stderr and "in use" in result.stderr


def test_not_loopback_without_insecure() -> None:
    result = subprocess.run(
        [BIN / "polystill-coordinator", "--spec", SAMPLE, "--listen", "0.0.0.0:0"],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode != 0
    assert "--insecure" in result.stderr


def damaged_corpus(folder: Path, damage: object) -> Path:
    """A copy of the sample's corpus and run file in which every record went through `damage`."""
    corpus = folder / "corpus"
    shutil.copytree(SAMPLE.parent / "sample", corpus)
    for file in corpus.glob("*.jsonl"):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(damage(record) + "\n" for record in records))
    spec = yaml.safe_load(SAMPLE.read_text())
    spec["corpus"]["path"] = str(corpus)
    spec["output"] = str(folder / "run")
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def without_language(record: dict[str, str]) -> str:
    return json.dumps({key: value for key, value in record.items() if key != "language"})


def with_unknown_label(record: dict[str, str]) -> str:
    return json.dumps(record | {"label": "astrology"})


def torn(record: dict[str, str]) -> str:
    return json.dumps(record)[:-5]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_language, ["language", "corpus.columns.language"]),
        (with_unknown_label, ["astrology", "corpus.labels"]),
        (torn, [".jsonl"]),
    ],
)
def test_damaged_corpus(tmp_path: Path, damage: object, words: list[str]) -> None:
    result = polystill("run", str(damaged_corpus(tmp_path, damage)))
    assert result.returncode in (FAILED, WRONG_USAGE), said(result)
    for word in words:
        assert word in said(result), said(result)
    assert not (tmp_path / "run" / "report.json").exists()


def test_language_without_records(tmp_path: Path) -> None:
    targets = 'student.languages.targets=["de","tlh"]'
    result = polystill("run", str(SAMPLE), "--set", f"output={tmp_path / 'run'}", "--set", targets)
    assert result.returncode in (FAILED, WRONG_USAGE)
    assert "tlh" in said(result)


def child_of(parent: int, program: str) -> int:
    """The process id of a child that runs `program`."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode().endswith(program):
            return int(pid)
    raise AssertionError(f"{parent} has no child {program}")


def test_one_of_two_teachers_may_die(tmp_path: Path) -> None:
    settings = ["baselines=[]", "teachers.0.train.epochs=1", "student.epochs=100", f"output={tmp_path / 'run'}"]
    command = [BIN / "polystill", "run", SAMPLE, *(word for setting in settings for word in ("--set", setting))]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        wait_for_text(tmp_path / "run" / "logs" / "coordinator.log", "distilled: generation", run)
        os.kill(child_of(run.pid, "polystill-teacher"), signal.SIGKILL)
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    assert re.search(r"teacher-english-\d was killed by signal 9 .* it is started again", output), output
    assert (tmp_path / "run" / "report.json").exists()


def test_a_finished_run_is_not_overwritten_unasked(tmp_path: Path) -> None:
    settings = ("--set", f"output={tmp_path / 'run'}", "--set", "baselines=[]")
    assert polystill("run", str(SAMPLE), *settings).returncode == 0
    report = tmp_path / "run" / "report.json"
    before = report.stat().st_mtime_ns
    result = polystill("run", str(SAMPLE), *settings)
    assert result.returncode != 0
    assert "--overwrite" in said(result) and str(tmp_path / "run") in said(result)
    assert report.stat().st_mtime_ns == before
    assert polystill("run", str(SAMPLE), *settings, "--overwrite").returncode == 0
    assert report.stat().st_mtime_ns != before
