"""polystill.load_student against Polystill's programs: the same logits, features and probabilities."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polystill
import pytest
import torch
import yaml
from polystill.student import pad
from processes import BIN
from teacher_packages import LABELS, MAX_LENGTH, TEXTS, VOCABULARY, serving, write_package
from torch import Tensor

CASES = [("subword_bag", task) for task in ("classification", "binary", "multi_label")]
CASES += [("transformer", task) for task in LABELS]


def rows() -> list[list[int]]:
    """Lengths below, at and above a power of two, and the longest."""
    generator = np.random.default_rng(5)
    return [generator.integers(0, VOCABULARY, length).tolist() for length in (1, 3, 16, 17, 32, MAX_LENGTH, 2)]


@dataclass
class Case:
    kind: str
    task: str
    package: Path

    def student(self) -> polystill.Student:
        return polystill.load_student(self.package)

    @property
    def of_tokens(self) -> bool:
        return self.task in ("token_classification", "masked_lm")


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    kind, task = request.param
    return Case(kind, task, write_package(tmp_path_factory.mktemp("package") / f"{kind}-{task}", kind, task))


def flat(output: Tensor, mask: Tensor) -> np.ndarray[Any, Any]:
    """Rows of records, or of their tokens, as a server gives them."""
    return (output[mask] if output.dim() == 3 else output).numpy()


def test_the_same_numbers_as_a_teacher_server(case: Case, tmp_path: Path) -> None:
    with serving(case.package, tmp_path) as address, polystill.TeacherClient(address) as teacher:
        outputs = ["logits", *teacher.describe().features]
        answer = teacher.label(rows(), outputs=outputs)
    tokens = pad(rows())
    with torch.no_grad():
        ours = case.student().outputs(tokens.ids, tokens.mask)
    assert set(ours) == set(answer)
    assert "embedding" in ours
    assert ("hidden.2" in ours) == (case.kind == "transformer")
    for name, value in ours.items():
        np.testing.assert_allclose(flat(value, tokens.mask), answer[name], atol=1e-5, rtol=1e-5, err_msg=name)
    assert np.abs(answer["logits"]).max() > 0.1  # there was something to compare


def questions(task: str) -> list[Any]:
    return [text.split() for text in TEXTS] if task == "token_classification" else list(TEXTS)


def test_texts_give_what_predict_gives(case: Case, tmp_path: Path) -> None:
    if case.task == "masked_lm":
        return check_masks(case)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in questions(case.task)))
    command = [BIN / "polystill", "predict", "--student", case.package, "--file", source, "--out", out]
    subprocess.run(command, check=True, timeout=60)
    expected = [json.loads(line)["probabilities"] for line in out.read_text().splitlines()]
    student = case.student()
    tokens = student.tokenize(questions(case.task))
    with torch.no_grad():
        given = student.probabilities(student(tokens.ids, tokens.mask))
    for row, theirs in enumerate(expected):
        if case.task == "token_classification":
            words = [value for value in theirs if value is not None]
            assert len(words) == len(tokens.places[row])
            np.testing.assert_allclose(given[row, tokens.places[row]].numpy().tolist(), words, atol=1e-5)
        else:
            np.testing.assert_allclose(given[row].numpy(), theirs, atol=1e-5)


def check_masks(case: Case) -> None:
    text = "Ein <mask> für <mask>"
    command = [BIN / "polystill", "predict", "--student", case.package, "--text", text, "--top", "1"]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    student = case.student()
    tokens = student.tokenize([text])
    assert len(tokens.places[0]) == 2
    with torch.no_grad():
        given = student.probabilities(student(tokens.ids, tokens.mask))[0, tokens.places[0]]
    for said, row in zip(done.stdout.splitlines(), given, strict=True):
        assert f" {100 * float(row.max()):.1f}%" in said


def test_a_torchscript_package(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "script"
    folder.mkdir()
    command = [BIN / "polystill", "export", "--student", case.package, "--out", folder / "model.pt"]
    subprocess.run(command, check=True, timeout=60)
    shutil.copy(case.package / "tokenizer.model", folder)
    manifest = yaml.safe_load((case.package / "teacher.yaml").read_text())
    del manifest["model"]
    (folder / "teacher.yaml").write_text(yaml.safe_dump(manifest | {"backend": "torchscript"}))
    tokens = pad(rows())
    native, script = case.student(), polystill.load_student(folder)
    with torch.no_grad():
        ours, theirs = native(tokens.ids, tokens.mask), script(tokens.ids, tokens.mask)
    np.testing.assert_allclose(flat(ours, tokens.mask), flat(theirs, tokens.mask), atol=1e-5, rtol=1e-5)
    assert torch.equal(native.tokenize(questions(case.task)).ids, script.tokenize(questions(case.task)).ids)


def test_float64(tmp_path: Path) -> None:
    student = polystill.load_student(write_package(tmp_path / "package", "transformer", "classification", "float64"))
    tokens = pad(rows())
    assert student(tokens.ids, tokens.mask).dtype == torch.float64


def test_a_student_can_be_trained_further(case: Case) -> None:
    student = case.student()
    tokens = pad(rows())
    student(tokens.ids, tokens.mask).square().mean().backward()
    unused = [name for name, value in student.named_parameters() if value.grad is None]
    assert unused == []


def test_a_runs_folder(sample_run: Path) -> None:
    student = polystill.load_student(sample_run)
    assert student.package.folder == sample_run / "models" / "distilled"
    assert polystill.load_student(sample_run, "gold").package.folder == sample_run / "models" / "gold"
    with pytest.raises(polystill.PackageError, match="it has distilled, gold, gold_all"):
        polystill.load_student(sample_run, "dstilled")


def changed(package: Path, to: Path, change: Any) -> Path:
    shutil.copytree(package, to)
    manifest = yaml.safe_load((to / "teacher.yaml").read_text())
    change(manifest)
    (to / "teacher.yaml").write_text(yaml.safe_dump(manifest))
    return to


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["signature"].update(vocab_size=301), "model.safetensors: does not fit teacher.yaml"),
        (lambda m: m["signature"].update(labels=["a", "a"]), "signature.labels: one stands twice"),
        (lambda m: m["signature"].update(lables=[]), "signature: .*lables"),
        (lambda m: m["model"].pop("heads"), "model.heads: missing"),
        (lambda m: m["model"].update(kind="mamba"), "model.kind: is 'mamba'"),
        (lambda m: m.update(format="polystill.package/9"), "format: must be polystill.package/1"),
        (lambda m: m.update(backend="aot_inductor"), "backend aot_inductor has no module"),
        (lambda m: m.update(files=[{"name": "model.safetensors", "sha256": "0" * 64}]), "it is torn"),
        (lambda m: m.update(files=[{"name": "gone", "sha256": "0" * 64}]), "gone: there is no such file"),
    ],
)
def test_packages_that_do_not_fit(tmp_path: Path, change: Any, message: str) -> None:
    package = write_package(tmp_path / "package", "transformer", "classification")
    with pytest.raises(polystill.PackageError, match=message):
        polystill.load_student(changed(package, tmp_path / "changed", change))


def test_what_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(polystill.PackageError, match="neither a model package"):
        polystill.load_student(tmp_path)


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    student = polystill.load_student(write_package(tmp_path / "package", "transformer", "token_classification"))
    with pytest.raises(TypeError, match="text 0: is one text; this model judges words"):
        student.tokenize(["one text"])
    with pytest.raises(ValueError, match=f"rows of {MAX_LENGTH + 1} tokens"):
        tokens = pad([[1] * (MAX_LENGTH + 1)])
        student(tokens.ids, tokens.mask)
