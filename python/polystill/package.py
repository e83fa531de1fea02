"""Model packages on the disk: teacher.yaml, digests, folders that appear whole or not at all (docs/formats.md)."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from polystill.errors import PackageError

FORMAT = "polystill.package/1"
MANIFEST = "teacher.yaml"
WEIGHTS = "model.safetensors"
SCRIPT = "model.pt"
INDUCTOR = "model.pt2"
SENTENCEPIECE = "tokenizer.model"
WORDPIECE = "tokenizer.json"
TASKS = ("classification", "binary", "multi_label", "token_classification", "masked_lm")
TOKEN_TASKS = ("token_classification", "masked_lm")


@dataclass(frozen=True)
class Signature:
    """What goes into a model and what comes out of it: `signature` of teacher.yaml."""

    # Number of token ids; every id is in [0, vocab_size).
    vocab_size: int
    # Tokens kept of an input.
    max_length: int
    # In the order of the logits; none with masked_lm, and none for a model that gives features alone.
    labels: Sequence[str] = ()
    task: str = "classification"
    # "text" (the package holds a tokeniser) or "ids".
    input: str = "ids"
    # With masked_lm: the id that stands for a hidden token.
    mask_id: int | None = None

    def mistake(self) -> str:
        """What is wrong: "KEY: what to write"; empty when nothing is."""
        if self.input not in ("text", "ids"):
            return f"input: is {self.input!r}; write text or ids"
        if self.task not in TASKS:
            return f"task: is {self.task!r}; write one of {', '.join(TASKS)}"
        for key, value in (("vocab_size", self.vocab_size), ("max_length", self.max_length)):
            if not isinstance(value, int) or value < 1:
                return f"{key}: is {value!r}, must be an integer of at least 1"
        if any(not isinstance(label, str) or not label for label in self.labels):
            return "labels: must be texts that are not empty"
        if len(set(self.labels)) < len(self.labels):
            return "labels: one stands twice"
        return self._mistake_of_task()

    def _mistake_of_task(self) -> str:
        count = len(self.labels)
        if self.task == "masked_lm":
            if count:
                return "labels: goes with other tasks than masked_lm"
            known = self.mask_id is not None and 0 <= self.mask_id < self.vocab_size
            return "" if known else "mask_id: must be the id that stands for a hidden token, below vocab_size"
        if self.task == "binary" and count != 2:
            return f"labels: has {count}, task: binary needs exactly 2"
        if self.task == "multi_label" and count < 1:
            return "labels: missing; list them in the order of the logits"
        if self.task == "token_classification" and count < 2:
            return f"labels: has {count}, task: token_classification needs 2 or more"
        return "labels: has 1, from which nothing can be chosen" if self.task == "classification" and count == 1 else ""

    @property
    def logits(self) -> int:
        """How many logits a row has; 0 of a model that gives features alone."""
        if self.task == "masked_lm":
            return self.vocab_size
        return 1 if self.task == "binary" else len(self.labels)

    @property
    def judges_tokens(self) -> bool:
        return self.task in TOKEN_TASKS

    def as_yaml(self) -> dict[str, Any]:
        given: dict[str, Any] = {
            "input": self.input,
            "vocab_size": self.vocab_size,
            "max_length": self.max_length,
            "labels": list(self.labels),
            "task": self.task,
        }
        if not self.labels:
            del given["labels"]
        return given | ({"mask_id": self.mask_id} if self.task == "masked_lm" else {})


@dataclass(frozen=True)
class Package:
    """A package's teacher.yaml, read and checked."""

    folder: Path
    name: str
    backend: str
    signature: Signature
    # The architecture of a native model.
    model: dict[str, Any] = field(default_factory=dict)
    # Of an aot_inductor model: names of the tensors that it answers with.
    outputs: tuple[str, ...] = ()
    # Of a model in Python: `module`, `function` and how its processes are run.
    python: dict[str, Any] = field(default_factory=dict)


def find_package(path: str | os.PathLike[str], model: str = "distilled") -> Path:
    """The package that is meant by `path`: a package itself, or a run's folder, of whose models `model` is taken."""
    folder = Path(path)
    if (folder / MANIFEST).is_file():
        return folder
    if (folder / "models" / model / MANIFEST).is_file():
        return folder / "models" / model
    names = sorted(found.parent.name for found in folder.glob(f"models/*/{MANIFEST}"))
    if not names:
        raise PackageError(
            f"{folder}: neither a model package (a folder with {MANIFEST}) nor the folder of a run that has trained one"
        )
    raise PackageError(f"{folder}: the run has no model '{model}'; it has {', '.join(names)}")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_package(folder: Path, check_files: bool = True) -> Package:
    """Reads teacher.yaml, and checks size and SHA-256 of the files that it lists. PackageError names file and key."""
    path = folder / MANIFEST
    try:
        manifest = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PackageError(f"{path}: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise PackageError(f"{path}: format: must be {FORMAT}")
    given = manifest.get("signature")
    if not isinstance(given, dict):
        raise PackageError(f"{path}: signature: missing")
    try:
        signature = Signature(**given)
    except TypeError as error:
        raise PackageError(f"{path}: signature: {error}") from error
    if mistake := signature.mistake():
        raise PackageError(f"{path}: signature.{mistake}")
    for listed in (manifest.get("files") or []) if check_files else []:
        _check_file(folder / str(listed.get("name")), listed)
    return Package(
        folder,
        str(manifest.get("name")),
        str(manifest.get("backend")),
        signature,
        manifest.get("model") or {},
        tuple(manifest.get("outputs") or ()),
        manifest.get("python") or {},
    )


def _check_file(path: Path, listed: dict[str, Any]) -> None:
    if not path.is_file():
        raise PackageError(f"{path}: there is no such file, but {MANIFEST} lists it")
    if listed.get("bytes") not in (None, path.stat().st_size):
        raise PackageError(f"{path}: has {path.stat().st_size} bytes, {MANIFEST} says {listed['bytes']}: it is torn")
    if sha256_of(path) != listed.get("sha256"):
        raise PackageError(f"{path}: its SHA-256 is not that of {MANIFEST}: it is torn")


def write_manifest(
    folder: Path,
    name: str,
    backend: str,
    signature: Signature,
    outputs: Sequence[str] = (),
    parameters: int | None = None,
) -> None:
    """teacher.yaml of a folder that holds all other files of the package."""
    manifest: dict[str, Any] = {"format": FORMAT, "name": name, "backend": backend, "signature": signature.as_yaml()}
    if parameters is not None:
        manifest["model"] = {"parameters": parameters}
    manifest["files"] = [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    ]
    if outputs:
        manifest["outputs"] = list(outputs)
    (folder / MANIFEST).write_text(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True), "utf-8")


def publish(folder: Path, overwrite: bool, fill: Callable[[Path], None]) -> None:
    """`folder`, filled by `fill` in a temporary place beside it: it appears whole or not at all. What `fill` raises
    leaves nothing behind. PackageError where something is there already, unless it is a package and `overwrite` is set.
    """
    if folder.exists() and not (overwrite and (folder / MANIFEST).is_file()):
        remedy = (
            "give --overwrite or another name" if (folder / MANIFEST).is_file() else "it is no package: move it away"
        )
        raise PackageError(f"{folder}: is there already; {remedy}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.tmp-{os.getpid()}"
    before = folder.parent / f".{folder.name}.old-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        fill(temporary)
        if folder.exists():
            folder.rename(before)
        try:
            temporary.rename(folder)
        except OSError:
            if before.exists():
                before.rename(folder)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)
