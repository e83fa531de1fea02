"""Makes a teacher package of a torch.nn.Module, and checks that the package answers as the module does."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polystill.errors import ExportError
from polystill.package import INDUCTOR, SCRIPT, SENTENCEPIECE, WORDPIECE, Signature, publish, write_manifest

FORMATS = ("torchscript", "aot_inductor")
METHODS = ("auto", "script", "trace")
TOLERANCE = 1e-4
# A run asks 32 rows at once, but a row alone must be right too.
MAX_ROWS = 65_536

_HINT = "a trace cannot follow control flow that depends on sizes; try --format aot_inductor"

Answer = dict[str, Tensor]
Model = Callable[[Tensor, Tensor], Answer]


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    signature: Signature,
    *,
    name: str | None = None,
    format: str = "torchscript",
    method: str = "auto",
    tokenizer: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    tolerance: float = TOLERANCE,
    threads: int = 1,
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes the package of a model; the folder `path` appears whole, and only when the package answers as the model.

    `module`: on the CPU; forward(ids int64 [rows, length], mask bool [rows, length]) gives logits (their shape by task:
    docs/formats.md), or a Dict[str, Tensor] of `logits` and features, `embedding` [rows, width] and `hidden.N` [rows,
    length, width]; with `signature.labels` empty, of features alone. Rows are padded with id 0 where the mask is
    false; no row may depend on another. `format`: torchscript, or aot_inductor (native code for this kind of CPU;
    compiling takes minutes). `method`, of torchscript: script follows the module's control flow, trace that of one
    example; auto: script where it compiles. `tokenizer`: file of a package with signature.input text, a SentencePiece
    model or a tokenizer.json. `tolerance`: largest difference, relative to the largest answer where that is above 1.
    `threads`: of the loops that aot_inductor compiles; a server computes a batch on one thread, so that 1 serves best
    where it has several.

    ExportError says what does not fit, and leaves nothing behind.
    """
    folder = Path(path).absolute()
    if mistake := signature.mistake():
        raise ExportError(f"signature.{mistake}")
    for key, value, known in (("format", format, FORMATS), ("method", method, METHODS)):
        if value not in known:
            raise ExportError(f"{key}: is {value!r}; write one of {', '.join(known)}")
    if (tokenizer is not None) != (signature.input == "text"):
        raise ExportError("signature.input: text goes with a tokenizer, ids without one")
    if any(parameter.device.type != "cpu" for parameter in module.parameters()):
        raise ExportError("the module is not on the CPU; give module.cpu()")

    def fill(temporary: Path) -> None:
        if tokenizer is not None:
            _copy_tokenizer(Path(tokenizer), temporary)
        with _quiet(), torch.no_grad(), _in_eval_mode(module):
            model = as_model(module)
            outputs = check_answer(model, signature)
            log(f"{format}: {', '.join(outputs)}")
            if format == "torchscript":
                file = temporary / SCRIPT
                _write_script(module, file, signature, method)
                back = as_model(torch.jit.load(str(file)))
            else:
                file = temporary / INDUCTOR
                _write_inductor(module, file, signature, outputs, threads)
                back = _load_inductor(file, outputs)
            log(check_package(model, back, signature, tolerance))
        said = name or folder.name
        if format == "torchscript":
            write_manifest(temporary, said, format, signature)
        else:  # what the file itself does not say
            parameters = sum(parameter.numel() for parameter in module.parameters())
            write_manifest(temporary, said, format, signature, outputs, parameters)

    publish(folder, overwrite, fill)
    return folder


def as_model(module: Any) -> Model:
    def ask(ids: Tensor, mask: Tensor) -> Answer:
        answer = module(ids, mask)
        if isinstance(answer, Tensor):
            return {"logits": answer}
        if not isinstance(answer, Mapping) or not all(isinstance(value, Tensor) for value in answer.values()):
            raise ExportError(f"forward(ids, mask) gives {type(answer).__name__}, not a Tensor or Dict[str, Tensor]")
        return dict(answer)

    return ask


def example(rows: int, length: int, vocab_size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random ids and mask of rows of different lengths, the first of them full; ids are 0 where the mask is false."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    lengths[0] = length
    mask = torch.arange(length) < lengths
    return torch.randint(0, vocab_size, (rows, length), generator=generator) * mask, mask


def check_answer(model: Model, signature: Signature) -> list[str]:
    """The names of what the model gives, logits first. ExportError unless shapes and numbers are as they should be."""
    for length in (signature.max_length, min(17, signature.max_length)):
        ids, mask = example(3, length, signature.vocab_size)
        answer = _ask("forward(ids, mask)", model, ids, mask)
    if signature.logits and "logits" not in answer:
        raise ExportError(f"forward gives {', '.join(answer)}, but no logits, though the signature has labels")
    if not signature.logits and "logits" in answer:
        raise ExportError("forward gives logits, but the signature has no labels; name them, or leave the logits out")
    for name, given in answer.items():
        _check_output(name, given, ids, signature)
    return sorted(answer, key=lambda name: name != "logits")


def _ask(who: str, model: Model, ids: Tensor, mask: Tensor) -> Answer:
    try:
        return model(ids, mask)
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        raise ExportError(f"{who} failed for ids {list(ids.shape)}: {error}") from error


def _check_output(name: str, given: Tensor, ids: Tensor, signature: Signature) -> None:
    is_hidden = name.startswith("hidden.") and name.removeprefix("hidden.").isdigit()
    if name not in ("logits", "embedding") and not is_hidden:
        raise ExportError(f"forward gives '{name}'; beside logits it may give embedding and hidden.0, hidden.1 ...")
    of_tokens = is_hidden or (name == "logits" and signature.judges_tokens)
    width = signature.logits if name == "logits" else (given.shape[-1] if given.dim() else 1)
    expected = [*(ids.shape if of_tokens else ids.shape[:1]), width]
    if list(given.shape) != expected or not given.is_floating_point():
        raise ExportError(
            f"forward gives {name} {list(given.shape)} of {given.dtype} for ids {list(ids.shape)}; "
            f"with task {signature.task} it must be floating {expected}"
        )
    if not torch.isfinite(given).all():
        raise ExportError(f"forward gives {name} that is not finite")


def check_package(model: Model, back: Model, signature: Signature, tolerance: float) -> str:
    """Compares on several numbers of rows and lengths, and rows with themselves alone; says how far they are apart."""
    longest = signature.max_length
    shapes = sorted({(r, min(n, longest)) for r, n in ((1, 1), (1, 16), (2, 16), (5, 33), (32, 24), (3, longest))})
    worst = 0.0
    for seed, (rows, length) in enumerate(shapes):
        ids, mask = example(rows, length, signature.vocab_size, seed + 1)
        ours, theirs = (_ask("forward", model, ids, mask), _ask(f"the package ({_HINT})", back, ids, mask))
        difference = _difference(ours, theirs, mask)
        _refuse_above(tolerance, difference, f"the package's answer to ids [{rows}, {length}] is not the model's")
        worst = max(worst, difference)
    _check_rows_alone(back, signature, tolerance)
    sizes = ", ".join(f"{rows} x {length}" for rows, length in shapes)
    return f"checked on {sizes} tokens: largest difference {worst:.1e} (tolerance {tolerance:.0e})"


def _check_rows_alone(back: Model, signature: Signature, tolerance: float) -> None:
    ids, mask = example(4, signature.max_length, signature.vocab_size)
    together = _ask("the package", back, ids, mask)
    for row in range(len(ids)):
        length = int(mask[row].sum())
        alone = back(ids[row : row + 1, :length], mask[row : row + 1, :length])
        of_tokens = {name: value.dim() == 3 for name, value in alone.items()}
        same = {
            name: value[row : row + 1, :length] if of_tokens[name] else value[row : row + 1]
            for name, value in together.items()
        }
        difference = _difference(same, alone, mask[row : row + 1, :length])
        _refuse_above(tolerance, difference, "a row's answer depends on the rows or the padding around it")


def _refuse_above(tolerance: float, difference: float, what: str) -> None:
    if not difference <= tolerance:
        raise ExportError(f"{what}: they differ by {difference:.1e}, more than the tolerance {tolerance:.0e}; " + _HINT)


def _difference(one: Answer, other: Answer, mask: Tensor) -> float:
    """Over all outputs, and of tokens over those that are there; relative to the largest number where it is above 1."""
    if one.keys() != other.keys():
        raise ExportError(f"the package gives {', '.join(other)}, the model {', '.join(one)}")
    worst = 0.0
    for name, ours in one.items():
        theirs = other[name]
        if ours.shape != theirs.shape:
            raise ExportError(f"the package gives {name} {list(theirs.shape)}, the model {list(ours.shape)}")
        if ours.dim() == 3:
            ours, theirs = ours[mask], theirs[mask]
        scale = max(1.0, float(ours.abs().max()))
        difference = float((ours - theirs).abs().max()) / scale
        worst = max(worst, difference if torch.isfinite(theirs).all() else float("inf"))
    return worst


def _copy_tokenizer(source: Path, folder: Path) -> None:
    try:
        with source.open("rb") as file:
            is_json = file.read(1) == b"{"
        shutil.copyfile(source, folder / (WORDPIECE if is_json else SENTENCEPIECE))
    except OSError as error:
        raise ExportError(f"tokenizer: {error}") from error


def _write_script(module: nn.Module, path: Path, signature: Signature, method: str) -> None:
    made: Any = None
    if method != "trace":
        try:
            made = torch.jit.script(module)
        except Exception as error:  # the compiler's errors have no common kind
            if method == "script":
                raise ExportError(f"torch.jit.script does not compile the module: {error}") from error
    if made is None:
        # With padding in it, so that what it does with a mask is seen.
        inputs = example(3, min(24, signature.max_length), signature.vocab_size)
        try:
            made = torch.jit.trace(module, inputs, strict=False, check_trace=False)
        except Exception as error:
            raise ExportError(f"torch.jit.trace does not take the module: {error}") from error
    made.save(str(path))


class _Listed(nn.Module):
    """A module whose answer is a tuple of tensors, in a given order."""

    def __init__(self, module: nn.Module, outputs: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.outputs = list(outputs)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        answer = as_model(self.module)(ids, mask)
        return tuple(answer[name] for name in self.outputs)


def _write_inductor(module: nn.Module, path: Path, signature: Signature, outputs: Sequence[str], threads: int) -> None:
    inputs = example(3, min(24, signature.max_length), signature.vocab_size)
    sizes = {0: torch.export.Dim("rows", min=1, max=MAX_ROWS)}
    if signature.max_length > 1:
        sizes[1] = torch.export.Dim("length", min=1, max=signature.max_length)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        program = torch.export.export(_Listed(module, outputs), inputs, dynamic_shapes=(sizes, sizes), strict=False)
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:  # as many kinds as there are passes
        raise ExportError(
            f"AOTInductor does not take the module (it needs g++, and shapes that are dynamic): {error}"
        ) from error
    finally:
        torch.set_num_threads(before)


def _load_inductor(path: Path, outputs: Sequence[str]) -> Model:
    loaded: Any = torch._inductor.aoti_load_package(str(path))

    def ask(ids: Tensor, mask: Tensor) -> Answer:
        return dict(zip(outputs, loaded(ids, mask), strict=True))

    return ask


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of torch.jit about its own age, and of tracing, which the check answers better."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
