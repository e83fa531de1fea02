"""A tokenizer.json gives the ids that HuggingFace `tokenizers` gives (tests/references/wordpiece.py compares more)."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from references.wordpiece import ENCODE_TEXTS, SPECIAL, differences, framed, mini_lm, of_characters, ours
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

LINES = (Path(__file__).parent / "wordpiece_lines.txt").read_text().splitlines()
# What an editor would not keep in a file.
CONTROLS = [
    "",
    " ",
    "\n",
    "\t a\r\nb",
    "a\x00b\x01c\x7fd\x85e\x9ff\u200bg\ufffdh",
    "\ue000x\U000f0000y",
    "\x0b\x0c\x1c\x1f",
]
TEXTS = [*LINES, *CONTROLS]
MANY = sorted(set(range(0x20, 0x3000)) | set(range(0xA640, 0xAC00)) | set(range(0xF900, 0xFFFE)))

NORMALIZERS = [
    {"lowercase": True},
    {"lowercase": False},  # cased
    {"lowercase": True, "strip_accents": False},
    {"lowercase": False, "strip_accents": True},
    {"clean_text": False, "handle_chinese_chars": False, "lowercase": True, "strip_accents": True},
]


def trained(normalizer: dict[str, bool]) -> Tokenizer:
    """A small vocabulary, as `tokenizers` trains one."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(LINES * 3, trainer)
    return framed(tokenizer)


def random_texts(count: int) -> list[str]:
    """Of characters from everywhere, half of them from the blocks in use, with special tokens here and there."""
    rng = random.Random(5)
    texts = []
    for _ in range(count):
        blocks = [rng.randrange(0x110000 >> 8) << 8, rng.randrange(0x31) << 8, 0]
        characters = [chr(rng.choice(blocks) + rng.randrange(256)) for _ in range(rng.randrange(60))]
        text = "".join(rng.choice([" ", "[MASK]", "e\u0301", c, c, c, c, c]) for c in characters)
        texts.append("".join(c for c in text if not 0xD800 <= ord(c) < 0xE000))
    return texts


def saved(tokenizer: Tokenizer, folder: Path) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def test_all_mini_lm() -> None:
    texts = TEXTS + random_texts(3000)
    for max_length in (256, 7, 3):
        assert not list(differences(mini_lm(), Tokenizer.from_file(str(mini_lm())), texts, max_length))


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_other_settings(normalizer: dict[str, bool], tmp_path: Path) -> None:
    tokenizer = trained(normalizer)
    ids = ours(saved(tokenizer, tmp_path), LINES[:3], 256)
    assert max(map(len, ids)) > 30  # the vocabulary is of use
    assert not list(differences(saved(tokenizer, tmp_path), tokenizer, TEXTS + random_texts(2000)))


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_each_character(normalizer: dict[str, bool], tmp_path: Path) -> None:
    characters = [chr(c) for c in MANY]
    tokenizer = of_characters(characters, **normalizer)
    texts = [text for c in characters for text in (c, f"a{c}b", f"a\u0301{c}\u0323")]
    assert not list(differences(saved(tokenizer, tmp_path), tokenizer, texts))


def test_prefix_unknown_and_longest_word(tmp_path: Path) -> None:
    vocabulary = {"<unk>": 0, "ab": 1, "@c": 2, "a": 3, "@b": 4, "@@c": 5}
    model = models.WordPiece(vocabulary, unk_token="<unk>", continuing_subword_prefix="@", max_input_chars_per_word=4)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    assert not list(differences(saved(tokenizer, tmp_path), tokenizer, ["abc ab abb abcbc acb c \u00e9 bcab", "abcb"]))


def test_added_tokens(tmp_path: Path) -> None:
    tokenizer = trained({"lowercase": True})
    tokenizer.add_tokens([AddedToken("Netzwerk"), AddedToken("ser", single_word=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<x>", lstrip=True, rstrip=True), AddedToken("<x>y", normalized=False)])
    tokenizer.add_special_tokens([AddedToken("\u00c9", special=True, single_word=True, lstrip=True)])
    texts = [
        "Ein NETZWERK ser server _ser ser. serser",
        "a \t<x> \n b<x><x>c<x>y<X>",
        "x \u00c9\u00c9 \u00c9 e\u0301 E\u0301_",
    ]
    assert not list(differences(saved(tokenizer, tmp_path), tokenizer, texts + random_texts(200)))


def test_templates(tmp_path: Path) -> None:
    tokenizer = trained({"lowercase": True})
    for single in ("[CLS] $A [SEP]", "$A", "[CLS] [MASK] $A", "$A [SEP] [SEP]"):
        special = [(token, tokenizer.token_to_id(token)) for token in SPECIAL]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
        assert not list(differences(saved(tokenizer, tmp_path), tokenizer, LINES, max_length=9))


def test_words_are_those_of_a_text_that_is_split(tmp_path: Path) -> None:
    tokenizer = trained({"lowercase": True})
    file = saved(tokenizer, tmp_path)
    for line in LINES:
        words = line.split()
        encoding = tokenizer.encode(words, is_pretokenized=True)
        got = ours(file, [words], 100_000)[0]
        if None in (places := [encoding.word_to_tokens(i) for i in range(len(words))]):
            continue  # a word of no token, which has an unknown one here
        assert got == {"ids": encoding.ids, "firsts": [place[0] for place in places if place]}


def test_another_model_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for model in (models.BPE(unk_token="?"), models.Unigram([("?", 0.0)], 0)):
        file = saved(Tokenizer(model), tmp_path)
        done = subprocess.run(
            [str(ENCODE_TEXTS), str(file), "9"], input="", capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "UNIMPLEMENTED" in done.stderr
        assert json.loads(file.read_text())["model"]["type"] in done.stderr
        assert "polystill-tokenize" in done.stderr
