"""A whole run whose teacher is Python: the student learns from its labels and features; the evaluation asks it too."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from engine_packages import write_manifest
from processes import SAMPLE
from teacher_packages import train_tokenizer
from test_features import run, write_spec

# Judges by the tokens' ids; for every class its own, so that there is something to learn.
MODEL = """
import numpy as np


def load(folder, device):
    table = np.sin(np.arange(300 * 16, dtype=np.float32)).reshape(300, 16)
    head = 3 * np.cos(np.arange(16 * CLASSES, dtype=np.float32)).reshape(16, CLASSES)

    def answer(ids, mask):
        keep = np.asarray(mask)[:, :, None].astype(np.float32)
        embedding = (table[np.asarray(ids)] * keep).sum(1) / keep.sum(1)
        return {"logits": embedding @ head, "embedding": embedding}

    return answer
"""
LOSSES = [
    {"kind": "soft_label", "teacher": "english"},
    {"kind": "embedding", "teacher": "english", "distance": "cosine"},
]


def test_a_student_of_a_python_teacher(tmp_path: Path) -> None:
    labels = yaml.safe_load(SAMPLE.read_text())["corpus"]["labels"]
    signature = {"input": "text", "vocab_size": 300, "max_length": 40, "labels": labels}
    package = write_manifest(tmp_path / "teacher", backend="python", python={"module": "model"}, signature=signature)
    train_tokenizer(package)
    (package / "model.py").write_text(MODEL.replace("CLASSES", str(len(labels))))
    spec = write_spec(tmp_path / "run", {"package": str(package)}, losses=LOSSES, workers=1)
    spec.write_text(yaml.safe_dump(yaml.safe_load(spec.read_text()) | {"baselines": ["zero_shot"]}))
    output = run(spec, workers=1)
    report = json.loads((output / "report.json").read_text())
    assert report["teacher"]["package"] == str(package)
    assert report["labels"]["count"] > 0
    assert report["models"]["teacher"]["latency"]["batch_1"]["text_ms"] > 0
    assert 0 < report["mean"]["zero_shot"]["accuracy"] < 1
    assert 0 < report["mean"]["distilled"]["accuracy"] < 1
    assert sorted(path.name for path in package.iterdir()) == ["model.py", "teacher.yaml", "tokenizer.model"]
