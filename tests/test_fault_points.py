"""Fault points (runtime/fault_point.h) are around every durable write, and in no program that is released."""

from __future__ import annotations

import re

import pytest
from processes import BIN, REPO

MARK = b"fault point: "
TEST = REPO / "build" / "release" / "test" / "fault_points_test"

# What only whoever writes durably calls. WriteFileAtomically has its points inside.
DURABLE = re.compile(
    r"::rename\(|renameat2\(|::f(?:data)?sync\(|SyncPath\(|RenameDurably\(|\"COMMIT|FileOutputStream::Open|DB::Open\("
)
ELSEWHERE = {
    "inference/parquet_file.cc": "writes the temporary file that predict_files.cc syncs and renames",
    "corpus/test_corpus.cc": "writes the corpora of tests",
    "student_worker/tiny_job.cc": "writes the corpora of tests",
}


def test_no_released_program_holds_one() -> None:
    released = [file for folder in (BIN, BIN.parent / "lib") for file in folder.rglob("*")]
    assert len(released) >= 5
    assert [file.name for file in released if file.is_file() and MARK in file.read_bytes()] == []


def test_the_search_finds_them_where_they_are() -> None:
    if not TEST.exists():
        pytest.skip(f"{TEST} is not built")
    assert MARK in TEST.read_bytes()


def test_every_file_that_writes_durably_has_some() -> None:
    sources = [
        path
        for path in REPO.glob("[a-z]*/**/*.cc")
        if path.relative_to(REPO).parts[0] not in ("build", "tests") and not path.stem.endswith("_test")
    ]
    writers = {str(path.relative_to(REPO)): path.read_text() for path in sources if DURABLE.search(path.read_text())}
    without = {name for name, text in writers.items() if "FAULT_POINT(" not in text}
    assert without == ELSEWHERE.keys()
    assert len(writers) - len(without) >= 8
