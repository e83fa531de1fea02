"""The native models of models/subword_bag.h and models/transformer.h in PyTorch: the same numbers up to rounding.

Parameters have the names of model.safetensors. forward(ids [rows, length], mask [rows, length]) of both gives a dict:
`logits` [rows, labels], of tokens [rows, length, labels]; `embedding` [rows, width]; `hidden.N` [rows, length, width].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-5


def mean_of_tokens(x: Tensor, mask: Tensor) -> Tensor:
    """[rows, length, width] -> [rows, width]; 0 of a row without tokens."""
    counts = mask.sum(1, keepdim=True).clamp(min=1)
    return (x * mask.unsqueeze(2)).sum(1) / counts


class SubwordBag(nn.Module):
    """Mean of embeddings, layer norm, (linear, GELU) x hidden_layers, linear."""

    def __init__(self, vocab_size: int, width: int, hidden_layers: int, logits: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.norm = nn.LayerNorm(width, NORM_EPS)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(hidden_layers))
        self.head = nn.Linear(width, logits)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        x = self.norm(mean_of_tokens(self.embedding(ids), mask))
        for layer in self.hidden:
            x = F.gelu(layer(x))
        return {"logits": self.head(x), "embedding": x}


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        rows, length, width = x.shape
        q, k, v = self.qkv(x).view(rows, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attended)
        given: Tensor = self.output(mixed.transpose(1, 2).reshape(rows, length, width))
        return given


class FeedForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        given: Tensor = self.outer(F.gelu(self.inner(x)))
        return given


class Layer(nn.Module):
    """Norms before the sublayers (Xiong et al. 2020, arXiv:2002.04745)."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, NORM_EPS)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width, NORM_EPS)
        self.feed_forward = FeedForward(width, inner)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), attended))
        given: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return given


class Bias(nn.Module):
    """The head of a masked language model: the weight is the embedding's."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(size))


class Transformer(nn.Module):
    """Encoder with learned positions. `dropout` counts in train() alone; packages do not say what it was."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        width: int,
        layers: int,
        heads: int,
        feed_forward: int,
        logits: int,
        task: str,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.task = task
        self.embedding = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(max_length, width)
        self.layer = nn.ModuleList(Layer(width, heads, feed_forward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, NORM_EPS)
        if task == "masked_lm":
            self.transform = nn.Linear(width, width)
            self.transform_norm = nn.LayerNorm(width, NORM_EPS)
        self.head: nn.Module = Bias(vocab_size) if task == "masked_lm" else nn.Linear(width, logits)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        x = self.dropout(self.embedding(ids) + self.position.weight[: ids.shape[1]])
        states = [x]
        # A row without tokens attends to its padding, since a softmax over nothing is not finite.
        attended = (mask | ~mask.any(1, keepdim=True)).unsqueeze(1).unsqueeze(1)
        for layer in self.layer:
            x = layer(x, attended)
            states.append(x)
        x = states[-1] = self.norm(x)
        embedding = mean_of_tokens(x, mask)
        hidden = {f"hidden.{number}": state for number, state in enumerate(states)}
        return {"logits": self._judge(x, embedding), "embedding": embedding} | hidden

    def _judge(self, x: Tensor, embedding: Tensor) -> Tensor:
        if self.task == "masked_lm":
            normed = self.transform_norm(F.gelu(self.transform(x)))
            return F.linear(normed, self.embedding.weight, self.head.bias)  # type: ignore[arg-type]
        logits: Tensor = self.head(x if self.task == "token_classification" else embedding)
        return logits
