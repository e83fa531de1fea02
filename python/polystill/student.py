"""A trained student in PyTorch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from polystill.errors import PackageError
from polystill.native_models import SubwordBag, Transformer
from polystill.package import SCRIPT, WEIGHTS, Package, Signature, find_package, read_package
from polystill.text import Tokenizer, load_tokenizer

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Tokens:
    """Token ids of some texts, padded with 0."""

    # [rows, length] int64 and bool, true where a token is.
    ids: Tensor
    mask: Tensor
    # For each text the places that are judged: of a word its first token, of a masked text each <mask>; none with the
    # other tasks.
    places: list[list[int]]


class Student(nn.Module):
    """A package's model and tokeniser.

        student = polystill.load_student("runs/package-topics")
        tokens = student.tokenize(["Ein Texteditor für die Konsole"])
        logits = student(tokens.ids, tokens.mask)         # [rows, labels], of tokens [rows, length, labels]

    In eval() mode without gradients the same logits as in Polystill's programs, up to rounding. Its parameters have the
    names of the package's tensors after `model.`, and may be trained further.
    """

    def __init__(self, package: Package, model: nn.Module, tokenizer: Tokenizer | None) -> None:
        super().__init__()
        self.package = package
        self.model = model
        self.tokenizer = tokenizer

    @property
    def signature(self) -> Signature:
        return self.package.signature

    @property
    def labels(self) -> list[str]:
        return list(self.signature.labels)

    @property
    def task(self) -> str:
        return self.signature.task

    def outputs(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Logits and the features that the model gives: `embedding` [rows, width], `hidden.N` [rows, length, width]."""
        if ids.shape != mask.shape or ids.dim() != 2:
            raise ValueError(f"ids {tuple(ids.shape)} and mask {tuple(mask.shape)} must both be [rows, length]")
        if ids.shape[1] > self.signature.max_length:
            raise ValueError(f"rows of {ids.shape[1]} tokens; the model takes {self.signature.max_length}")
        answer = self.model(ids, mask.bool())
        return answer if isinstance(answer, dict) else {"logits": answer}

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        outputs = self.outputs(ids, mask)
        if "logits" not in outputs:
            raise ValueError(f"{self.package.folder}: gives features alone ({', '.join(outputs)}); ask outputs()")
        return outputs["logits"]

    def tokenize(self, texts: Sequence[str] | Sequence[Sequence[str]]) -> Tokens:
        """Of texts; with task token_classification of lists of words, with masked_lm of texts with <mask>."""
        if isinstance(texts, str):
            raise TypeError("tokenize takes a list of texts, not one text: write [text]")
        rows, places = [], []
        for number, text in enumerate(texts):
            try:
                ids, judged = self._encode(text)
            except TypeError as error:
                raise TypeError(f"text {number}: {error}") from error
            rows.append(ids)
            places.append(judged)
        return pad(rows, places)

    def _encode(self, text: str | Sequence[str]) -> tuple[list[int], list[int]]:
        if self.tokenizer is None:
            raise PackageError(f"{self.package.folder}: reads token ids, not text; give ids and mask to the model")
        if self.task == "token_classification":
            if isinstance(text, str):
                raise TypeError("is one text; this model judges words: give a list of them")
            return self.tokenizer.encode_words(text)
        if not isinstance(text, str):
            raise TypeError(f"is {type(text).__name__}, not a text")
        if self.task == "masked_lm":
            assert self.signature.mask_id is not None
            return self.tokenizer.encode_masked(text, self.signature.mask_id)
        return self.tokenizer.encode(text), []

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of each label, as `polystill predict` gives them: softmax; with multi_label sigmoids, with binary of both."""
        if self.task == "multi_label":
            return torch.sigmoid(logits)
        if self.task == "binary":
            second = torch.sigmoid(logits)
            return torch.cat([1 - second, second], -1)
        return torch.softmax(logits, -1)


def pad(rows: Sequence[Sequence[int]], places: list[list[int]] | None = None) -> Tokens:
    """Rows of ids as a model takes them."""
    length = max([1, *map(len, rows)])
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[number, : len(row)] = True
    return Tokens(ids, mask, places or [[] for _ in rows])


def load_student(path: str | os.PathLike[str], model: str = "distilled") -> Student:
    """The model of a package folder, or of a run's folder (`model` says which of its models), in eval() mode.

    PackageError names the file and the key that do not fit.
    """
    package = read_package(find_package(path, model))
    if package.backend == "native":
        module = _load_native(package)
    elif package.backend == "torchscript":
        module = _load_script(package.folder / SCRIPT)
    else:
        raise PackageError(
            f"{package.folder}: backend {package.backend} has no module; load native or torchscript ones"
        )
    reads_text = package.signature.input == "text"
    tokenizer = load_tokenizer(package.folder, package.signature.max_length) if reads_text else None
    return Student(package, module, tokenizer).eval()


def _load_script(path: Path) -> nn.Module:
    try:
        module: nn.Module = torch.jit.load(str(path), "cpu")
    except (RuntimeError, ValueError) as error:
        raise PackageError(f"{path}: is not a whole TorchScript module: {error}") from error
    return module


def _load_native(package: Package) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = package.folder / WEIGHTS
    module = _native_module(package)
    try:
        weights = load_file(path)
        module.to(_DTYPES[package.model["dtype"]])
        module.load_state_dict(weights, strict=True)
    except (OSError, KeyError, SafetensorError, RuntimeError) as error:
        raise PackageError(f"{path}: does not fit teacher.yaml: {error}") from error
    return module


def _native_module(package: Package) -> nn.Module:
    model, signature = package.model, package.signature
    try:
        width = int(model["width"])
        if model["kind"] == "subword_bag":
            return SubwordBag(signature.vocab_size, width, int(model.get("hidden_layers", 0)), signature.logits)
        if model["kind"] == "transformer":
            return Transformer(
                signature.vocab_size,
                signature.max_length,
                width,
                int(model["layers"]),
                int(model["heads"]),
                int(model.get("feed_forward") or 4 * width),
                signature.logits,
                signature.task,
            )
    except KeyError as error:
        raise PackageError(f"{package.folder}/teacher.yaml: model.{error.args[0]}: missing") from error
    raise PackageError(f"{package.folder}/teacher.yaml: model.kind: is {model['kind']!r}; subword_bag or transformer")
