"""A package's tokeniser: the ids that Polystill's own programs make of a text (corpus/tokenizer.h)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from polystill.errors import PackageError
from polystill.package import SENTENCEPIECE, WORDPIECE

MASK_PIECE = "<mask>"


class Subwords(Protocol):
    """What a file of either kind knows."""

    vocab_size: int
    unknown_id: int
    # Ids that stand before and after those of each text: [CLS] and [SEP] of BERT; none with SentencePiece.
    before: list[int]
    after: list[int]

    def pieces(self, text: str) -> list[int]:
        """Ids of a text without what stands around them; none for a text of no token."""


class SentencePiece:
    def __init__(self, path: Path) -> None:
        import sentencepiece

        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise PackageError(f"{path}: is no SentencePiece model: {error}") from error
        self.vocab_size: int = self._model.get_piece_size()
        self.unknown_id: int = self._model.unk_id()
        self.before: list[int] = []
        self.after: list[int] = []

    def pieces(self, text: str) -> list[int]:
        return list(self._model.encode(text))


class WordPiece:
    def __init__(self, path: Path) -> None:
        import tokenizers

        try:
            self._model: Any = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # of no nearer kind
            raise PackageError(f"{path}: is no tokenizer.json: {error}") from error
        self._model.no_truncation()
        self._model.no_padding()
        self.vocab_size: int = self._model.get_vocab_size()
        unknown = self._model.token_to_id(getattr(self._model.model, "unk_token", None) or "")
        if unknown is None:
            raise PackageError(f"{path}: its model is not WordPiece, or has no unknown token")
        self.unknown_id: int = unknown
        framed = self._model.encode("a")
        inner = framed.special_tokens_mask.index(0)
        self.before: list[int] = framed.ids[:inner]
        self.after: list[int] = framed.ids[inner + framed.special_tokens_mask.count(0) :]

    def pieces(self, text: str) -> list[int]:
        return list(self._model.encode(text, add_special_tokens=False).ids)


class Tokenizer:
    """At most `max_length` ids, cut at the end; before and after count and are never cut."""

    def __init__(self, subwords: Subwords, max_length: int) -> None:
        self._subwords = subwords
        self.vocab_size = subwords.vocab_size
        self.max_length = max_length

    @property
    def _room(self) -> int:
        return self.max_length - len(self._subwords.before) - len(self._subwords.after)

    def _framed(self, pieces: list[int]) -> list[int]:
        ids = [*self._subwords.before, *pieces[: self._room], *self._subwords.after]
        return ids or [self._subwords.unknown_id]

    def encode(self, text: str) -> list[int]:
        """Ids of a text; never none."""
        return self._framed(self._subwords.pieces(text))

    def encode_words(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """Ids of words that are tokenised one by one, and the place of each word's first id; words that max_length
        leaves no room for have none."""
        pieces: list[int] = []
        firsts: list[int] = []
        for word in words:
            if len(pieces) >= self._room:
                break
            firsts.append(len(self._subwords.before) + len(pieces))
            pieces += self._subwords.pieces(word) or [self._subwords.unknown_id]
        return self._framed(pieces), firsts

    def encode_masked(self, text: str, mask_id: int) -> tuple[list[int], list[int]]:
        """Ids of a text with hidden tokens, written <mask>, and their places."""
        pieces: list[int] = []
        for number, part in enumerate(text.split(MASK_PIECE)):
            pieces += [mask_id] * bool(number) + self._subwords.pieces(part)
        ids = self._framed(pieces)
        first = len(self._subwords.before)
        inner = range(first, min(first + len(pieces), first + self._room))
        return ids, [place for place in inner if ids[place] == mask_id]


def load_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    if (folder / SENTENCEPIECE).is_file():
        return Tokenizer(SentencePiece(folder / SENTENCEPIECE), max_length)
    if (folder / WORDPIECE).is_file():
        return Tokenizer(WordPiece(folder / WORDPIECE), max_length)
    raise PackageError(
        f"{folder}: has neither {SENTENCEPIECE} nor {WORDPIECE}, but signature.input says text; make the package again"
    )
