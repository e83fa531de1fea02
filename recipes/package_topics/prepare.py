"""Makes the corpus: fetches Debian's package descriptions and writes them as labelled, parallel records.

python -m recipes.package_topics.prepare --out data/package_topics
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from recipes.package_topics import SOURCE_LANGUAGE, TARGET_LANGUAGES
from recipes.package_topics.apt_lists import AptLists, FetchError, fetch_lists, find_lists
from recipes.package_topics.corpus_files import read_sources, sha256, write_corpus
from recipes.package_topics.descriptions import read_descriptions, read_packages
from recipes.package_topics.progress import ProgressBar
from recipes.package_topics.records import (
    Record,
    english_records,
    select_entries,
    translated_records,
)
from recipes.package_topics.topics import TASKS, labeller

HERE = Path(__file__).resolve().parent
SAMPLE = HERE / "sample"

WITHOUT_NETWORK = """\
Check the network and run it again. Without one, the sample that comes with the source does: ./polystill demo --sample
(this program: --sample)."""


def recipe_digest() -> dict[str, str]:
    """What the output depends on besides the lists: the code of this recipe."""
    return {path.name: sha256(path) for path in sorted(HERE.glob("*.py")) if path.name != "compare.py"}


def make_corpus(lists: AptLists, task: str, progress: ProgressBar) -> dict[str, list[Record]]:
    english = read_descriptions(lists.translations[SOURCE_LANGUAGE], SOURCE_LANGUAGE)
    entries = select_entries(read_packages(lists.packages), english, labeller(task))
    corpus = {SOURCE_LANGUAGE: list(english_records(entries))}
    for number, language in enumerate(TARGET_LANGUAGES, start=1):
        translations = read_descriptions(lists.translations[language], language)
        corpus[language] = list(translated_records(entries, language, translations))
        progress(number / len(TARGET_LANGUAGES))
    return corpus


def read_sample(folder: Path = SAMPLE) -> dict[str, list[Record]]:
    paths = sorted(folder.glob("*.jsonl"))
    return {path.stem: [Record(**json.loads(line)) for line in path.read_text("utf-8").splitlines()] for path in paths}


def describe(lists: AptLists) -> dict[str, Any]:
    release = {name.lower(): lists.release_field(name) for name in ("Origin", "Codename", "Version", "Date")}
    read = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in lists.all().items()}
    return {"release": release, "lists": read}


def is_current(sources: dict[str, Any] | None, made_by: dict[str, Any], lists: AptLists | None) -> bool:
    """The Release file names the SHA-256 of every list, so its own stands for them all."""
    if sources is None or sources["made_by"] != made_by:
        return False
    return lists is None or sha256(lists.release) == sources["lists"].get("InRelease", {}).get("sha256")


def prepare(out: Path, cache: Path, task: str, refetch: bool) -> None:
    made_by = {"task": task, "recipe": recipe_digest()}
    languages = (SOURCE_LANGUAGE, *TARGET_LANGUAGES)
    lists = None if refetch else find_lists(cache, languages)
    if not refetch and is_current(read_sources(out), made_by, lists):
        print(f"corpus: {out} is up to date")
        return
    if lists is None:
        with ProgressBar("fetching package descriptions") as progress:
            lists = fetch_lists(cache, languages, progress)
    with ProgressBar("reading package descriptions ") as progress:
        corpus = make_corpus(lists, task, progress)
    write_corpus(out, corpus, {"made_by": made_by, **describe(lists)})
    total = sum(len(records) for records in corpus.values())
    print(f"corpus: {total} records in {len(corpus)} languages in {out}")


def prepare_sample(out: Path) -> None:
    corpus = read_sample()
    lists = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(SAMPLE.glob("*.jsonl"))
    }
    write_corpus(out, corpus, {"made_by": {"task": "sample", "recipe": recipe_digest()}, "lists": lists})
    print(f"corpus: the committed sample in {out}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="recipes.package_topics.prepare", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the Parquet files")
    parser.add_argument("--cache", type=Path, default=Path(".cache/apt"), help="apt's private folder (%(default)s)")
    parser.add_argument("--task", choices=sorted(TASKS), default="topic10", help="the labels (%(default)s)")
    parser.add_argument("--sample", action="store_true", help="write the committed sample instead; no network")
    parser.add_argument("--refetch", action="store_true", help="fetch the newest lists even when there are some")
    options = parser.parse_args(arguments)
    try:
        if options.sample:
            prepare_sample(options.out)
        else:
            prepare(options.out, options.cache, options.task, options.refetch)
    except FetchError as error:
        print(f"prepare: cannot fetch Debian's package descriptions: {error}", file=sys.stderr)
        print(WITHOUT_NETWORK, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"prepare: {error.filename or options.out}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
