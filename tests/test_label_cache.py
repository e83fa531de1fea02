"""The label cache of a teacher server: what was computed once comes from the disk, across restarts, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from polystill import Codec, TeacherClient
from processes import Cluster, wait_for_file
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
