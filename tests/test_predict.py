"""`polystill predict` against the model computed anew in numpy, from the package's files alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray
from processes import BIN, REPO
from safetensors.numpy import load_file
from teacher_packages import write_package

# In a process of its own: SentencePiece's protobuf and those of gRPC and PyTorch do not live in one.
ENCODE = """
import json, sys, sentencepiece
tokenizer = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
json.dump([tokenizer.encode(text) or [tokenizer.unk_id()] for text in json.load(sys.stdin)], sys.stdout)
"""

TEXTS = ["Ein Netzwerkserver für E-Mail", "jeu de cartes", "", "画像を編集する", "x" * 5000]


class Reference:
    """A subword bag without hidden layers, in float64."""

    def __init__(self, package: Path) -> None:
        manifest = yaml.safe_load((package / "teacher.yaml").read_text())
        assert manifest["model"]["kind"] == "subword_bag"
        assert manifest["model"].get("hidden_layers", 0) == 0
        self.labels: list[str] = manifest["signature"]["labels"]
        self.weights = {name: w.astype(np.float64) for name, w in load_file(package / "model.safetensors").items()}
        self.package = package

    @staticmethod
    def token_ids_of(package: Path, text: str) -> list[int]:
        """Of any package, whatever its model."""
        manifest = yaml.safe_load((package / "teacher.yaml").read_text())
        encode = [sys.executable, "-c", ENCODE, str(package / "tokenizer.model")]
        done = subprocess.run(encode, input=json.dumps([text]), capture_output=True, text=True, check=True)
        ids: list[int] = json.loads(done.stdout)[0]
        return ids[: manifest["signature"]["max_length"]]

    def probabilities(self, text: str) -> NDArray[np.float64]:
        mean = self.weights["embedding.weight"][self.token_ids_of(self.package, text)].mean(axis=0)
        normed = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-5)
        hidden = normed * self.weights["norm.weight"] + self.weights["norm.bias"]
        logits = self.weights["head.weight"] @ hidden + self.weights["head.bias"]
        exponentials: NDArray[np.float64] = np.exp(logits - logits.max())
        return exponentials / exponentials.sum()

    def check(self, text: str, row: dict[str, object]) -> None:
        expected = self.probabilities(text)
        np.testing.assert_allclose(np.asarray(row["probabilities"]), expected, atol=2e-6)
        assert row["prediction"] == self.labels[int(expected.argmax())]
        assert row["probability"] == pytest.approx(expected.max(), abs=2e-6)


def predict(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [str(BIN / "polystill"), "predict", *arguments]
    return subprocess.run(command, cwd=REPO, input=stdin, capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def reference(sample_run: Path) -> Reference:
    return Reference(sample_run / "models" / "distilled")


def test_json_lines_keep_their_columns(sample_run: Path, reference: Reference, tmp_path: Path) -> None:
    rows = [{"nr": i, "body": text, "more": {"a": [1, None]}} for i, text in enumerate(TEXTS)]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = predict("--student", str(sample_run), "--file", str(source), "--text-column", "body", "--out", str(out))
    assert done.returncode == 0, done.stderr
    predicted = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(predicted) == len(rows)
    for row, answer in zip(rows, predicted, strict=True):
        assert {key: answer[key] for key in row} == row
        reference.check(str(row["body"]), answer)


def test_parquet(sample_run: Path, reference: Reference, tmp_path: Path) -> None:
    texts = [f"{text} {i}" for i in range(120) for text in TEXTS]
    table = pa.table({"n": list(range(len(texts))), "text": texts})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=77)
    package = str(sample_run / "models" / "distilled")
    arguments = ["--file", str(tmp_path / "in.parquet"), "--out", str(tmp_path / "out.parquet")]
    done = predict("--student", package, *arguments)
    assert done.returncode == 0, done.stderr
    answer = pq.read_table(tmp_path / "out.parquet")
    assert answer.select(["n", "text"]).equals(table)
    for row in answer.to_pylist()[::37]:
        reference.check(row["text"], row)


def test_standard_input_and_single_texts(sample_run: Path, reference: Reference) -> None:
    lines = [text for text in TEXTS if text]
    done = predict("--student", str(sample_run), stdin="\n".join(lines).encode())
    assert done.returncode == 0, done.stderr
    for text, line in zip(lines, done.stdout.decode().splitlines(), strict=True):
        reference.check(text, json.loads(line))
    done = predict("--student", str(sample_run), "--text", TEXTS[0], "--text", TEXTS[1], "--top", "2")
    for text, line in zip(TEXTS[:2], done.stdout.decode().splitlines(), strict=True):
        best = reference.labels[int(reference.probabilities(text).argmax())]
        assert line.startswith(best + " ")
        assert line.count("%") == 2
        assert line.endswith(text)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ('{"text": "a"}\nnot json\n', "in.jsonl", "in.jsonl: line 2: is not a JSON object"),
        ('{"body": "a"}\n', "in.jsonl", "in.jsonl: line 1: has no key 'text'; name the text's with --text-column"),
        ('{"text": 3}\n', "in.jsonl", "in.jsonl: line 1: key 'text' is no text"),
        ('{"text": "a", "prediction": 1}\n', "in.jsonl", "in.jsonl: line 1: has a key 'prediction' already"),
        ("PAR1 and nothing more", "in.parquet", "in.parquet: "),
        ('{"text": "a", "b": ' + "[" * 200_000 + "]" * 200_000 + "}", "in.jsonl", "in.jsonl: line 1: is nested deeper"),
        ("a\n", "in.csv", "in.csv: the ending must be .jsonl, .parquet or .txt"),
        ("good\n\udcff\n", "in.txt", "in.txt: line 2: is not UTF-8"),
    ],
)
def test_bad_files(sample_run: Path, tmp_path: Path, content: str, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    out = tmp_path / f"out{'.jsonl' if name.endswith('.txt') else Path(name).suffix}"
    done = predict("--student", str(sample_run), "--file", str(tmp_path / name), "--out", str(out))
    assert done.returncode == 1
    assert message in done.stderr.decode()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_no_student(sample_run: Path, tmp_path: Path) -> None:
    done = predict("--student", str(tmp_path), "--text", "a")
    assert done.returncode == 1
    assert "neither a model package" in done.stderr.decode()
    done = predict("--student", str(sample_run), "--model", "dstilled", "--text", "a")
    assert done.returncode == 1
    assert "it has distilled, gold, gold_all, no_teacher, pseudo_label, teacher-english" in done.stderr.decode()


def test_a_model_that_reads_ids(tmp_path: Path) -> None:
    package = write_package(tmp_path / "ids", "subword_bag", "classification")
    (package / "tokenizer.model").unlink()
    manifest = (package / "teacher.yaml").read_text()
    (package / "teacher.yaml").write_text(manifest.replace("input: text", "input: ids"))
    done = predict("--student", str(package), "--text", "a")
    assert done.returncode == 1
    assert "ids: the model reads token ids, not text; make them with polystill-tokenize" in done.stderr.decode()
