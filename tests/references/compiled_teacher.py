"""A small transformer as a package that AOTInductor compiled, and what PyTorch says of some rows.

    python -m references.compiled_teacher FOLDER

writes FOLDER/package and FOLDER/expected.json, for each row {"ids", "logits", "embedding", "hidden.1"}.
In a process of its own, since PyTorch's protobuf and that of gRPC do not live in one. Takes about a minute.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

OUTPUTS = ["logits", "embedding", "hidden.1"]
VOCAB, WIDTH, HEADS, MAX_LENGTH = 50, 32, 4, 64
LABELS = ["net", "devel", "games"]


class Transformer(nn.Module):
    """One block; rows of any number and length."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.inner = nn.Linear(WIDTH, 4 * WIDTH)
        self.outer = nn.Linear(4 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, len(LABELS))

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.embedding(ids)
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, mask[:, None, None])
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        hidden = x + self.outer(nn.functional.gelu(self.inner(x)))
        keep = mask.unsqueeze(2).to(x.dtype)
        embedding = (hidden * keep).sum(1) / keep.sum(1).clamp_min(1)
        return self.head(embedding), embedding, hidden


def compile_to(module: nn.Module, file: Path) -> None:
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=MAX_LENGTH)
    example = (torch.zeros(3, 16, dtype=torch.long), torch.ones(3, 16, dtype=torch.bool))
    shapes = ({0: rows, 1: length}, {0: rows, 1: length})
    program = torch.export.export(module, example, dynamic_shapes=shapes)
    torch._inductor.aoti_compile_and_package(program, package_path=str(file))


def write_manifest(package: Path, outputs: list[str], labels: list[str]) -> None:
    package.joinpath("teacher.yaml").write_text(
        "format: polystill.package/1\nname: compiled\nbackend: aot_inductor\n"
        f"outputs: {json.dumps(outputs)}\n"
        f"signature: {{input: ids, vocab_size: {VOCAB}, max_length: {MAX_LENGTH}, labels: {json.dumps(labels)}}}\n"
    )


def expected(module: nn.Module, count: int) -> list[dict[str, object]]:
    """Each row by itself, without padding."""
    rows: list[dict[str, object]] = []
    for _ in range(count):
        length = int(torch.randint(1, MAX_LENGTH + 1, ()))
        ids = torch.randint(0, VOCAB, (1, length))
        logits, embedding, hidden = module(ids, torch.ones_like(ids, dtype=torch.bool))
        answers = zip(OUTPUTS, (logits[0], embedding[0], hidden[0]), strict=True)
        rows.append({"ids": ids[0].tolist()} | {name: answer.tolist() for name, answer in answers})
    return rows


def main() -> None:
    folder = Path(sys.argv[1])
    (folder / "package").mkdir(parents=True)
    torch.manual_seed(3)
    torch.set_num_threads(1)  # baked into the code
    module = Transformer().eval().requires_grad_(False)
    compile_to(module, folder / "package" / "model.pt2")
    write_manifest(folder / "package", OUTPUTS, LABELS)
    folder.joinpath("expected.json").write_text(json.dumps(expected(module, 80)))


if __name__ == "__main__":
    main()
