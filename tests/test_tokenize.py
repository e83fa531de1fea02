"""polystill-tokenize: ids of any HuggingFace tokeniser, in files that a run reads with tokenizer: {kind: ids}."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from polystill import tokenizing
from processes import BIN, REPO
from test_export_package import Done, bert_tokenizer, byte_tokenizer, command, said

TEXTS = ["the king sings.", "", "zebra " * 60, "Ein Würfel, 画像", "a\tb"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    bert_tokenizer().save_pretrained(folder)
    return folder


def records(count: int) -> list[dict[str, Any]]:
    splits = ["train", "test"]
    labels = ["net", "games"]
    return [
        {
            "uid": f"r{i}",
            "language": "de" if i % 3 else "en",
            "split": splits[i % 2],
            "label": labels[i % 4 // 2],
            "body": f"{TEXTS[i % len(TEXTS)]} {chr(97 + i % 26)}",
            "more": {"n": i, "list": [1.5, None]},
        }
        for i in range(count)
    ]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def tokenize(*arguments: str | Path) -> Done:
    return command(*arguments, program="tokenize")


def expected(texts: list[str], max_length: int = 48) -> list[list[int]]:
    made: list[list[int]] = bert_tokenizer()(texts, truncation=True, max_length=max_length)["input_ids"]
    return made


def test_json_lines(bert: Path, tmp_path: Path) -> None:
    rows = records(2_500)  # more than are read at once
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out.jsonl"
    done = tokenize(source, "--tokenizer", bert, "--column", "body=ids", "--out", out)
    assert done.returncode == 0, said(done)
    assert done.stderr == ""  # no progress where there is no terminal
    assert "tokenizer: {kind: ids, vocab_size: 60, max_length: 48, mask_id: 4}" in done.stdout
    given = read_jsonl(out)
    assert [row.pop("ids") for row in given] == expected([row["body"] for row in rows])
    assert given == rows


def test_parquet_keeps_types_and_row_groups(bert: Path, tmp_path: Path) -> None:
    rows = records(3_000)
    table = pa.Table.from_pylist(rows)
    table = table.append_column("coded", table["body"].dictionary_encode()).append_column(
        "day", pa.array([i % 300 for i in range(3_000)], pa.date32())
    )
    table = table.replace_schema_metadata({"who": "a test"})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=1_700)
    out = tmp_path / "out.parquet"
    columns = ["--column", "body=ids", "--column", "coded=source_ids"]
    done = tokenize(tmp_path / "in.parquet", "--tokenizer", bert, "--max-length", "12", *columns, "--out", out)
    assert done.returncode == 0, said(done)
    given = pq.read_table(out)
    assert given.schema.field("ids").type == pa.list_(pa.int32())
    assert given["ids"].to_pylist() == given["source_ids"].to_pylist() == expected([r["body"] for r in rows], 12)
    before = pq.read_table(tmp_path / "in.parquet")
    assert given.select(before.column_names).equals(before, check_metadata=False)
    assert given.schema.metadata[b"who"] == b"a test"
    assert [pq.ParquetFile(out).metadata.row_group(i).num_rows for i in range(2)] == [1_700, 1_300]


def run_file(corpus: Path, output: Path, vocabulary: int, max_length: int) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "ids",
        "corpus": {"path": str(corpus), "labels": ["net", "games"], "columns": {"id": "uid"}},
        "tokenizer": {"kind": "ids", "vocab_size": vocabulary, "max_length": max_length},
        "teachers": [{"name": "english", "train": {"where": {"language": "en"}}, "reads": "text"}],
        "student": {
            "model": {"kind": "transformer", "width": 8, "layers": 1, "heads": 2},
            "languages": {"targets": ["de"]},
            "losses": [{"kind": "soft_label"}],
            "batch_size": 8,
            "workers": 1,
        },
        "baselines": [],
        "output": str(output),
    }


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_run_reads_the_ids(ending: str, tmp_path: Path) -> None:
    """By a tokeniser that no package can hold."""
    byte_tokenizer().save_pretrained(tmp_path / "tokenizer")
    rows = [{key: value for key, value in row.items() if key != "more"} for row in records(120)]
    if ending == "jsonl":
        write_jsonl(tmp_path / "corpus" / "a.jsonl", rows[:70])
        write_jsonl(tmp_path / "corpus" / "b.jsonl", rows[70:])
    else:
        (tmp_path / "corpus").mkdir()
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus" / "a.parquet")
    (tmp_path / "corpus" / "README").write_text("no records")
    out = tmp_path / "ids"
    done = tokenize(tmp_path / "corpus", "--tokenizer", tmp_path / "tokenizer", "--column", "body=ids", "--out", out)
    assert done.returncode == 0, said(done)
    said_to_write = yaml.safe_load(done.stdout.splitlines()[-1])["tokenizer"]
    spec = run_file(out, tmp_path / "run", said_to_write["vocab_size"], said_to_write["max_length"])
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(spec))
    for arguments in (["check"], ["run", "--dry-run"], ["run"]):
        words = [BIN / "polystill", arguments[0], tmp_path / "run.yaml", *arguments[1:]]
        ran = subprocess.run(words, cwd=REPO, capture_output=True, text=True, timeout=120, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (tmp_path / "run" / "models" / "distilled" / "teacher.yaml").exists()


def test_words_and_their_labels(bert: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"words": ["ada", "sings", "zz"], "label": ["PER", "O", None]},
        {"words": ["a"] * 30, "label": ["O"] * 30},
        {"words": [], "label": []},
        {"words": ["a"], "label": None},
    ]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    arguments = ["--column", "words=ids", "--label", "label", "--max-length", "10", "--out", tmp_path / "out.jsonl"]
    done = tokenize(source, "--tokenizer", bert, *arguments)
    assert done.returncode == 0, said(done)
    given = read_jsonl(tmp_path / "out.jsonl")
    tokens = [bert_tokenizer().convert_ids_to_tokens(row["ids"]) for row in given]
    assert tokens[0] == ["[CLS]", "a", "##d", "##a", "s", "##ing", "##s", "z", "##z", "[SEP]"]
    assert given[0]["label"] == [None, "PER", None, None, "O", None, None, None, None, None]
    assert given[1]["label"] == [None, *["O"] * 8, None]
    assert given[2]["ids"] == [2, 3] and given[2]["label"] == [None, None]
    assert given[3]["label"] is None
    assert [row["words"] for row in given] == [row["words"] for row in rows]


def test_null_stays_null(bert: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": None}, {"text": "a"}])
    assert tokenize(
        source, "--tokenizer", bert / "tokenizer.json", "--max-length", "9", "--out", tmp_path / "out.jsonl"
    )
    assert [row["ids"] for row in read_jsonl(tmp_path / "out.jsonl")] == [None, expected(["a"])[0]]


@pytest.mark.parametrize(
    ("name", "content", "arguments", "message"),
    [
        ("in.jsonl", '{"text": "a"}\nnope\n', [], "in.jsonl: line 2: is no JSON object"),
        ("in.jsonl", '{"text": "a"}\n[1]\n', [], "in.jsonl: line 2: is no JSON object"),
        ("in.jsonl", '{"body": "a"}\n', [], "line 1: has no key 'text'; name columns with --column"),
        ("in.jsonl", '{"text": "a", "ids": []}\n', [], "line 1: has a key 'ids' already"),
        ("in.jsonl", '{"text": "a"}\n{"text": 7}\n', [], "line 2: 'text' is 7, neither a text nor a list of words"),
        ("in.jsonl", '{"text": "a", "l": []}\n', ["--label", "l"], "line 1: 'text' is a text; --label goes with lists"),
        ("in.jsonl", '{"text": ["a"], "l": []}\n', ["--label", "l"], "line 1: 'l' has 0 labels for 1 words"),
        ("in.jsonl", '{"text": "a"}\n', ["--max-length", "0"], "--max-length: must be at least 1"),
        ("in.jsonl", '{"text": "a"}\n', ["--out", "x.parquet"], "must end as"),
        ("in.jsonl", '{"text": "a"}\n', ["--tokenizer", "/nowhere/at/all"], "--tokenizer /nowhere/at/all: is none"),
        ("in.csv", "text\n", [], "in.csv: the ending must be .jsonl or .parquet"),
        ("in.parquet", "PAR1 and no more", [], "in.parquet: is no whole Parquet file"),
    ],
)
def test_bad_input_leaves_nothing(
    bert: Path, tmp_path: Path, name: str, content: str, arguments: list[str], message: str
) -> None:
    (tmp_path / name).write_text(content)
    words = ["--tokenizer", bert, "--out", tmp_path / f"out{Path(name).suffix}", *arguments]
    done = tokenize(tmp_path / name, *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_wrong_columns_of_parquet(bert: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"], "n": [1]}), tmp_path / "in.parquet")
    words = [tmp_path / "in.parquet", "--tokenizer", bert, "--out", tmp_path / "out.parquet"]
    assert "has no column 'text', only body, n" in tokenize(*words).stderr
    assert "row 0: 'n' is 1, neither" in tokenize(*words, "--column", "n=ids").stderr
    assert "has a column 'n' already" in tokenize(*words, "--column", "body=n").stderr
    assert tokenize(*words, "--column", "body").returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_what_is_there_is_kept(bert: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    (tmp_path / "out.jsonl").write_text("precious")
    done = tokenize(source, "--tokenizer", bert, "--out", tmp_path / "out.jsonl")
    assert (done.returncode, (tmp_path / "out.jsonl").read_text()) == (1, "precious")
    assert "is there already" in done.stderr


def test_row_groups_are_bounded(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group larger than memory may hold is written as several."""
    monkeypatch.setattr(tokenizing, "ROWS_PER_GROUP", 2_000)
    pq.write_table(pa.table({"text": ["a"] * 5_000}), tmp_path / "in.parquet")
    done = tokenize(tmp_path / "in.parquet", "--tokenizer", bert, "--out", tmp_path / "out.parquet")
    assert done.returncode == 0, said(done)
    metadata = pq.ParquetFile(tmp_path / "out.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(3)] == [2_000, 2_000, 1_000]


def test_progress_on_a_terminal(bert: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", records(1_200))
    words = [sys.executable, "-m", "polystill.tokenize_cli", source, "--tokenizer", bert, "--column", "body=ids"]
    ours, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    environment = {"PYTHONPATH": str(REPO / "python"), "PATH": "/usr/bin:/bin", "TERM": "xterm"}
    done = subprocess.run([*words, "--out", tmp_path / "out.jsonl"], stderr=terminal, env=environment, check=False)
    os.close(terminal)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert done.returncode == 0, shown
    assert "100%" in shown


def test_an_interrupt_is_told_and_leaves_nothing(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*unused: Any) -> dict[str, list[Any]]:
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenizing, "add_ids", interrupted)
    source = write_jsonl(tmp_path / "corpus" / "in.jsonl", [{"text": "a"}])
    done = tokenize(source.parent, "--tokenizer", bert, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (130, "polystill-tokenize: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
