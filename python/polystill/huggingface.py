"""HuggingFace's models as the modules that teacher packages hold."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polystill.errors import ExportError
from polystill.package import SENTENCEPIECE, WORDPIECE, Signature
from polystill.text import SentencePiece, Tokenizer, WordPiece

# How a config's architecture ends -> the task of its logits.
_HEADS = {
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "token_classification",
    "ForMaskedLM": "masked_lm",
}
TASKS = ("classification", "binary", "multi_label", "token_classification", "masked_lm", "features")
POOLINGS = ("mean", "cls")

# Where tokenisers differ: scripts, spaces, marks, case, what is no word, what is nothing at all.
SAMPLES = (
    "A plain sentence, with punctuation: it's 3.14 (or so)!",
    "  two  spaces\tand a tab\nand a line ",
    "Ünïcödé naïve façade ÀÉÎ ß ﬁ ① ½",
    "Ein Netzwerkserver für E-Mail; Straßenbahnhaltestelle",
    "画像を編集する。テキスト 東京都",
    "Привет, мир! العربية עברית हिन्दी ไทย 한국어",
    "emoji 👩‍👩‍👧 🙂 and \u200bzero\u00adwidth \ufeffmarks \ufffd",
    "[MASK] <mask> </s> [SEP] ##ing ▁under @user #tag http://a.b/c?d=e",
    "x" * 300,
    "antidisestablishmentarianism " * 40,
    "",
    "   ",
    "\u0301",
)


@dataclass(frozen=True)
class Options:
    """What a person says about the package; None: as the model says."""

    task: str | None = None
    labels: Sequence[str] | None = None
    features: Sequence[str] = ()
    pooling: str | None = None
    normalize: bool | None = None
    max_length: int | None = None
    # "text", "ids", or None: text where the tokeniser is one that a package can hold.
    input: str | None = None
    attention: str | None = None


@dataclass
class Loaded:
    """A model, ready for `polystill.export`."""

    module: nn.Module
    signature: Signature
    # Content of the package's tokeniser, and its name; None with input ids.
    tokenizer: tuple[str, bytes] | None
    notes: list[str] = field(default_factory=list)


class Encoder(nn.Module):
    """A HuggingFace model as forward(ids, mask) -> {"logits", "embedding", "hidden.N"}, of these those in `outputs`."""

    def __init__(
        self, model: nn.Module, pad_id: int, outputs: Sequence[str], pooling: str = "mean", normalize: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.pad_id = pad_id
        self.outputs = list(outputs)
        self.pooling = pooling
        self.normalize = normalize

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        ids = ids.masked_fill(~mask, self.pad_id)
        hidden = any(name != "logits" for name in self.outputs)
        answer = self.model(input_ids=ids, attention_mask=mask.to(torch.int64), output_hidden_states=hidden)
        given: dict[str, Tensor] = {}
        for name in self.outputs:
            if name == "logits":
                given[name] = answer.logits
            elif name == "embedding":
                given[name] = self._pool(answer.hidden_states[-1], mask)
            else:
                given[name] = answer.hidden_states[int(name.removeprefix("hidden."))]
        return given

    def _pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = mask.unsqueeze(2).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return F.normalize(pooled, dim=1) if self.normalize else pooled


def load(source: str, options: Options) -> Loaded:
    """Of a folder, or of a name at HuggingFace's hub, which `transformers` fetches. ExportError says what is wrong."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        task = options.task or _task_of(config)
        kind = {
            "token_classification": transformers.AutoModelForTokenClassification,
            "masked_lm": transformers.AutoModelForMaskedLM,
            "features": transformers.AutoModel,
        }.get(task, transformers.AutoModelForSequenceClassification)
        chosen = {"attn_implementation": options.attention} if options.attention else {}
        model, loading = kind.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **chosen)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ExportError(f"{source}: is no model that transformers loads: {error}") from error
    _check_complete(source, task, loading)
    recipe = _sentence_recipe(source)
    notes: list[str] = []
    pooling = options.pooling or recipe.get("pooling", "mean")
    normalize = recipe.get("normalize", False) if options.normalize is None else options.normalize
    outputs = _outputs(task, options.features, int(getattr(config, "num_hidden_layers", 0)))
    if "embedding" in outputs:
        notes.append(f"embedding: {pooling} of the last hidden states{', normalised' if normalize else ''}")
    max_length = options.max_length or _max_length(config, tokenizer, recipe)
    file = None if options.input == "ids" else _package_tokenizer(source, tokenizer, max_length, notes)
    if options.input == "text" and file is None:
        raise ExportError(f"{source}: --input text: {notes[-1]}")
    signature = Signature(
        vocab_size=int(config.vocab_size),
        max_length=max_length,
        labels=_labels(config, task, options.labels),
        task="classification" if task == "features" else task,
        input="text" if file else "ids",
        mask_id=tokenizer.mask_token_id if task == "masked_lm" else None,
    )
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return Loaded(Encoder(model, pad_id, outputs, pooling, normalize).eval(), signature, file, notes)


def _check_complete(source: str, task: str, loading: dict[str, Any]) -> None:
    """Weights that are not in the files were drawn at random. Nothing reads the pooler that BERT's kin have."""
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith("pooler."))
    missing += sorted(str(name) for name in loading.get("mismatched_keys") or [])
    if missing:
        shown = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise ExportError(f"{source}: has no weights for --task {task}: {shown}; take the task that it was trained for")


def _task_of(config: Any) -> str:
    for architecture in config.architectures or []:
        for ending, task in _HEADS.items():
            if architecture.endswith(ending):
                multi = task == "classification" and config.problem_type == "multi_label_classification"
                return "multi_label" if multi else task
    return "features"


def _outputs(task: str, features: Sequence[str], layers: int) -> list[str]:
    if task == "features" and not features:
        features = ["embedding"]
    known = ["embedding", *(f"hidden.{layer}" for layer in range(layers + 1))]
    for name in features:
        if name not in known:
            raise ExportError(f"--features {name}: the model has embedding and hidden.0 to hidden.{layers}")
    return ([] if task == "features" else ["logits"]) + list(dict.fromkeys(features))


def _labels(config: Any, task: str, given: Sequence[str] | None) -> list[str]:
    if task in ("features", "masked_lm"):
        if given:
            raise ExportError(f"--labels: goes with other tasks than {task}")
        return []
    count = 2 if task == "binary" else int(config.num_labels)
    if task == "binary" and int(config.num_labels) != 1:
        raise ExportError(f"--task binary: needs one logit, the model has {config.num_labels}; take classification")
    if given is not None:
        if len(given) != count:
            raise ExportError(f"--labels: {len(given)} given, the model has {count}")
        return list(given)
    if len(config.id2label) != count:
        raise ExportError(f"--labels: missing; the model does not name its {count} labels")
    return [str(config.id2label[number]) for number in range(count)]


def _max_length(config: Any, tokenizer: Any, recipe: dict[str, Any]) -> int:
    """Of the limits that model and tokeniser state, the least."""
    limits = [512]
    positions = getattr(config, "max_position_embeddings", None)
    if positions:
        # RoBERTa and its kin count positions from after the padding's id.
        shifted = config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "data2vec-text")
        limits = [int(positions) - (int(config.pad_token_id) + 1 if shifted else 0)]
    if tokenizer.model_max_length and tokenizer.model_max_length < 1 << 20:
        limits.append(int(tokenizer.model_max_length))
    if recipe.get("max_length"):
        limits.append(int(recipe["max_length"]))
    return min(limits)


def _file_of(source: str, name: str) -> Path | None:
    from transformers.utils.hub import cached_file

    options = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
        "_raise_exceptions_for_gated_repo": False,
    }
    path = cached_file(source, name, **options)
    return None if path is None else Path(path)


def _json_of(source: str, name: str) -> Any:
    path = _file_of(source, name)
    return None if path is None else json.loads(path.read_text("utf-8"))


def _sentence_recipe(source: str) -> dict[str, Any]:
    """What a folder of sentence-transformers says comes after the encoder: pooling, normalize, max_length."""
    modules = _json_of(source, "modules.json")
    if modules is None:
        return {}
    recipe: dict[str, Any] = {"normalize": False}
    for module in modules:
        kind = str(module["type"]).rsplit(".", 1)[-1]
        if kind == "Transformer":
            recipe["max_length"] = (_json_of(source, "sentence_bert_config.json") or {}).get("max_seq_length")
        elif kind == "Pooling":
            recipe["pooling"] = _pooling_of(source, _json_of(source, f"{module['path']}/config.json") or {})
        elif kind == "Normalize":
            recipe["normalize"] = True
        else:
            raise ExportError(f"{source}: modules.json: has a module {kind}; Transformer, Pooling, Normalize are known")
    return recipe


def _pooling_of(source: str, config: dict[str, Any]) -> str:
    modes = [key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on]
    named = {"mean_tokens": "mean", "cls_token": "cls"}
    mode = str(config.get("pooling_mode", "+".join(named.get(mode, mode) for mode in modes)))
    if mode not in POOLINGS:
        raise ExportError(f"{source}: its pooling is {mode!r}; say --pooling mean or cls if one of them is meant")
    return mode


def _package_tokenizer(source: str, tokenizer: Any, max_length: int, notes: list[str]) -> tuple[str, bytes] | None:
    """The file from which Polystill's programs make the very ids that `tokenizer` makes; None when there is none."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in _candidates(source, tokenizer):
            path = Path(folder, name)
            path.write_bytes(content)
            kind = SentencePiece if name == SENTENCEPIECE else WordPiece
            if _agree(tokenizer, Tokenizer(kind(path), max_length), max_length):
                return name, content
    notes.append(
        f"input: ids. No file that a package can hold (WordPiece as BERT has it, a SentencePiece model) makes the ids "
        f"of {type(tokenizer).__name__}: give the corpus an ids column with polystill-tokenize, and write tokenizer: "
        f"{{kind: ids, vocab_size: {len(tokenizer)}, max_length: {max_length}}}"
    )
    return None


def _candidates(source: str, tokenizer: Any) -> list[tuple[str, bytes]]:
    """Names and contents. The model's own file comes first: a run knows two tokenisers as one by their bytes."""
    found = []
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and _is_wordpiece(json.loads(backend.to_str())):
        own = _file_of(source, WORDPIECE)
        if own is not None and _is_wordpiece(json.loads(own.read_text("utf-8"))):
            found.append((WORDPIECE, own.read_bytes()))
        found.append((WORDPIECE, backend.to_str().encode()))
    vocabulary = getattr(tokenizer, "vocab_file", None)
    if vocabulary and str(vocabulary).endswith(".model") and Path(vocabulary).is_file():
        found.append((SENTENCEPIECE, Path(vocabulary).read_bytes()))
    return found


def _is_wordpiece(file: dict[str, Any]) -> bool:
    """What corpus/tokenizer_json.h reads."""
    kinds = {key: (file.get(key) or {}).get("type") for key in ("model", "normalizer", "pre_tokenizer")}
    after = (file.get("post_processor") or {}).get("type")
    return (
        kinds["model"] == "WordPiece"
        and kinds["normalizer"] in ("BertNormalizer", None)
        and kinds["pre_tokenizer"] == "BertPreTokenizer"
        and after in ("TemplateProcessing", "BertProcessing", None)
    )


def _agree(theirs: Any, ours: Tokenizer, max_length: int) -> bool:
    made = theirs(list(SAMPLES), truncation=True, max_length=max_length)["input_ids"]
    return all(ours.encode(sample) == list(ids) for sample, ids in zip(SAMPLES, made, strict=True) if len(ids))
