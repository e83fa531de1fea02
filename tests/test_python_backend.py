"""Teachers whose model runs in Python processes of the server: what they answer, and what happens when they do not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_packages import MODEL, expected, python_package
from polystill import Codec, TeacherClient, TeacherError, TeacherUnavailable
from processes import BIN, Cluster, wait_for_file, wait_for_text
from test_metrics import address_in, read, total

ROWS = [[3, 4, 5], [9], list(range(20, 60)), [7, 7, 250, 251, 11, 12]]
RAISES, KILLED_ONCE, KILLED, HANGS, ONE, OTHER, NAN, FORKS, PRINTS = (
    [7, 7, what] for what in (1, 2, 3, 4, 5, 6, 8, 9, 10)
)


@dataclass
class Served:
    client: TeacherClient
    process: subprocess.Popen[bytes]
    cluster: Cluster

    def log(self) -> str:
        return self.cluster.log("teacher")

    def batches(self) -> int:
        return len(re.findall(r"python \d+: batch", self.log()))

    def restarts(self) -> float:
        return total(read(address_in(self.cluster, "teacher")), "polystill_backend_restarts_total")

    def pythons(self) -> list[int]:
        """The Python processes, by the children of the server."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return sorted(int(pid) for task in tasks for pid in task.read_text().split())


@contextmanager
def serving(package: Path, folder: Path, *arguments: str, **client: Any) -> Iterator[Served]:
    folder.mkdir(parents=True, exist_ok=True)
    with Cluster(folder) as cluster:
        words = ["--package", str(package), "--address-file", str(folder / "address"), *arguments]
        process = cluster.start("teacher", "polystill-teacher", *words)
        try:
            address = wait_for_file(folder / "address", process)
        except RuntimeError as error:
            raise AssertionError(cluster.log("teacher")) from error
        with TeacherClient(address, **({"retry_for": 0} | client)) as teacher:
            yield Served(teacher, process, cluster)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for what a process survives."""
    folder = tmp_path_factory.mktemp("python")
    package = python_package(folder / "package", answer_seconds=2)
    flags = ["--cache", str(folder / "cache"), "--metrics", "127.0.0.1:0"]
    with serving(package, folder / "serve", *flags) as made:
        yield made
        assert made.process.poll() is None, made.log()


def test_answers_are_the_models(served: Served) -> None:
    said = served.client.describe()
    assert said.features == {"embedding": 12, "hidden.0": 12}
    assert served.client._describe_raw().backend == "python/cpu"
    assert served.client._describe_raw().repeatable
    answer = served.client.label(ROWS, outputs=["logits", "embedding", "hidden.0"])
    for name in ("logits", "embedding", "hidden.0"):
        by_numpy = np.concatenate([np.atleast_2d(expected(row)[name]) for row in ROWS])
        np.testing.assert_allclose(answer[name], by_numpy, atol=1e-6, rtol=0)


def test_it_gets_tensors_of_pytorch_in_padded_batches(served: Served) -> None:
    served.client.label([[1, 2, 3]])
    assert "batch 32 8 int64 int64 torch\n" in served.log()


def test_labels_are_computed_once(served: Served) -> None:
    """By any codec: the cache is in front of the process."""
    rows = [[number, 200] for number in range(50)]
    codecs = [Codec("dense_fp32"), Codec("dense_int8"), Codec("top_k", k=2), Codec("classes")]
    first = [served.client.label(rows, codec=codec) for codec in codecs]
    before = served.batches()
    again = [served.client.label(rows, codec=codec) for codec in codecs]
    assert served.batches() == before > 0
    for place in (0, 1, 3):
        assert np.array_equal(first[place]["logits"], again[place]["logits"])


def test_what_it_raises_is_told(served: Served) -> None:
    before = served.pythons()
    with pytest.raises(
        TeacherError, match=r"INTERNAL: .* record '0' and what came with it: the model failed: ValueError: no such word"
    ):
        served.client.label([RAISES])
    assert 'raise ValueError("no such word")' in served.log()  # its traceback
    assert served.pythons() == before


def test_numbers_that_are_not_finite_name_the_record(served: Served) -> None:
    with pytest.raises(TeacherError, match=r"record 'b', logits: number 0 is nan"):
        served.client.label([[1], NAN], record_ids=["a", "b"])


def test_a_batch_whose_process_dies_is_answered_by_the_next(served: Served) -> None:
    before, restarts = served.pythons(), served.restarts()
    answer = served.client.label([KILLED_ONCE, [1, 2]])
    np.testing.assert_allclose(answer["logits"][0], expected(KILLED_ONCE)["logits"], atol=1e-6)
    assert f"Python process {before[0]} was killed by signal 9 (Killed)" in served.log()
    assert served.pythons() != before and len(served.pythons()) == 1
    assert served.restarts() == restarts + 1


def test_one_that_hangs_is_killed_and_named(served: Served) -> None:
    (pid,) = served.pythons()
    with pytest.raises(TeacherUnavailable, match=rf"Python process {pid} gave no answer within 2 s .* is killed"):
        served.client.label([HANGS])
    wait_for_text(served.cluster.folder / "teacher.log", f"Python process {pid} gave no answer", served.process)
    with TeacherClient(served.client.address, retry_for=60) as patient:  # until the next has loaded
        np.testing.assert_allclose(patient.label([[44, 45]])["logits"][0], expected([44, 45])["logits"], atol=1e-6)
    assert pid not in served.pythons()


def test_one_that_always_dies_is_unavailable(served: Served) -> None:
    with pytest.raises(TeacherUnavailable, match=r"the Python process that computed the batch ended, and so did"):
        served.client.label([KILLED])
    with TeacherClient(served.client.address, retry_for=60) as patient:
        assert patient.label([[46, 47]])["logits"].shape == (1, 3)


def runs(pid: int) -> bool:
    """Not ended, nor waiting to be looked at by whoever adopted it."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_what_a_process_started_ends_with_it(served: Served) -> None:
    with pytest.raises(TeacherUnavailable):
        served.client.label([FORKS])
    deadline = time.monotonic() + 10
    children: list[int] = []
    while not children and time.monotonic() < deadline:  # what it prints comes through the server
        time.sleep(0.02)
        children = [int(pid) for pid in re.findall(r"python \d+: child (\d+)", served.log())]
    assert children
    while any(map(runs, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(runs, children))


def test_one_that_prints_without_pause_is_killed(tmp_path: Path) -> None:
    package = python_package(tmp_path / "package", answer_seconds=1)
    with serving(package, tmp_path / "serve") as served:
        with pytest.raises(TeacherUnavailable, match="gave no answer within 1 s"):
            served.client.label([PRINTS])
        with TeacherClient(served.client.address, retry_for=60) as patient:
            assert patient.label([[46, 47]])["logits"].shape == (1, 3)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0


def test_one_that_ends_while_another_loads_is_a_failure(tmp_path: Path) -> None:
    source = """
import os, time
from pathlib import Path
def load(folder, device):
    beside = Path(folder).parent
    try:
        (beside / "first").touch(exist_ok=False)
    except FileExistsError:  # the other loads until the first has been killed
        while not (beside / "killed").exists():
            time.sleep(0.01)
        time.sleep(0.5)
    print("pid", os.getpid(), flush=True)
    return lambda ids, mask: ids[:, :3] / 2
"""
    package = python_package(tmp_path / "package", source, processes=2)
    with Cluster(tmp_path / "serve") as cluster:
        process = cluster.start("teacher", "polystill-teacher", "--package", str(package))
        wait_for_text(cluster.folder / "teacher.log", "pid ", process)
        time.sleep(1)  # until it listens
        found = re.search(r"python \d+: pid (\d+)", cluster.log("teacher"))
        assert found
        os.kill(int(found[1]), signal.SIGKILL)
        (tmp_path / "killed").touch()
        assert process.wait(60) == 1
        assert f"Python process {found[1]} was killed by signal 9" in cluster.log("teacher")


def test_processes_compute_at_the_same_time(tmp_path: Path) -> None:
    package = python_package(tmp_path / "package", processes=2)
    with serving(package, tmp_path / "serve", "--batch-records", "1") as served:
        assert len(served.pythons()) == 2
        with ThreadPoolExecutor(2) as callers:  # each waits for the other in the model
            answers = list(callers.map(lambda row: served.client.label([row])["logits"], [ONE, OTHER]))
        np.testing.assert_allclose(answers[0][0], expected(ONE)["logits"], atol=1e-6)
        np.testing.assert_allclose(answers[1][0], expected(OTHER)["logits"], atol=1e-6)


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_server(tmp_path: Path, signal_: signal.Signals, monkeypatch: Any) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    package = python_package(tmp_path / "package")
    with serving(package, tmp_path / "serve") as served:
        pids = served.pythons()
        assert len(pids) == 1
        served.process.send_signal(signal_)
        assert served.process.wait(30) == (0 if signal_ == signal.SIGTERM else -signal.SIGKILL)
        deadline = time.monotonic() + 10
        while os.path.exists(f"/proc/{pids[0]}") and time.monotonic() < deadline:  # noqa: PTH110
            if "State:\tZ" in Path(f"/proc/{pids[0]}/status").read_text():
                break  # whoever adopted it has not looked yet
            time.sleep(0.02)
        else:
            assert time.monotonic() < deadline, "still runs"
    assert list((tmp_path / "tmp").iterdir()) == []  # nor the name of its socket
    assert sorted(path.name for path in package.iterdir()) == ["judge.py", "teacher.yaml"]  # its digest is the same


NUMPY_ALONE = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "torch" else find(name, *more)
"""


def without_pytorch(folder: Path) -> str:
    """An interpreter that has none, and starts so much the faster."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(NUMPY_ALONE)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}/site:$PYTHONPATH" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


def refusal(package: Path) -> str:
    """What a teacher server says that does not take the package."""
    command = [str(BIN / "polystill-teacher"), "--package", str(package), "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, f"{done.returncode}: {done.stderr}"
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("source", "python", "words"),
    [
        (MODEL, {"module": "other"}, r"teacher.yaml: python.module: the package has no file other.py"),
        (MODEL, {"module": "../judge"}, r"python.module: '../judge' is no module's name"),
        (MODEL, {"function": "make"}, r"judge.py: has no function 'make' \(teacher.yaml: python.function\)"),
        (
            "import no_such_thing",
            {},
            r"status 1 before the model was loaded; the last that it printed: .*No module named 'no_such_thing'",
        ),
        (
            "def load(folder, device):\n    raise OSError('no weights')",
            {},
            r"ended with status 1.*no weights",
        ),
        ("def load(folder, device):\n    raise KeyError('no weights')", {}, r"printed: KeyError: 'no weights'"),
        ("def load(folder, device):\n    return 3", {}, r"judge.py: load returns int, not a callable"),
        ("import os\ndef load(folder, device):\n    os._exit(3)", {}, r"Python process \d+ ended with status 3"),
        (
            "import time\ntime.sleep(1000)",
            {"start_seconds": 1},
            r"did not load the model within 1 s \(python.start_sec",
        ),
        (MODEL, {"interpreter": "/no/python"}, r"ended with status 127.*/no/python"),
        (
            "def load(folder, device):\n    return lambda ids, mask: {}",
            {},
            r"judge.py: .*gives neither logits nor features|none of the model's outputs",
        ),
        (
            "def load(folder, device):\n    return lambda ids, mask: {'pooled': ids / 2}",
            {},
            r"TypeError: the model gives pooled \[2, 8\] of float64 for 2 rows",
        ),
        (
            "def load(folder, device):\n    return lambda ids, mask: ids",
            {},
            r"TypeError: the model gives logits \[2, 8\] of int64",
        ),
        (
            "def load(folder, device):\n    return lambda ids, mask: ids[:, :2] / 2",
            {},
            r"judge.py: .*'logits' is FP32 \[2, 2\], it must be FP32 \[2, 3\]",
        ),
        (
            "def load(folder, device):\n    return lambda ids, mask: (ids / 0)[:, :3]",
            {},
            r"judge.py: forward gives logits not finite",
        ),
    ],
)
def test_what_cannot_be_loaded_is_refused(tmp_path: Path, source: str, python: dict[str, Any], words: str) -> None:
    python = {"interpreter": without_pytorch(tmp_path)} | python
    said = refusal(python_package(tmp_path / "package", source, **python))
    assert re.search(words, said), said
    assert str(tmp_path / "package") in said


def test_without_pytorch_it_gets_numpys_arrays(tmp_path: Path) -> None:
    """As in an interpreter that has none."""
    package = python_package(tmp_path / "package", interpreter=without_pytorch(tmp_path))
    with serving(package, tmp_path / "serve") as served:
        np.testing.assert_allclose(served.client.label([[1, 2]])["logits"][0], expected([1, 2])["logits"], atol=1e-6)
        wait_for_text(served.cluster.folder / "teacher.log", "batch 32 8 int64 int64 numpy", served.process)
