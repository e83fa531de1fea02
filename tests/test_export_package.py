"""polystill.export and polystill-export: packages that Polystill's programs serve, with the module's own answers."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polystill
import pytest
import torch
import yaml
from polystill import Signature, export_cli, tokenize_cli
from processes import BIN
from teacher_packages import serving
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

VOCABULARY, WIDTH, LABELS = 60, 16, ["net", "games", "science"]


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def command(*arguments: str | Path, program: str = "export") -> Done:
    """What a program does, in this process, since it takes seconds to start."""
    out, err = io.StringIO(), io.StringIO()
    main = {"export": export_cli.main, "tokenize": tokenize_cli.main}[program]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as exit_:  # argparse's way to end
            code = int(exit_.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def said(done: Done) -> str:
    return done.stdout + done.stderr


# ---- modules of PyTorch ----


class Judge(nn.Module):
    """Mean of embeddings, as a teacher has it; what it gives can be changed."""

    def __init__(self, logits: int = 3) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.head = nn.Linear(WIDTH, logits)

    def mean(self, ids: Tensor, mask: Tensor) -> Tensor:
        weights = mask.unsqueeze(2).to(torch.float32)
        return (self.embedding(ids) * weights).sum(1) / weights.sum(1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.mean(ids, mask))


class WithFeatures(Judge):
    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        mean = self.mean(ids, mask)
        return {"logits": self.head(mean), "embedding": mean, "hidden.0": self.embedding(ids)}


class Loop(Judge):
    """Goes over the tokens one by one: a trace has as many steps as its example had tokens."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        total = torch.zeros(ids.shape[0], 16)
        for place in range(ids.shape[1]):
            total = total + self.embedding(ids[:, place]) * mask[:, place].unsqueeze(1)
        return self.head(total)


class Untypable(Judge):
    """The same in words that the compiler of scripts cannot read."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head(sum(self.embedding(i) * m.unsqueeze(1) for i, m in zip(ids.T, mask.T, strict=True)))


class AcrossRows(Judge):
    """A row's answer depends on the other rows."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        mean = self.mean(ids, mask)
        return self.head(mean - mean.mean(0))


class SeesPadding(Judge):
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.embedding(ids).mean(1))


class NotFinite(Judge):
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.mean(ids, mask)) / 0.0


SIGNATURE = Signature(VOCABULARY, 40, LABELS)


def rows() -> list[list[int]]:
    generator = np.random.default_rng(1)
    return [generator.integers(0, VOCABULARY, length).tolist() for length in (1, 7, 16, 17, 40)]


def answer_of(module: nn.Module, ids: list[list[int]], longest: int = 40) -> list[dict[str, Tensor]]:
    """Of each row alone."""
    with torch.no_grad():
        answers = [module(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.bool)) for row in ids]
    return [answer if isinstance(answer, dict) else {"logits": answer} for answer in answers]


def check_served(package: Path, module: nn.Module, folder: Path, ids: list[list[int]] | None = None) -> None:
    """A real teacher server of the package gives the module's numbers, whatever comes together."""
    asked = ids or rows()
    expected = answer_of(module.eval(), asked)
    with serving(package, folder) as address, polystill.TeacherClient(address) as teacher:
        given = teacher.label(asked, outputs=list(expected[0]))
    for row, answer in enumerate(expected):
        for name, value in answer.items():
            np.testing.assert_allclose(given.of(row, name), value[0].numpy(), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("module", [Judge(), WithFeatures(), Loop()], ids=lambda m: type(m).__name__)
def test_a_module_is_served(module: nn.Module, tmp_path: Path) -> None:
    lines: list[str] = []
    package = polystill.export(module, tmp_path / "judge", SIGNATURE, log=lines.append)
    manifest = yaml.safe_load((package / "teacher.yaml").read_text())
    assert manifest["signature"] == {
        "input": "ids",
        "vocab_size": VOCABULARY,
        "max_length": 40,
        "labels": LABELS,
        "task": "classification",
    }
    content = (package / "model.pt").read_bytes()
    listed = {"name": "model.pt", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["files"] == [listed]
    assert "largest difference" in lines[-1] and "tolerance 1e-04" in lines[-1]
    assert module.training  # as it was
    check_served(package, module, tmp_path / "serve")


def test_a_compiled_module_is_served(tmp_path: Path) -> None:
    """What it gives has no names in the file."""
    module = WithFeatures()
    package = polystill.export(module, tmp_path / "judge", SIGNATURE, format="aot_inductor")
    manifest = yaml.safe_load((package / "teacher.yaml").read_text())
    assert manifest["outputs"] == ["logits", "embedding", "hidden.0"]
    assert manifest["model"] == {"parameters": VOCABULARY * WIDTH + 3 * WIDTH + 3}
    assert [file["name"] for file in manifest["files"]] == ["model.pt2"]
    check_served(package, module, tmp_path / "serve")


def test_a_binary_module(tmp_path: Path) -> None:
    module = Judge(1)
    package = polystill.export(module, tmp_path / "judge", Signature(VOCABULARY, 40, ["no", "yes"], "binary"))
    check_served(package, module, tmp_path / "serve")


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (Loop(), {"method": "trace"}, r"the package \(a trace cannot follow .* failed for ids \[1, 1\]"),
        (Untypable(), {}, r"the package \(a trace cannot follow .* failed for ids \[1, 1\]"),
        (Untypable(), {"method": "script"}, "torch.jit.script does not compile"),
        (AcrossRows(), {}, "depends on the rows or the padding around it"),
        (SeesPadding(), {}, "depends on the rows or the padding around it"),
        (NotFinite(), {}, "gives logits that is not finite"),
        (Judge(4), {}, r"gives logits \[3, 4\] .* must be floating \[3, 3\]"),
        (nn.Linear(2, 2), {}, r"forward\(ids, mask\) failed"),
        (Judge(), {"format": "onnx"}, "format: is 'onnx'; write one of torchscript, aot_inductor"),
        (Judge(), {"tokenizer": "tokenizer.model"}, "signature.input: text goes with a tokenizer"),
        (Judge(), {"tolerance": -1.0}, "more than the tolerance"),
    ],
)
def test_what_cannot_be_a_package_leaves_nothing(
    module: nn.Module, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(polystill.ExportError, match=message):
        polystill.export(module, tmp_path / "judge", SIGNATURE, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (Signature(VOCABULARY, 40, ["a"]), "signature.labels: has 1"),
        (Signature(VOCABULARY, 40, ["a", "a", "b"]), "signature.labels: one stands twice"),
        (Signature(VOCABULARY, 40, ["a", "b", "c"], "binary"), "needs exactly 2"),
        (Signature(VOCABULARY, 40, task="masked_lm"), "signature.mask_id"),
        (Signature(0, 40, LABELS), "signature.vocab_size: is 0"),
        (Signature(VOCABULARY, 40, LABELS, "regression"), "signature.task: is 'regression'"),
        (Signature(VOCABULARY, 40), "forward gives logits, but the signature has no labels"),
    ],
)
def test_signatures_that_do_not_fit(signature: Signature, message: str, tmp_path: Path) -> None:
    with pytest.raises(polystill.ExportError, match=message):
        polystill.export(Judge(), tmp_path / "judge", signature)


def test_overwriting(tmp_path: Path) -> None:
    package = polystill.export(Judge(), tmp_path / "judge", SIGNATURE)
    with pytest.raises(polystill.PackageError, match="is there already; give --overwrite"):
        polystill.export(WithFeatures(), package, SIGNATURE)
    polystill.export(Judge(), package, SIGNATURE, overwrite=True, name="second")
    assert yaml.safe_load((package / "teacher.yaml").read_text())["name"] == "second"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(polystill.PackageError, match="is no package: move it away"):
        polystill.export(Judge(), tmp_path / "other", SIGNATURE, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["judge", "other"]


# ---- models of HuggingFace, small and untrained ----


def word_pieces() -> list[str]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    return special + letters + [f"##{letter}" for letter in letters] + ["the", "##ing", "."]


def bert_tokenizer() -> PreTrainedTokenizerFast:
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    made = tokenizers.Tokenizer(models.WordPiece({w: i for i, w in enumerate(word_pieces())}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=48, **special)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Of a kind that no package can hold."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(models.BPE({w: i for i, w in enumerate(["<pad>", "<unk>", *alphabet])}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", model_max_length=40)


def bert_config(**more: Any) -> BertConfig:
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    return BertConfig(vocab_size=len(word_pieces()), max_position_embeddings=48, **(sizes | names | more))


def save(model: Any, folder: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    torch.manual_seed(5)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    (tokenizer or bert_tokenizer()).save_pretrained(folder)
    return folder


def ids_below(vocabulary: int, longest: int) -> list[list[int]]:
    generator = np.random.default_rng(2)
    return [generator.integers(0, vocabulary, length).tolist() for length in (1, 5, 16, 20, longest)]


class Expected(nn.Module):
    """The model as its own library calls it."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        answer = self.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
        states = answer.hidden_states
        known = {"embedding": states[-1].mean(1)} | {f"hidden.{i}": state for i, state in enumerate(states)}
        if "logits" in answer:
            known["logits"] = answer.logits
        return {name: known[name] for name in self.names}


@pytest.mark.parametrize(
    ("kind", "config", "task", "features"),
    [
        (BertForSequenceClassification, {}, "classification", "embedding,hidden.0,hidden.2"),
        (BertForSequenceClassification, {"problem_type": "multi_label_classification"}, "multi_label", ""),
        (BertForTokenClassification, {}, "token_classification", "hidden.1"),
        (BertForMaskedLM, {}, "masked_lm", ""),
    ],
)
def test_a_model_with_a_head_is_served(
    kind: Any, config: dict[str, Any], task: str, features: str, tmp_path: Path
) -> None:
    model = kind(bert_config(**config))
    source = save(model, tmp_path / "source")
    options = ["--features", features] if features else []
    done = command(source, "--out", tmp_path / "package", "--input", "ids", *options)
    assert done.returncode == 0, said(done)
    signature = yaml.safe_load((tmp_path / "package" / "teacher.yaml").read_text())["signature"]
    assert signature["task"] == task
    assert signature["max_length"] == 48
    if task == "masked_lm":
        assert signature["mask_id"] == 4 and "labels" not in signature
    else:
        assert signature["labels"] == LABELS
    names = ["logits", *filter(None, features.split(","))]
    asked = ids_below(len(word_pieces()), 48)
    check_served(tmp_path / "package", Expected(model, names), tmp_path / "serve", asked)


def test_one_logit_of_two_labels(tmp_path: Path) -> None:
    model = BertForSequenceClassification(bert_config(id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0}))
    source = save(model, tmp_path / "source")
    assert "signature.labels: has 1" in command(source, "--out", tmp_path / "package").stderr
    done = command(source, "--out", tmp_path / "package", "--task", "binary", "--labels", "bad,good")
    assert done.returncode == 0, said(done)
    student = polystill.load_student(tmp_path / "package")
    tokens = student.tokenize(["the king"])
    with torch.no_grad():
        given = student(tokens.ids, tokens.mask)
        torch.testing.assert_close(given, model.eval()(tokens.ids, tokens.mask.long()).logits)
    assert (student.task, student.labels) == ("binary", ["bad", "good"])


@pytest.mark.parametrize(("task", "head"), [("classification", "classifier"), ("masked_lm", "cls.predictions")])
def test_a_head_that_is_not_there_is_not_made_up(encoder: Path, task: str, head: str, tmp_path: Path) -> None:
    done = command(encoder, "--out", tmp_path / "package", "--task", task)
    assert done.returncode == 1
    assert f"has no weights for --task {task}: {head}" in done.stderr


def test_positions_that_follow_padding(tmp_path: Path) -> None:
    """RoBERTa counts positions from after the padding's id, which is not 0."""
    config = RobertaConfig(
        vocab_size=258,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=34,
        num_labels=3,
        pad_token_id=0,
    )
    model = RobertaForSequenceClassification(config)
    source = save(model, tmp_path / "source", byte_tokenizer())
    done = command(source, "--out", tmp_path / "package", "--labels", "a, b, c")
    assert done.returncode == 0, said(done)
    assert "input: ids. No file that a package can hold" in done.stdout
    assert "polystill-tokenize" in done.stdout
    signature = yaml.safe_load((tmp_path / "package" / "teacher.yaml").read_text())["signature"]
    assert (signature["max_length"], signature["input"], signature["labels"]) == (33, "ids", ["a", "b", "c"])
    asked = [[token or 1 for token in row] for row in ids_below(258, 33)]  # the padding's id is no text
    check_served(tmp_path / "package", Expected(model, ["logits"]), tmp_path / "serve", asked)


def test_a_word_piece_tokeniser_goes_into_the_package(tmp_path: Path) -> None:
    source = save(BertForSequenceClassification(bert_config()), tmp_path / "source")
    done = command(source, "--out", tmp_path / "package")
    assert done.returncode == 0, said(done)
    assert "input: text, by tokenizer.json" in done.stdout
    assert (tmp_path / "package" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    package = polystill.load_student(tmp_path / "package")
    texts = ["The king, singing.", "", "zebra " * 60]
    theirs = bert_tokenizer()(texts, truncation=True, max_length=48)["input_ids"]
    tokens = package.tokenize(texts)
    assert [row[mask].tolist() for row, mask in zip(tokens.ids, tokens.mask, strict=True)] == theirs
    with torch.no_grad():
        logits = package(tokens.ids, tokens.mask)
    with serving(tmp_path / "package", tmp_path / "serve") as address, polystill.TeacherClient(address) as teacher:
        np.testing.assert_allclose(teacher.label(texts)["logits"], logits.numpy(), atol=1e-5)


def predict(package: Path, *arguments: str | Path) -> str:
    words = [BIN / "polystill", "predict", "--student", package, *arguments]
    return subprocess.run(words, check=True, timeout=60, capture_output=True, text=True).stdout


def test_words_and_masks_of_a_word_piece_package(tmp_path: Path) -> None:
    """Where `polystill predict` judges them, so does the student in Python."""
    folders = {kind: tmp_path / kind.__name__ for kind in (BertForTokenClassification, BertForMaskedLM)}
    for kind, folder in folders.items():
        done = command(save(kind(bert_config()), tmp_path / f"of {kind.__name__}"), "--out", folder)
        assert done.returncode == 0, said(done)
    texts = [["the", "king", "", "sings."], ["zebra"] * 20, []]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"text": words}) + "\n" for words in texts))
    predict(folders[BertForTokenClassification], "--file", source, "--out", out)
    student = polystill.load_student(folders[BertForTokenClassification])
    tokens = student.tokenize(texts)
    with torch.no_grad():
        given = student.probabilities(student(tokens.ids, tokens.mask))
    for row, line in enumerate(out.read_text().splitlines()):
        theirs = [value for value in json.loads(line)["probabilities"] if value is not None]
        assert len(theirs) == len(tokens.places[row])
        np.testing.assert_allclose(given[row, tokens.places[row]].tolist(), theirs, atol=1e-5)
    student = polystill.load_student(folders[BertForMaskedLM])
    tokens = student.tokenize(["the <mask> and [MASK]."])
    with torch.no_grad():
        chances = student.probabilities(student(tokens.ids, tokens.mask))[0, tokens.places[0]].max(1).values
    lines = predict(folders[BertForMaskedLM], "--text", "the <mask> and [MASK].", "--top", "1").splitlines()
    assert len(lines) == len(chances) == 2
    for line, chance in zip(lines, chances, strict=True):
        assert f" {100 * float(chance):.1f}%" in line


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(BertModel(bert_config()), tmp_path_factory.mktemp("encoder") / "source")


def test_an_encoder_gives_features_alone(encoder: Path, tmp_path: Path) -> None:
    arguments = ["--features", "embedding,hidden.1", "--pooling", "cls", "--normalize", "--max-length", "20"]
    done = command(encoder, "--out", tmp_path / "package", *arguments)
    assert done.returncode == 0, said(done)
    assert "embedding: cls of the last hidden states, normalised" in done.stdout
    signature = yaml.safe_load((tmp_path / "package" / "teacher.yaml").read_text())["signature"]
    assert "labels" not in signature
    assert signature["max_length"] == 20
    student = polystill.load_student(tmp_path / "package")
    ids = torch.tensor([[2, 9, 11, 3]])
    with torch.no_grad():
        given = student.outputs(ids, ids > 0)
        theirs = BertModel.from_pretrained(encoder).eval()(ids, output_hidden_states=True)
    cls = theirs.last_hidden_state[:, 0]
    torch.testing.assert_close(given["embedding"], cls / cls.norm(dim=1, keepdim=True), atol=1e-5, rtol=0)
    torch.testing.assert_close(given["hidden.1"], theirs.hidden_states[1], atol=1e-5, rtol=0)


def as_sentence_model(encoder: Path, folder: Path, pooling: dict[str, bool], kinds: list[str]) -> Path:
    import shutil

    shutil.copytree(encoder, folder)
    modules = [{"path": f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24}))
    return folder


def test_a_sentence_model_says_how_it_is_pooled(encoder: Path, tmp_path: Path) -> None:
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "word_embedding_dimension": 16}
    source = as_sentence_model(encoder, tmp_path / "source", pooling, ["Transformer", "Pooling", "Normalize"])
    done = command(source, "--out", tmp_path / "package")
    assert done.returncode == 0, said(done)
    assert "embedding: cls of the last hidden states, normalised" in done.stdout
    assert yaml.safe_load((tmp_path / "package" / "teacher.yaml").read_text())["signature"]["max_length"] == 24


@pytest.mark.parametrize(
    ("pooling", "kinds", "message"),
    [
        ({"pooling_mode_max_tokens": True}, ["Transformer", "Pooling"], "its pooling is 'max_tokens'"),
        ({"pooling_mode_mean_tokens": True}, ["Transformer", "Pooling", "Dense"], "has a module Dense"),
    ],
)
def test_sentence_models_that_are_more(
    encoder: Path, pooling: dict[str, bool], kinds: list[str], message: str, tmp_path: Path
) -> None:
    done = command(as_sentence_model(encoder, tmp_path / "source", pooling, kinds), "--out", tmp_path / "package")
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "package").exists()


def test_a_package_stays_when_its_successor_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    polystill.package.publish(package, False, lambda folder: (folder / "teacher.yaml").write_text("old"))
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if target == package and ".tmp-" in self.name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space left"):
        polystill.package.publish(package, True, lambda folder: (folder / "teacher.yaml").write_text("new"))
    assert (package / "teacher.yaml").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--features", "hidden.7"], 1, "--features hidden.7: the model has embedding and hidden.0 to hidden.2"),
        (["--features", ","], 2, "is no list of names"),
        (["--labels", "a,b"], 1, "--labels: goes with other tasks than features"),
        (["--max-length", "0"], 1, "--max-length: must be at least 1"),
        (["--max-length", "100"], 1, "forward(ids, mask) failed for ids [3, 100]"),
        (["--tolerance", "-1"], 1, "more than the tolerance"),
        (["--format", "onnx"], 2, "invalid choice"),
        (["--no-such-flag"], 2, "unrecognized arguments"),
    ],
)
def test_wrong_usage(encoder: Path, arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    done = command(encoder, "--out", tmp_path / "package", *arguments)
    assert done.returncode == code, said(done)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model(tmp_path: Path) -> None:
    done = command(tmp_path, "--out", tmp_path / "package")
    assert done.returncode == 1
    assert f"polystill-export: {tmp_path}: is no model that transformers loads" in done.stderr
    assert list(tmp_path.iterdir()) == []
