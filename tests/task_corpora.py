"""Small corpora of made-up languages from which each task can be learned: A, which the teacher knows, B and C.

A word of language A is a stem of its own, and another in B and in C; names are shared, with an ending of each language,
and are made of syllables of their own, by which who knows them in one language knows them in all. Records of pool A are
labelled for the teacher; those of pool B are for the student.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LABELS = {
    "binary": ["calm", "loud"],
    "multi_label": ["red", "green", "blue"],
    "token_classification": ["O", "PER", "LOC"],
}
LANGUAGES = ("a", "b", "c")
SYLLABLES = ("ka", "lo", "mi", "tu", "re", "so", "na", "pi", "ve", "du")
SIZES = {("a", "train", "A"): 160, ("b", "train", "B"): 120, ("c", "train", "B"): 120} | {
    (language, split, "B"): 60 for language in ("b", "c") for split in ("dev", "test")
}

Row = dict[str, Any]


def stems(count: int, seed: str, syllables: tuple[str, ...] = SYLLABLES) -> list[str]:
    generator = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(generator.choices(syllables, k=3))] = None
    return list(found)


# Language -> words, a third of which speaks for each topic.
WORDS = {language: stems(30, f"words of {language}") for language in LANGUAGES}
NAME_SYLLABLES = {"PER": ("ga", "fo", "zu"), "LOC": ("chy", "wex", "bly")}
NAMES = {label: stems(12, f"names {label}", syllables) for label, syllables in NAME_SYLLABLES.items()}
ENDINGS = {"a": "", "b": "le", "c": "ne"}


def words_of(topics: list[int], language: str, numbers: list[int]) -> str:
    return " ".join(WORDS[language][topic * 10 + number] for topic, number in zip(topics, numbers, strict=True))


def text_row(task: str, language: str, generator: random.Random) -> Row:
    """Ten words on topics 0 (which says nothing), 1 and 2; the same in language A beside it."""
    topics = generator.choices((0, 1, 2), weights=(4, generator.random() * 6, generator.random() * 6), k=10)
    numbers = [generator.randrange(10) for _ in topics]
    row = {"text": words_of(topics, language, numbers), "source_text": words_of(topics, "a", numbers)}
    if task == "binary":
        return row | {"label": "loud" if topics.count(2) > topics.count(1) else "calm"}
    holds = [topics.count(1) >= 4, topics.count(2) >= 4, topics.count(0) >= 5]
    return row | {"label": [name for name, there in zip(LABELS[task], holds, strict=True) if there]}


def words_row(language: str, generator: random.Random) -> Row:
    """Eight words, of which some are names; the label of one in ten is not known."""
    words, labels = [], []
    for _ in range(8):
        label = generator.choices(("O", "PER", "LOC"), weights=(4, 1, 1))[0]
        pool = WORDS[language] if label == "O" else NAMES[label]
        words.append(generator.choice(pool) + (ENDINGS[language] if label != "O" else ""))
        labels.append(None if generator.random() < 0.1 else label)
    return {"text": words, "label": labels}


def rows(task: str) -> Iterator[Row]:
    generator = random.Random(task)
    for (language, split, pool), size in SIZES.items():
        for number in range(size):
            row = (
                words_row(language, generator)
                if task == "token_classification"
                else text_row(task, language, generator)
            )
            yield {
                "id": f"{language}-{split}-{number}",
                "language": language,
                "split": split,
                "pool": pool,
            } | row


def write(task: str, folder: Path) -> list[Row]:
    """One JSON-lines file a language."""
    folder.mkdir(parents=True)
    every = list(rows(task))
    for language in LANGUAGES:
        lines = [json.dumps(row) for row in every if row["language"] == language]
        (folder / f"{language}.jsonl").write_text("\n".join(lines) + "\n")
    return every


def run_file(task: str, corpus: Path, output: Path) -> dict[str, Any]:
    tokens = task == "token_classification"
    model = (
        {"kind": "transformer", "width": 32, "layers": 1, "heads": 2, "dropout": 0.0}
        if tokens
        else {"kind": "subword_bag", "width": 32}
    )
    optimizer = {"lr": 5e-3 if tokens else 2e-2}
    loss = "soft_label" if tokens else "binary"
    return {
        "version": 1,
        "name": task.replace("_", "-"),
        "task": task,
        "seed": 3,
        "corpus": {"path": str(corpus), "labels": LABELS[task]},
        "tokenizer": {"vocab_size": 330, "max_length": 64},
        "teachers": [
            {
                "name": "teacher",
                "train": {
                    "model": model,
                    "where": {"language": "a", "pool": "A"},
                    "epochs": 30,
                    "batch_size": 16,
                    "optimizer": optimizer,
                },
                "reads": "text" if tokens else "source_text",
            }
        ],
        "student": {
            "model": model,
            "where": {"pool": "B"},
            "languages": {"targets": ["b", "c"]},
            "losses": [{"kind": loss, "temperature": 2.0}],
            "optimizer": optimizer,
            "batch_size": 16,
            "epochs": 20,
            "workers": 2,
            "micro_batch": 3,
        },
        "baselines": ["zero_shot", "no_teacher", "pseudo_label", "gold", "gold_all"],
        "evaluate": {"metrics": ["accuracy", "macro_f1"]},
        "output": str(output),
    }
