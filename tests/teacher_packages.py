"""Native packages with random weights, written from docs/formats.md alone, and a server of one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from processes import Cluster, wait_for_file
from safetensors.torch import save_file
from torch import Tensor

VOCABULARY, WIDTH, HEADS, LAYERS, HIDDEN_LAYERS, FEED_FORWARD, MAX_LENGTH = 300, 24, 3, 2, 2, 40, 40
LABELS = {
    "classification": ["net", "games", "science"],
    "binary": ["bad", "good"],
    "multi_label": ["red", "green", "blue", "grey"],
    "token_classification": ["O", "PER", "LOC"],
    "masked_lm": [],
}
TEXTS = ["Ein Netzwerkserver für E-Mail", "jeu de cartes", "", "画像を編集する", "an editor of texts " * 30]
MASK_ID = 1

# In a process of its own, as everywhere in these tests: its native code brings a protobuf of its own.
TRAIN = """
import sys, sentencepiece
options = dict(vocab_size=300, unk_id=0, bos_id=-1, eos_id=-1, byte_fallback=True, hard_vocab_limit=True)
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(sys.stdin.read().split("\\n")), model_prefix=sys.argv[1], minloglevel=3,
    control_symbols=["<mask>"], **options)
"""


def train_tokenizer(folder: Path) -> None:
    texts = [f"{text} {number * 7919}" for number in range(200) for text in TEXTS]
    command = [sys.executable, "-c", TRAIN, str(folder / "tokenizer")]
    subprocess.run(command, input="\n".join(texts), text=True, check=True)
    (folder / "tokenizer.vocab").unlink()


def bag_shapes(logits: int) -> dict[str, list[int]]:
    shapes = {"embedding.weight": [VOCABULARY, WIDTH], "norm.weight": [WIDTH], "norm.bias": [WIDTH]}
    for i in range(HIDDEN_LAYERS):
        shapes |= {f"hidden.{i}.weight": [WIDTH, WIDTH], f"hidden.{i}.bias": [WIDTH]}
    return shapes | {"head.weight": [logits, WIDTH], "head.bias": [logits]}


def transformer_shapes(task: str, logits: int) -> dict[str, list[int]]:
    linear = {"attention.qkv": (3 * WIDTH, WIDTH), "attention.output": (WIDTH, WIDTH)}
    linear |= {"feed_forward.inner": (FEED_FORWARD, WIDTH), "feed_forward.outer": (WIDTH, FEED_FORWARD)}
    shapes = {"embedding.weight": [VOCABULARY, WIDTH], "position.weight": [MAX_LENGTH, WIDTH]}
    for i in range(LAYERS):
        for norm in ("attention_norm", "feed_forward_norm"):
            shapes |= {f"layer.{i}.{norm}.weight": [WIDTH], f"layer.{i}.{norm}.bias": [WIDTH]}
        for name, (outputs, inputs) in linear.items():
            shapes |= {f"layer.{i}.{name}.weight": [outputs, inputs], f"layer.{i}.{name}.bias": [outputs]}
    shapes |= {"norm.weight": [WIDTH], "norm.bias": [WIDTH]}
    if task != "masked_lm":
        return shapes | {"head.weight": [logits, WIDTH], "head.bias": [logits]}
    shapes |= {"transform.weight": [WIDTH, WIDTH], "transform.bias": [WIDTH]}
    return shapes | {"transform_norm.weight": [WIDTH], "transform_norm.bias": [WIDTH], "head.bias": [VOCABULARY]}


def weights(shapes: dict[str, list[int]], dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(11)
    made = {}
    for name, shape in shapes.items():
        value = 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)
        made[name] = (value + float("norm.weight" in name)).to(dtype)
    return made


def write_package(folder: Path, kind: str, task: str, dtype: str = "float32") -> Path:
    """A package that reads texts, and ids of its tokeniser."""
    folder.mkdir(parents=True)
    train_tokenizer(folder)
    logits = {"binary": 1, "masked_lm": VOCABULARY}.get(task, len(LABELS[task]))
    signature: dict[str, Any] = {"input": "text", "vocab_size": VOCABULARY, "max_length": MAX_LENGTH, "task": task}
    if LABELS[task]:
        signature["labels"] = LABELS[task]
    else:
        signature["mask_id"] = MASK_ID
    model: dict[str, Any] = {"kind": kind, "width": WIDTH, "dtype": dtype}
    if kind == "subword_bag":
        model["hidden_layers"] = HIDDEN_LAYERS
        shapes = bag_shapes(logits)
    else:
        model |= {"layers": LAYERS, "heads": HEADS, "feed_forward": FEED_FORWARD}
        shapes = transformer_shapes(task, logits)
    save_file(weights(shapes, getattr(torch, dtype)), folder / "model.safetensors")
    manifest = {"format": "polystill.package/1", "name": folder.name, "backend": "native"}
    (folder / "teacher.yaml").write_text(yaml.safe_dump(manifest | {"signature": signature, "model": model}))
    return folder


@contextlib.contextmanager
def serving(package: Path, folder: Path, *arguments: str) -> Iterator[str]:
    """The address of a teacher server of the package."""
    with Cluster(folder) as cluster:
        address_file = folder / "address"
        words = ["--package", str(package), "--listen", "127.0.0.1:0", "--address-file", str(address_file), *arguments]
        process = cluster.start("teacher", "polystill-teacher", *words)
        try:
            yield wait_for_file(address_file, process)
        finally:
            assert process.poll() is None, cluster.log("teacher")
