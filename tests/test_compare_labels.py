"""The comparison of students by their labels: what it computes, and a whole one by real processes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import polystill
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from polystill.student import Student, pad
from processes import BIN, REPO
from teacher_packages import MASK_ID, TEXTS, write_package

from recipes.package_topics.compare_labels import LABELS, evaluate, main, ratios
from recipes.package_topics.hidden_tokens import SHARE, head_inputs, head_of, hide_tokens, logits_of

TINY = ("corpus.path={corpus}", "student.model.width=16", "student.epochs=1", "evaluate.languages.0=de")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Student:
    return polystill.load_student(
        write_package(tmp_path_factory.mktemp("model") / "package", "transformer", "masked_lm")
    )


def test_tokens_are_hidden_where_the_seed_says(model: Student) -> None:
    tokens = hide_tokens(model, TEXTS, 12, 3)
    assert len(tokens) == 12
    assert tokens.rows == hide_tokens(model, TEXTS, 12, 3).rows
    assert tokens.rows != hide_tokens(model, TEXTS, 12, 4).rows
    assert model.tokenizer is not None
    texts = [model.tokenizer.encode(text) for text in TEXTS]
    gold = iter(tokens.gold.tolist())
    for row, places in zip(tokens.rows, tokens.places, strict=True):
        assert [place for place, token in enumerate(row) if token == MASK_ID] == places
        assert len(places) <= round(SHARE * len(row))
        found = [next(gold) if place in places else token for place, token in enumerate(row)]
        assert found in texts
    with pytest.raises(ValueError, match="fewer than 100000"):
        hide_tokens(model, TEXTS, 100_000, 3)


def test_logits_are_those_of_the_module(model: Student) -> None:
    tokens = hide_tokens(model, TEXTS, 12, 3)
    logits = torch.cat(list(logits_of(model, tokens)))
    assert not torch.is_inference_mode_enabled()
    weight, bias = head_of(model)
    torch.testing.assert_close(torch.cat(list(head_inputs(model, tokens))) @ weight.T + bias, logits)
    place = 0
    for row, places in zip(tokens.rows, tokens.places, strict=True):
        one = pad([row])
        with torch.inference_mode():
            expected = model(one.ids, one.mask)[0, places]
        torch.testing.assert_close(logits[place : place + len(places)], expected, rtol=1e-4, atol=1e-4)
        place += len(places)


def test_losses_are_pytorchs(model: Student) -> None:
    other = polystill.load_student(model.package.folder)
    with torch.no_grad():
        other.model.head.bias.copy_(torch.arange(len(other.model.head.bias)).sin())
    tokens = hide_tokens(model, TEXTS, 12, 3)
    t, s = (torch.cat(list(logits_of(one, tokens))).double() for one in (model, other))
    losses = evaluate(model, other, tokens)
    of = torch.nn.functional
    expected = of.kl_div(of.log_softmax(s, 1), of.log_softmax(t, 1), log_target=True, reduction="batchmean")
    assert losses.divergence == pytest.approx(expected.item())
    assert losses.cross_entropy == pytest.approx(of.cross_entropy(s, of.softmax(t, 1)).item())
    assert losses.gold == pytest.approx(of.cross_entropy(s, tokens.gold).item())
    assert evaluate(model, model, tokens).divergence == pytest.approx(0, abs=1e-12)


def test_ratios_are_taken_seed_by_seed() -> None:
    runs = [
        {"labels": label, "seed": seed, "divergence": loss * seed, "cross_entropy": 4 + loss}
        for label, loss in (("dense", 1.0), ("sampled", 1.1), ("top_k", 2.2))
        for seed in (7, 8)
    ]
    found = ratios(runs)
    assert found["loss_vs_dense"]["seeds"] == pytest.approx([1.1, 1.1])
    assert found["loss_vs_dense"]["mean"] == pytest.approx(1.1)
    assert found["loss_vs_topk"]["mean"] == pytest.approx(0.5)
    assert found["loss_vs_topk"]["cross_entropy"] == pytest.approx(5.1 / 6.2)


def test_a_comparison_from_the_run_files_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = REPO / "recipes" / "package_topics" / "sample"
    records = [json.loads(line) for path in sorted(sample.glob("*.jsonl")) for line in path.read_text().splitlines()]
    (tmp_path / "corpus").mkdir()
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "corpus" / "all.parquet")
    (tmp_path / "corpus" / "SOURCES.json").write_text("{}")  # as prepare leaves one
    tiny = [change.format(corpus=tmp_path / "corpus") for change in TINY]
    languages = [f"evaluate.languages.{place}={name}" for place, name in enumerate(("de", "es", "fr", "ja"))]
    teacher = ["--set", f"output={tmp_path / 'teacher'}", "--set", "tokenizer.vocab_size=800"]
    for change in (*tiny, *languages):
        teacher += ["--set", change]
    command = [str(BIN / "polystill"), "run", "recipes/package_topics/masked_lm.yaml", *teacher]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    options = ["--teacher", tmp_path / "teacher", "--runs", tmp_path / "runs", "--corpus", tmp_path / "corpus"]
    options += ["--seeds", "3", "--tokens", "100", "--train", "--set", *tiny]
    assert main([str(option) for option in options]) == 0
    assert "loss_vs_dense" in capsys.readouterr().out
    found = json.loads((tmp_path / "runs" / "compare.json").read_text())
    size = {run["labels"]: run["bytes"] for run in found["runs"]}
    assert set(size) == set(LABELS)
    assert size["dense"] == 2 * 800
    assert size["top_k"] == 15 * 10 // 8 + 1 + 2 * 15 + 4
    assert 20 < size["sampled"] < 64
    assert all(0 < run["divergence"] < 10 for run in found["runs"])


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--teacher", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
