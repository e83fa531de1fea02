"""A teacher that AOTInductor compiled, served by a real teacher server, answers as PyTorch does."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import BIN, REPO, Cluster, wait_for_file
from test_teacher_wire import Caller, messages  # noqa: F401

OUTPUTS = ["logits", "embedding", "hidden.1"]
LABELS = ["net", "devel", "games"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What references/compiled_teacher.py writes."""
    out = tmp_path_factory.mktemp("compiled")
    command = [sys.executable, "-m", "references.compiled_teacher", str(out)]
    done = subprocess.run(command, cwd=REPO / "tests", capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def caller(folder: Path, messages: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:  # noqa: F811
    out = tmp_path_factory.mktemp("server")
    with Cluster(out) as cluster:
        address = out / "address"
        flags = ["--package", str(folder / "package"), "--listen", "127.0.0.1:0", "--address-file", str(address)]
        process = cluster.start("teacher", "polystill-teacher", *flags)
        yield Caller(wait_for_file(address, process), messages)
        assert process.poll() is None, cluster.log("teacher")


def ask(caller: Caller, rows: list[list[int]]) -> dict[str, np.ndarray]:
    inputs = [{"id": str(place), "ids": {"ids": row}} for place, row in enumerate(rows)]
    reply = caller.label(inputs=inputs, spec={"outputs": OUTPUTS, "codec": 1})
    assert reply.code == 0, reply.message
    pairs = zip(OUTPUTS, reply.labels, strict=True)
    return {name: np.frombuffer(of.dense.data, "<f4").reshape(list(of.dense.shape)) for name, of in pairs}


def test_answers_are_those_of_pytorch(folder: Path, caller: Caller) -> None:
    description = caller.describe()
    assert list(description.signature.labels) == LABELS
    assert {feature.name: feature.width for feature in description.features} == {"embedding": 32, "hidden.1": 32}
    rows = json.loads((folder / "expected.json").read_text())
    answers = ask(caller, [row["ids"] for row in rows])
    for name in OUTPUTS:
        expected = np.concatenate([np.atleast_2d(row[name]) for row in rows])
        assert answers[name].shape == expected.shape
        np.testing.assert_allclose(answers[name], expected, atol=1e-5, rtol=0)


def test_a_rows_bits_are_its_own(folder: Path, caller: Caller) -> None:
    assert caller.describe().repeatable
    rows = [row["ids"] for row in json.loads((folder / "expected.json").read_text())]
    together = ask(caller, rows)
    first = 0
    for place, row in enumerate(rows):
        alone = ask(caller, [row])
        assert np.array_equal(alone["logits"][0], together["logits"][place]), place
        assert np.array_equal(alone["hidden.1"], together["hidden.1"][first : first + len(row)]), place
        first += len(row)


def refusal(package: Path) -> str:
    """What a teacher server says that does not take the package."""
    command = [str(BIN / "polystill-teacher"), "--package", str(package), "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, f"{done.returncode}: {done.stderr}"
    return done.stderr


def copy_of(folder: Path, to: Path, **changes: object) -> Path:
    shutil.copytree(folder / "package", to)
    keys = {"outputs": OUTPUTS, "labels": LABELS} | changes
    text = (to / "teacher.yaml").read_text()
    for key, value in keys.items():
        text = text.replace(
            f"{key}: {json.dumps({'outputs': OUTPUTS, 'labels': LABELS}[key])}", f"{key}: {json.dumps(value)}"
        )
    (to / "teacher.yaml").write_text(text)
    return to


def test_torn_files_are_data_loss(folder: Path, tmp_path: Path) -> None:
    package = copy_of(folder, tmp_path / "package")
    whole = (package / "model.pt2").read_bytes()
    rng = random.Random(4)
    # Not the code itself: whoever may change that may do anything.
    torn = [
        b"",
        b"PK\x03\x04",
        rng.randbytes(5000),
        *(whole[: rng.randrange(len(whole))] for _ in range(6)),
        whole[:-1],
    ]
    for content in torn:
        (package / "model.pt2").write_bytes(content)
        said = refusal(package)
        assert "DATA_LOSS" in said and "model.pt2: is not a whole AOTInductor model" in said
    (package / "model.pt2").unlink()
    assert "NOT_FOUND" in refusal(package)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outputs": ["logits", "embedding"]}, "it gives 3 tensors, but 2 outputs are named"),
        ({"outputs": ["embedding", "logits", "hidden.1"]}, "forward must give logits of floating numbers [rows, 3]"),
        ({"outputs": ["logits", "hidden.0", "hidden.1"]}, "forward must give hidden.0"),
        ({"outputs": ["logits", "pooled", "hidden.1"]}, "outputs: 'pooled' is none"),
        ({"outputs": ["embedding"]}, "outputs: has no logits"),
        ({"labels": []}, "outputs: has logits"),
        ({"labels": ["a", "b"]}, "[rows, 2]"),
    ],
)
def test_outputs_that_are_not_the_models(folder: Path, tmp_path: Path, changes: dict[str, object], words: str) -> None:
    assert words in refusal(copy_of(folder, tmp_path / "package", **changes))
