"""Corpora of token ids and packages with fresh weights, the same for both sides of a benchmark."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from polystill.native_models import SubwordBag, Transformer
from safetensors.torch import save_file

TEST_RECORDS = 32
SEED = 7


def write_corpus(folder: Path, workload: dict[str, Any], records: int) -> Path:
    """Parquet with `records` training records and a few to evaluate. The ids tell the label."""
    generator = np.random.default_rng(SEED)
    shape = workload["lengths"]
    count = records + TEST_RECORDS
    lengths = np.exp(generator.normal(math.log(shape["median"]), shape["sigma"], count)).astype(int)
    lengths = np.clip(lengths, shape["min"], shape["max"])
    labels = generator.integers(0, workload["labels"], count)
    # Frequent ids are small, as a tokeniser's are.
    ids = [
        np.minimum(generator.zipf(1.3, length) + 10 * label, workload["vocab_size"] - 1).astype(np.int32)
        for length, label in zip(lengths, labels, strict=True)
    ]
    table = pa.table(
        {
            "id": [f"record-{i}" for i in range(count)],
            "language": ["xx"] * count,
            "ids": pa.array(ids, pa.list_(pa.int32())),
            "label": [f"label-{label}" for label in labels],
            "split": ["train"] * records + ["test"] * TEST_RECORDS,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"corpus-{records}.parquet"
    pq.write_table(table, path)
    return path


def read_training(path: Path) -> tuple[list[list[int]], list[int]]:
    """Ids and labels of the training records."""
    rows = pq.read_table(path, filters=[("split", "=", "train")]).to_pydict()
    return rows["ids"], [int(label.removeprefix("label-")) for label in rows["label"]]


def make_model(workload: dict[str, Any], model: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(SEED)
    if model["kind"] == "subword_bag":
        return SubwordBag(workload["vocab_size"], model["width"], 0, workload["labels"])
    return Transformer(
        workload["vocab_size"],
        workload["lengths"]["max"],
        model["width"],
        model["layers"],
        model["heads"],
        4 * model["width"],
        workload["labels"],
        "classification",
    )


def write_package(folder: Path, workload: dict[str, Any], model: dict[str, Any]) -> Path:
    """A package of a model with fresh weights: what a teacher says matters to no figure here, only what it costs."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(make_model(workload, model).state_dict(), folder / "model.safetensors")
    manifest = {
        "format": "polystill.package/1",
        "name": folder.name,
        "backend": "native",
        "signature": {
            "input": "ids",
            "vocab_size": workload["vocab_size"],
            "max_length": workload["lengths"]["max"],
            "labels": [f"label-{label}" for label in range(workload["labels"])],
            "task": "classification",
        },
        "model": {**model, "dtype": "float32"},
    }
    manifest["model"].pop("dropout", None)
    (folder / "teacher.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder
