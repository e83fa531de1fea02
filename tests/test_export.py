"""`polystill export`: the module in Python gives what `polystill predict` gives."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from processes import BIN, REPO, SAMPLE
from test_predict import TEXTS, Reference, predict

TRANSFORMER = ["student.model={kind: transformer, width: 16, layers: 2, heads: 4}", "student.epochs=1", "baselines=[]"]


def export(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "polystill"), "export", *arguments]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60, check=False)


def train(output: Path) -> Path:
    settings = [word for setting in [*TRANSFORMER, f"output={output}"] for word in ("--set", setting)]
    command = [str(BIN / "polystill"), "run", str(SAMPLE), *settings]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.mark.parametrize("kind", ["subword_bag", "transformer"])
def test_the_module_gives_the_same_probabilities(sample_run: Path, tmp_path: Path, kind: str) -> None:
    run = sample_run if kind == "subword_bag" else train(tmp_path / "run")
    package = run / "models" / "distilled"
    assert yaml.safe_load((package / "teacher.yaml").read_text())["model"]["kind"] == kind
    done = export("--student", str(run), "--to", "torchscript", "--out", str(tmp_path / "student.pt"))
    assert done.returncode == 0, done.stderr
    module = torch.jit.load(tmp_path / "student.pt")
    texts = [text for text in TEXTS if text]
    rows = [Reference.token_ids_of(package, text) for text in texts]
    length = max(map(len, rows)) + 3  # padding must not matter
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])[:, :256]
    mask = torch.tensor([[place < len(row) for place in range(ids.shape[1])] for row in rows])
    with torch.no_grad():
        probabilities = torch.softmax(module(ids, mask), 1).numpy()
    answers = predict("--student", str(run), stdin="\n".join(texts).encode()).stdout.decode().splitlines()
    for got, answer in zip(probabilities, answers, strict=True):
        np.testing.assert_allclose(got, json.loads(answer)["probabilities"], atol=2e-6)


def test_what_cannot_be_exported(sample_run: Path, tmp_path: Path) -> None:
    done = export("--student", str(tmp_path), "--out", str(tmp_path / "a.pt"))
    assert done.returncode == 1
    assert "neither a model package" in done.stderr
    done = export("--student", str(sample_run), "--to", "onnx", "--out", str(tmp_path / "a.pt"))
    assert done.returncode not in (0, 1)
    assert "torchscript" in done.stderr + done.stdout
    assert not list(tmp_path.iterdir())
