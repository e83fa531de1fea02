"""The preparation of the corpus: parsing, filters, labels, splits and pools, and that it repeats byte for byte."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import unicodedata
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recipes.package_topics import TARGET_LANGUAGES, apt_lists, prepare, records
from recipes.package_topics.apt_lists import AptLists, FetchError
from recipes.package_topics.descriptions import Package, read_descriptions, read_packages
from recipes.package_topics.progress import ProgressBar
from recipes.package_topics.records import Record
from recipes.package_topics.topics import TASKS, TOPIC10, labeller

REPO = Path(__file__).resolve().parent.parent
SECTIONS = ("net", "devel", "science", "x11", "admin", "text", "games", "sound", "fonts", "graphics", "libs")


def stanza(name: str, english: str, **fields: str) -> str:
    fields = {"Package": name, "Description-md5": hashlib.md5(english.encode()).hexdigest(), **fields}
    return "".join(f"{field}: {value}\n" for field, value in fields.items()) + "\n"


def description(short: str, *paragraphs: str) -> str:
    return "\n .\n ".join([f"{short}\n {paragraphs[0]}", *paragraphs[1:]])


def write_lists(folder: Path, packages: int) -> AptLists:
    """An archive of so many packages in every section; each target language has four fifths of them."""
    folder.mkdir(parents=True)
    lists: dict[str, str] = defaultdict(str)
    for number in range(packages):
        name = f"tool{number}"
        english = description(f"tool of kind {number}", f"This is a tool that does thing number {number} well.")
        section = SECTIONS[number // 2 % len(SECTIONS)]
        source = f"source-{'abcdefghij'[number // 20 % 10] * (1 + number // 200)}{'xyz'[number % 20 // 7]}{number % 2}"
        lists["Packages"] += stanza(name, english, Source=f"{source} (1.0)", Section=section)
        lists["en"] += stanza(name, english, **{"Description-en": english})
        for place, language in enumerate(TARGET_LANGUAGES):
            if (number + place) % 5:
                translated = description(f"{language} {number}", f"Wort für Wort übersetzt, Ding {number}, {language}.")
                lists[language] += stanza(name, english, **{f"Description-{language}": translated})
    (folder / "InRelease").write_text("Origin: Debian\nCodename: bookworm\nDate: Sat, 01 Jan 2022 00:00:00 UTC\n")
    for name, text in lists.items():
        (folder / name).write_text(text, encoding="utf-8")
    translations = {language: folder / language for language in ("en", *TARGET_LANGUAGES)}
    return AptLists(folder / "InRelease", folder / "Packages", translations)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Record]]:
    lists = write_lists(tmp_path_factory.mktemp("lists") / "apt", packages=1200)
    return prepare.make_corpus(lists, "topic10", ProgressBar("test"))


def test_paragraphs_are_joined_on_package_and_md5(tmp_path: Path) -> None:
    (tmp_path / "Packages").write_text(
        "Package: b\nSource: src (2:1.0)\nSection: non-free/games\nDescription-md5: 11\nTag: x::y,\n z::w\n\n"
        "Package: a\nSection: net\nDescription-md5: 22\n\nPackage: b\nSection: net\nDescription-md5: 33"
    )
    (tmp_path / "Translation-de").write_text(
        "Package: b\nDescription-md5: 11\nDescription-de: kurz\n lang,\n  * Punkt\n .\n Ende\n\n"
        "Package: a\nDescription-md5: 99\nDescription-de: veraltet\n lang\n",
        encoding="utf-8",
    )
    packages = read_packages(tmp_path / "Packages")
    assert packages == [Package("a", "a", "net", "22"), Package("b", "src", "games", "11")]
    german = read_descriptions(tmp_path / "Translation-de", "de")
    assert [german.get(package.key) for package in packages] == [None, "kurz\nlang,\n * Punkt\n.\nEnde"]
    assert records.fold(german["b", "11"]) == "kurz lang, * Punkt Ende"


def test_text_is_folded_and_composed() -> None:
    decomposed = unicodedata.normalize("NFD", "größer")
    assert records.fold(f"  {decomposed}\t als\n.\n \u00a0  zuvor \n") == "größer als zuvor"


@pytest.mark.parametrize(
    ("description", "transitional"),
    [
        ("transitional package for foo", True),
        ("foo (dummy transitional package)", True),
        ("network tool\nThis is a transitional dummy package, safe to remove.", True),
        ("simulates a dummy sound card for packages", False),
        ("tool for transitional\nmetabolism networks", False),
    ],
)
def test_transitional_packages(description: str, transitional: bool) -> None:
    assert records.is_transitional(description) is transitional


LONG = "This paragraph is long enough to count as one that was to be translated."
OTHER = "Here is another paragraph of the description, and it has its length too."


@pytest.mark.parametrize(
    ("translation", "mostly_english"),
    [
        (f"kurz\n{LONG}\n.\n{OTHER}", True),
        (f"short\n.\n{LONG}", True),
        (f"kurz\nDieser Absatz ist übersetzt, er ist also nicht derselbe.\n.\n{OTHER}", False),
        ("kurz\nfoo, bar", False),
        (f"short\n{LONG}\n.\n{OTHER}", True),
    ],
)
def test_mostly_english_translations(translation: str, mostly_english: bool) -> None:
    assert records.is_mostly_english(translation, f"short\n{LONG}\n.\n{OTHER}") is mostly_english


def test_duplicates_and_packages_without_a_topic_are_dropped() -> None:
    packages = [Package(name, name, section, "1") for name, section in [("a", "net"), ("b", "net"), ("c", "libs")]]
    english = {package.key: "the same\ntext" for package in packages}
    entries = records.select_entries(packages, english, labeller("topic10"))
    assert [(entry.package.name, entry.label) for entry in entries] == [("a", "net")]


@pytest.mark.parametrize(
    ("tags", "label"),
    [
        ("implemented-in::c, role::program,\n use::editing", "program"),
        ("role::app-data, role::data", "data"),
        ("role::program, role::plugin", None),
        ("role::program, role::metapackage", None),
        ("role::TODO, role::shared-lib", "shared-lib"),
        ("role::dummy", None),
        ("", None),
    ],
)
def test_one_role_is_a_label(tmp_path: Path, tags: str, label: str | None) -> None:
    lists = tmp_path / "Packages"
    tag_field = f"Tag: {tags}\n" if tags else ""
    lists.write_text(f"Package: a\nSection: utils\n{tag_field}Description-md5: 1\n\n")
    (package,) = read_packages(lists)
    assert labeller("role6")(package) == label


def test_each_section_has_one_topic() -> None:
    for labels in TASKS.values():
        sections = [section for merged in labels.values() for section in merged]
        assert len(sections) == len(set(sections))
    assert not {"utils", "libs", "libdevel"} & {section for merged in TOPIC10.values() for section in merged}


def test_groups_ignore_digits() -> None:
    assert records.group_of("gcc-11") == records.group_of("gcc-12") == "gcc-"
    assert records.group_of("4711") == "4711"


def test_shares_of_splits_and_pools() -> None:
    groups = ["".join(chr(97 + (number // 26**place) % 26) for place in range(4)) for number in range(20_000)]
    splits = [records.split_of(group) for group in groups]
    pools = [records.pool_of(group) for group in groups]
    for name, share in (("train", 0.7), ("dev", 0.1), ("test", 0.2)):
        assert splits.count(name) / len(groups) == pytest.approx(share, abs=0.015)
    assert pools.count("A") / splits.count("train") == pytest.approx(0.5, abs=0.015)
    assert [pool is None for pool in pools] == [split != "train" for split in splits]


def test_pools_and_splits_share_no_group(corpus: dict[str, list[Record]]) -> None:
    places: dict[str, set[tuple[str, str | None]]] = defaultdict(set)
    for found in corpus.values():
        for record in found:
            places[record.group].add((record.split, record.pool))
    assert all(len(sides) == 1 for sides in places.values())
    assert {side for sides in places.values() for side in sides} == {
        ("train", "A"), ("train", "B"), ("dev", None), ("test", None)
    }  # fmt: skip


def test_pool_a_is_english_and_pool_b_is_not(corpus: dict[str, list[Record]]) -> None:
    assert set(corpus) == {"en", *TARGET_LANGUAGES}
    seen_by_teacher = {record.text for record in corpus["en"] if record.pool == "A"}
    for language, found in corpus.items():
        pools = {record.pool for record in found if record.split == "train"}
        assert pools == ({"A"} if language == "en" else {"B"})
        if language == "en":
            assert all(record.text == record.source_text for record in found)
        else:
            assert not seen_by_teacher & {record.source_text for record in found}
            assert all(record.text.startswith(language) for record in found)


def test_a_package_is_the_same_in_every_language(corpus: dict[str, list[Record]]) -> None:
    sides: dict[str, set[tuple[str, str, str, str | None]]] = defaultdict(set)
    for language, found in corpus.items():
        ids = [record.id for record in found]
        assert len(ids) == len(set(ids))
        for record in found:
            name, _, code = record.id.rpartition(":")
            assert code == record.language == language
            sides[name].add((record.source_text, record.label, record.split, record.pool))
    assert all(len(side) == 1 for side in sides.values())
    assert {record.label for record in corpus["en"]} == set(TOPIC10)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """prepare.main with hand-made lists in the place of apt's; returns the lists' folder."""
    lists = write_lists(tmp_path / "apt", packages=400)
    monkeypatch.setattr(prepare, "find_lists", lambda *_: lists)
    return tmp_path / "apt"


def test_the_same_lists_give_the_same_bytes(offline: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert prepare.main(["--out", str(tmp_path / name)]) == 0
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(["SOURCES.json", "en.parquet", *(f"{language}.parquet" for language in TARGET_LANGUAGES)])
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    sources = json.loads((tmp_path / "one" / "SOURCES.json").read_text())
    assert sources["lists"]["Packages"]["sha256"] == hashlib.sha256((offline / "Packages").read_bytes()).hexdigest()
    assert sources["release"]["date"] == "Sat, 01 Jan 2022 00:00:00 UTC"
    for name, file in sources["files"].items():
        assert file["records"] == pq.read_metadata(tmp_path / "one" / name).num_rows > 0


def test_work_is_done_again_only_for_other_lists(
    offline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path / "out")]
    said = []
    for change in (None, None, "lists", "output"):
        if change == "lists":
            (offline / "InRelease").write_text("Origin: Debian\nCodename: bookworm\nDate: later\n")
        if change == "output":
            (tmp_path / "out" / "ja.parquet").write_bytes(b"torn")
        assert prepare.main(arguments) == 0
        said.append("up to date" in capsys.readouterr().out)
    assert said == [False, True, False, False]
    assert pq.read_metadata(tmp_path / "out" / "ja.parquet").num_rows > 0


def test_failed_fetch_names_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> AptLists:
        raise FetchError("E: Failed to fetch the lists")

    monkeypatch.setattr(prepare, "fetch_lists", refuse)
    assert prepare.main(["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]) == 1
    said = capsys.readouterr()
    assert "Failed to fetch" in said.err
    assert "--sample" in said.err
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt on this machine")
def test_apt_without_a_network_fails_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_lists, "_mirror", lambda: "http://127.0.0.1:9/debian")
    with pytest.raises(FetchError, match=r"127\.0\.0\.1"):
        apt_lists.fetch_lists(tmp_path / "apt", ["en", "de"], ProgressBar("test"))


def test_the_sample_has_the_shape_of_the_corpus(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "recipes.package_topics.prepare", "--sample", "--out", str(tmp_path)]
    subprocess.run(command, cwd=REPO, check=True, capture_output=True)
    sample = {
        path.stem: [Record(**row) for row in pq.read_table(path).to_pylist()] for path in tmp_path.glob("*.parquet")
    }
    assert set(sample) == {"en", "de", "fr", "es", "ja"}
    for language, found in sample.items():
        assert {record.pool for record in found} == {None, "A" if language == "en" else "B"}
        assert {record.split for record in found} == {"train", "dev", "test"}
        assert all(record.language == language for record in found)
    test_pools_and_splits_share_no_group(sample)
