"""A sentence encoder, which has no classes, as the teacher of a classifier; its tokeniser is WordPiece."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from processes import BIN, REPO, SAMPLE, Cluster
from references.wordpiece import framed
from safetensors.numpy import load_file
from test_features import STUDENT, last_checkpoint, run, write_spec
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

TASK = {"kind": "task"}
EMBEDDING = {"kind": "embedding", "teacher": "english", "distance": "cosine"}
WIDTH = 24


class Encoder(torch.nn.Module):
    """Embeds tokens; the embedding of a text is their mean."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocab_size, WIDTH)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embedding(ids)
        keep = mask.unsqueeze(2).to(x.dtype)
        return {"embedding": (x * keep).sum(1) / keep.sum(1), "hidden.0": x}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    lines = [
        json.loads(line) for file in (REPO / "recipes/package_topics/sample").glob("*.jsonl") for line in file.open()
    ]
    tokenizer.train_from_iterator([line["text"] for line in lines], trainer)
    framed(tokenizer).save(str(folder / "tokenizer.json"))
    torch.manual_seed(4)
    torch.jit.script(Encoder(tokenizer.get_vocab_size()).eval()).save(str(folder / "model.pt"))
    signature = {"input": "text", "vocab_size": tokenizer.get_vocab_size(), "max_length": 64, "labels": []}
    manifest = {"format": "polystill.package/1", "name": "encoder", "backend": "torchscript", "signature": signature}
    (folder / "teacher.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


def spec_of(folder: Path, package: Path, tokenizer: str = "", **student: object) -> Path:
    path = write_spec(folder, {"package": str(package)}, **student)
    if tokenizer:
        spec = yaml.safe_load(path.read_text())
        spec["tokenizer"]["path"] = tokenizer
        path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def test_a_student_learns_from_its_embedding(tmp_path: Path, package: Path) -> None:
    """With a tokeniser of the student's own; and the embedding changes what is learnt."""
    output = run(spec_of(tmp_path / "both", package, losses=[TASK, EMBEDDING], workers=2), workers=2)
    projections = load_file(last_checkpoint(output) / "projections.safetensors")
    assert {name: value.shape for name, value in projections.items()} == {"projection.1.0.weight": (WIDTH, 32)}
    report = json.loads((output / "report.json").read_text())
    assert report["labels"]["count"] > 0
    assert report["teacher"]["name"] == "english"
    assert report["models"]["teacher"]["latency"]["batch_1"]["text_ms"] > 0
    light = EMBEDDING | {"weight": 0.0}
    other = run(spec_of(tmp_path / "task", package, losses=[TASK, light], workers=2), workers=2)
    ours, theirs = (load_file(o / "models" / "distilled" / "model.safetensors") for o in (output, other))
    assert not np.array_equal(ours["embedding.weight"], theirs["embedding.weight"])


def test_a_student_of_its_tokeniser_learns_from_its_layers(tmp_path: Path, package: Path) -> None:
    hidden = {"kind": "hidden", "teacher": "english", "layers": [{"student": 1, "teacher": 0}]}
    spec = spec_of(tmp_path, package, str(package / "tokenizer.json"), model=STUDENT, losses=[TASK, hidden], workers=1)
    output = run(spec, workers=1)
    assert (output / "tokenizer" / "tokenizer.json").read_bytes() == (package / "tokenizer.json").read_bytes()
    assert load_file(last_checkpoint(output) / "projections.safetensors")["projection.1.0.weight"].shape == (WIDTH, 16)
    distilled = output / "models" / "distilled"
    assert (distilled / "tokenizer.json").exists() and not (distilled / "tokenizer.model").exists()
    # The distilled student predicts with it.
    command = [str(BIN / "polystill"), "predict", "--student", str(output)]
    done = subprocess.run(command, input="a game\nun jeu\n\n", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    labels = yaml.safe_load(SAMPLE.read_text())["corpus"]["labels"]
    assert all(json.loads(line)["prediction"] in labels for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"losses": [TASK, {"kind": "soft_label", "teacher": "english"}]}, "student.losses.1 learns from logits"),
        ({"losses": [TASK, EMBEDDING], "baselines": ["zero_shot"]}, "take zero_shot out of baselines"),
    ],
)
def test_what_needs_logits_is_refused_before_anything_starts(
    tmp_path: Path, package: Path, changes: dict[str, Any], words: str
) -> None:
    path = spec_of(tmp_path, package, losses=changes["losses"], workers=1)
    spec = yaml.safe_load(path.read_text()) | {"baselines": changes.get("baselines", [])}
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    with Cluster(tmp_path / "processes", path) as cluster:
        cluster.start("coordinator", "polystill-coordinator", "--spec", str(path), "--listen", "127.0.0.1:0")
        assert cluster.wait("coordinator") != 0
        assert "gives features alone" in cluster.log("coordinator")
        assert words in cluster.log("coordinator")


def test_there_is_nothing_to_predict(package: Path) -> None:
    command = [str(BIN / "polystill"), "predict", "--student", str(package)]
    done = subprocess.run(command, input="a game\n", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the model gives features alone" in done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "multi_label"}, "signature.labels: missing"),
        ({"labels": ["a", "b"]}, "forward gives no logits"),
    ],
)
def test_a_signature_that_promises_more_is_refused(
    tmp_path: Path, package: Path, change: dict[str, Any], words: str
) -> None:
    for file in package.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = yaml.safe_load((package / "teacher.yaml").read_text())
    manifest["signature"] |= change
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(manifest))
    command = [str(BIN / "polystill-teacher"), "--package", str(tmp_path), "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert words in done.stderr
