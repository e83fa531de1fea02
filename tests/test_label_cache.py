"""The label cache of a teacher server: what was computed once comes from the disk, across restarts, bit for bit."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from polystill import Codec, TeacherClient
from processes import BIN, REPO, Cluster, wait_for_file
from teacher_packages import write_package
from test_metrics import Samples, address_in, read, total

RECORDS = [[3, 4, 5], [9], [7, 8, 250, 251, 11, 12]]
CODECS = [
    Codec("dense_fp32"),
    Codec("dense_int8"),
    Codec("top_k", temperature=2.0, k=7),
    Codec("sampled", temperature=2.0, draws=50),
    Codec("classes"),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a masked language model: rows of logits for each token, so that records have parts of several sizes."""
    return write_package(tmp_path_factory.mktemp("package") / "lm", "transformer", "masked_lm")


@contextmanager
def caching(package: Path, folder: Path, cache: Path) -> Iterator[tuple[str, str]]:
    """A teacher server with a cache, and where its metrics are."""
    folder.mkdir()
    with Cluster(folder) as cluster:
        words = ["--package", str(package), "--address-file", str(folder / "address"), "--metrics", "127.0.0.1:0"]
        process = cluster.start("teacher", "polystill-teacher", *words, "--cache", str(cache), "--threads", "2")
        yield wait_for_file(folder / "address", process), address_in(cluster, "teacher")


def lookups(samples: Samples, result: str) -> float:
    return total(samples, "polystill_teacher_cache_lookups_total", result=result)


def payloads(client: TeacherClient, records: list[list[int]]) -> list[bytes]:
    """What came, as it came, of every codec."""
    answers = []
    for codec in CODECS:
        labels = client.label(records, codec=codec)
        if codec.name.startswith("dense") or codec.name == "classes":
            answers.append(labels["logits"].tobytes())
        else:
            arrays = vars(labels.packed())
            answers.append(b"".join(value.tobytes() for value in arrays.values() if isinstance(value, np.ndarray)))
    return answers


def test_labels_are_computed_once(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with caching(package, tmp_path / "first", cache) as (address, url), TeacherClient(address) as client:
        first = payloads(client, RECORDS)
        samples = read(url)
        assert lookups(samples, "miss") == len(CODECS) * len(RECORDS)
        assert lookups(samples, "hit") == 0
        assert payloads(client, RECORDS) == first
        assert total(read(url), "polystill_teacher_batch_records_sum") == len(CODECS) * len(RECORDS)
        # In other company: some are known, one is not.
        mixed = client.label([RECORDS[2], [1, 2], RECORDS[0]])["logits"]
        alone = client.label([RECORDS[2]])["logits"]
        assert mixed[: len(RECORDS[2])].tobytes() == alone.tobytes()
        assert total(read(url), "polystill_teacher_batch_records_sum") == len(CODECS) * len(RECORDS) + 1
    with caching(package, tmp_path / "again", cache) as (address, url), TeacherClient(address) as client:
        assert payloads(client, RECORDS) == first
        samples = read(url)
        assert lookups(samples, "hit") == len(CODECS) * len(RECORDS)
        assert total(samples, "polystill_teacher_batch_records_sum") == 0


def test_many_who_ask_for_the_same_at_once(package: Path, tmp_path: Path) -> None:
    records = [[1 + i % 290, 2, 3] for i in range(200)]
    with caching(package, tmp_path / "serve", tmp_path / "cache") as (address, url):

        def ask(_: int) -> bytes:
            with TeacherClient(address) as client:
                pieces = [records[first : first + 20] for first in range(0, len(records), 20)]
                return b"".join(labels["logits"].tobytes() for labels in client.label_stream(pieces))

        with ThreadPoolExecutor(6) as pool:
            answers = set(pool.map(ask, range(6)))
        assert len(answers) == 1
        samples = read(url)
    assert total(samples, "polystill_teacher_batch_records_sum") == len(records)
    assert lookups(samples, "miss") == len(records)
    assert lookups(samples, "hit") + lookups(samples, "shared") == 5 * len(records)


def test_a_folder_is_one_servers(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with caching(package, tmp_path / "one", cache), Cluster(tmp_path / "two") as cluster:
        words = ["--package", str(package), "--listen", "127.0.0.1:0", "--cache", str(cache)]
        process = cluster.start("teacher", "polystill-teacher", *words)
        assert process.wait(60) == 1
        assert str(cache) in cluster.log("teacher")


RUN_RECORDS = 64
COMPARED = 20


def write_run(folder: Path) -> Path:
    """Of a student that learns from a package's labels, with its tokeniser."""
    english = write_package(folder / "english", "transformer", "classification")
    labels = yaml.safe_load((english / "teacher.yaml").read_text())["signature"]["labels"]
    rows = [
        {
            "id": f"r{i}",
            "language": "de" if i % 3 else "fr",
            "text": f"text {7919 * i} of a corpus " + "and so on " * (i % 9),
            "label": labels[i % len(labels)],
            "split": "train" if i < RUN_RECORDS else "test",
        }
        for i in range(RUN_RECORDS + 9)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "version": 1,
        "name": "cached",
        "seed": 7,
        "corpus": {"path": str(folder / "corpus.jsonl"), "labels": labels},
        "tokenizer": {"path": str(english / "tokenizer.model"), "max_length": 40},
        "teachers": [{"name": "english", "package": str(english)}],
        "student": {
            "model": {"width": 8},
            "losses": [{"kind": "soft_label", "codec": "dense_fp32"}],
            "epochs": 4,
            "batch_size": 8,
            "workers": 2,
        },
        "evaluate": {"bootstrap": 0},
        "output": str(folder / "run"),
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(spec))
    return folder / "run.yaml"


def polystill(*arguments: str) -> None:
    done = subprocess.run(
        [str(BIN / "polystill"), *arguments], cwd=REPO, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_run_computes_labels_in_its_first_pass_alone(tmp_path: Path) -> None:
    spec = str(write_run(tmp_path))
    run = tmp_path / "run"
    polystill("run", spec)
    told = re.findall(
        r"label cache: (\d+) labels were there, (\d+) were not", (run / "logs" / "teacher-english-0.log").read_text()
    )
    assert len(told) == 1
    # And the few inputs by which workers compare replicas: one asks first, the other may find them.
    assert 3 * RUN_RECORDS <= int(told[0][0]) < 3 * RUN_RECORDS + COMPARED
    assert RUN_RECORDS <= int(told[0][1]) < RUN_RECORDS + COMPARED
    assert not (run / "label_cache").exists()
    # Without one each pass computes all; what is learnt is the same.
    weights = run / "models" / "distilled" / "model.safetensors"
    before = weights.read_bytes()
    polystill("run", spec, "--overwrite", "--set", "teachers.0.cache_mb=0")
    assert weights.read_bytes() == before


def steps_done(run: Path) -> int:
    try:
        stages = json.loads((run / "status.json").read_text())["stages"]
    except (FileNotFoundError, json.JSONDecodeError):
        return 0
    return max((int(stage["done"]) for stage in stages if stage["name"] == "distilled"), default=0)


def run_until(folder: Path, steps: int, *arguments: str) -> None:
    """Stops the run with Ctrl-C when it has done so many steps, which its status tells each twentieth of 16,000."""
    command = [str(BIN / "polystill"), "run", str(folder / "run.yaml"), "--set", "student.epochs=2000", *arguments]
    process = subprocess.Popen(command, cwd=REPO)
    try:
        deadline = time.monotonic() + 300
        while steps_done(folder / "run") < steps:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGINT)
        stopped = process.wait(120)
    assert stopped == 130


def test_a_resumed_run_finds_what_was_kept(tmp_path: Path) -> None:
    write_run(tmp_path)
    run_until(tmp_path, 40)  # five passes
    assert (tmp_path / "run" / "label_cache").is_dir()
    run_until(tmp_path, steps_done(tmp_path / "run") + 40, "--resume")
    log = (tmp_path / "run" / "logs" / "teacher-english-0.log").read_text()
    told = re.findall(r"label cache: (\d+) labels were there, (\d+) were not", log)
    assert len(told) == 2
    assert RUN_RECORDS <= int(told[0][1]) < RUN_RECORDS + COMPARED
    assert told[1][1] == "0"
