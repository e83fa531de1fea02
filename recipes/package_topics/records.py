"""From packages and descriptions to the records of one language."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from recipes.package_topics import SOURCE_LANGUAGE
from recipes.package_topics.descriptions import Key, Package

TRANSITIONAL = re.compile(r"\b(transitional|dummy)(\W+\w+)?\W+(meta-?)?package\b", re.IGNORECASE)
LONG_PARAGRAPH = 40  # characters; shorter ones (names, lists) are often rightly the same in two languages


@dataclass(frozen=True)
class Record:
    id: str  # package:language
    language: str
    text: str
    source_text: str  # the same description in English
    label: str
    split: str  # train, dev or test
    group: str  # records of one group are never on two sides of a split
    pool: str | None  # train only: A is for the teacher, B for the transfer


@dataclass(frozen=True)
class Entry:
    """A package that has a label, with its English description."""

    package: Package
    label: str
    description: str


def fold(description: str) -> str:
    """Short and long description as one line, Unicode NFC."""
    lines = ("" if line.strip() == "." else line for line in description.split("\n"))
    return unicodedata.normalize("NFC", " ".join(" ".join(lines).split()))


def group_of(source: str) -> str:
    """The source's name without digits: gcc-11 and gcc-12 belong together."""
    return re.sub(r"\d+", "", source) or source


def _fraction(purpose: str, group: str) -> float:
    """A number in [0, 1) that depends on the group alone; another one for each purpose."""
    digest = hashlib.sha256(f"{purpose}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(group: str) -> str:
    fraction = _fraction("split", group)
    return "train" if fraction < 0.7 else "dev" if fraction < 0.8 else "test"


def pool_of(group: str) -> str | None:
    if split_of(group) != "train":
        return None
    return "A" if _fraction("pool", group) < 0.5 else "B"


def is_transitional(description: str) -> bool:
    return TRANSITIONAL.search(" ".join(description.split())[:200]) is not None


def _paragraphs(description: str) -> list[str]:
    short, _, long = description.partition("\n")
    return [fold(paragraph) for paragraph in (short, *long.split("\n.\n"))]


def is_mostly_english(translation: str, english: str) -> bool:
    """True when over half of the translation's long paragraphs are the English ones, or all of it is."""
    known = set(_paragraphs(english))
    paragraphs = [paragraph for paragraph in _paragraphs(translation) if len(paragraph) >= LONG_PARAGRAPH]
    same = sum(paragraph in known for paragraph in paragraphs)
    return 2 * same > len(paragraphs) or fold(translation) == fold(english)


def select_entries(
    packages: Iterable[Package], english: Mapping[Key, str], label_of: Callable[[Package], str | None]
) -> list[Entry]:
    """Packages with a label, less transitional ones and all but the first of those with the same description."""
    seen: set[str] = set()
    entries = []
    for package in packages:
        label = label_of(package)
        description = english.get(package.key)
        if label is None or description is None or is_transitional(description):
            continue
        if (text := fold(description)) not in seen:
            seen.add(text)
            entries.append(Entry(package, label, description))
    return entries


def _record(entry: Entry, language: str, text: str) -> Record:
    group = group_of(entry.package.source)
    return Record(
        id=f"{entry.package.name}:{language}",
        language=language,
        text=text,
        source_text=fold(entry.description),
        label=entry.label,
        split=split_of(group),
        group=group,
        pool=pool_of(group),
    )


def english_records(entries: Iterable[Entry]) -> Iterator[Record]:
    """Pool A, dev and test. Pool B is in English only as the source text of other languages' records."""
    for entry in entries:
        record = _record(entry, SOURCE_LANGUAGE, fold(entry.description))
        if record.pool != "B":
            yield record


def translated_records(entries: Iterable[Entry], language: str, translations: Mapping[Key, str]) -> Iterator[Record]:
    """Pool B, dev and test. What the teacher learnt from, pool A, is in English only."""
    seen: set[str] = set()
    for entry in entries:
        translation = translations.get(entry.package.key)
        if translation is None or is_mostly_english(translation, entry.description):
            continue
        record = _record(entry, language, fold(translation))
        if record.pool != "A" and record.text not in seen:
            seen.add(record.text)
            yield record


SPLIT_ORDER = {"train": 0, "dev": 1, "test": 2}


def storage_order(record: Record) -> tuple[int, str]:
    """Split by split, shuffled inside: a block of the file is a fair sample of its split."""
    return SPLIT_ORDER[record.split], hashlib.sha256(record.id.encode()).hexdigest()
