"""Adds columns of token ids to records in Parquet files or JSON lines, by any HuggingFace tokeniser."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from polystill.errors import PolystillError

IDS = pa.list_(pa.int32())
STRINGS = pa.list_(pa.string())
ROWS_AT_ONCE = 1_000
# Of a row group that is written; the file's own are never joined.
ROWS_PER_GROUP = 65_536
ENDINGS = (".jsonl", ".parquet")

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Columns:
    # Column of texts, or of lists of words, -> new column of ids.
    ids: Mapping[str, str]
    # Column with a label for each word of the one column in `ids`; it gets one for each id, null where a word goes on.
    label: str | None = None


class IdsOf:
    """Token ids as a run takes them: at most `max_length`, never none, with the tokeniser's own special tokens."""

    def __init__(self, source: str, max_length: int | None) -> None:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        try:
            if Path(source).is_file():
                self._tokenizer: Any = transformers.PreTrainedTokenizerFast(tokenizer_file=source)
            else:
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        except Exception as error:  # as many kinds as tokenisers
            raise PolystillError(f"--tokenizer {source}: is none that transformers loads: {error}") from error
        own = self._tokenizer.model_max_length
        if max_length is None and not own < 1 << 20:
            raise PolystillError(f"--max-length: missing; the tokeniser {source} states none")
        self.max_length: int = max_length or int(own)
        self.vocab_size: int = len(self._tokenizer)
        self.mask_id: int | None = self._tokenizer.mask_token_id

    def of_texts(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        made = self._tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
        return [list(ids) or [self._unknown()] for ids in made]

    def of_words(self, words: list[str]) -> tuple[list[int], list[int | None]]:
        """Ids, and for each of them the word that begins there; None where it goes on, or of a special token."""
        made = self._tokenizer(words, is_split_into_words=True, truncation=True, max_length=self.max_length)
        if not made["input_ids"]:
            return [self._unknown()], [None]
        begins: list[int | None] = []
        before = None
        for word in made.word_ids():
            begins.append(word if word != before else None)
            before = word
        return list(made["input_ids"]), begins

    def _unknown(self) -> int:
        if self._tokenizer.unk_token_id is None:
            raise PolystillError("a text gives no token, and the tokeniser has no unknown token to stand for it")
        return int(self._tokenizer.unk_token_id)


class BadRow(Exception):
    """What is wrong with row `place` of some rows."""

    def __init__(self, place: int, message: str) -> None:
        super().__init__(message)
        self.place = place


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def add_ids(rows: list[dict[str, Any]], columns: Columns, tokenizer: IdsOf) -> dict[str, list[Any]]:
    """The new columns, and the label column where it changes. BadRow names what is neither text, words nor null."""
    made: dict[str, list[Any]] = {}
    for source, target in columns.ids.items():
        values: list[Any] = [None] * len(rows)
        texts: dict[int, str] = {}
        for place, row in enumerate(rows):
            value = row[source]
            if isinstance(value, str):
                texts[place] = value
            elif _is_words(value):
                values[place], begins = tokenizer.of_words(value)
                if columns.label is not None:
                    made.setdefault(columns.label, [None] * len(rows))[place] = _spread(row, place, columns, begins)
            elif value is not None:
                raise BadRow(place, f"'{source}' is {value!r:.60}, neither a text nor a list of words")
        if texts and columns.label is not None:
            raise BadRow(next(iter(texts)), f"'{source}' is a text; --label goes with lists of words")
        for place, ids in zip(texts, tokenizer.of_texts(list(texts.values())), strict=True):
            values[place] = ids
        made[target] = values
    return made


def _spread(row: dict[str, Any], place: int, columns: Columns, begins: list[int | None]) -> list[Any] | None:
    assert columns.label is not None
    labels = row[columns.label]
    if labels is None:
        return None
    (source,) = columns.ids
    if not isinstance(labels, list) or len(labels) != len(row[source]):
        count = len(labels) if isinstance(labels, list) else "no list of"
        raise BadRow(place, f"'{columns.label}' has {count} labels for {len(row[source])} words")
    return [None if word is None else labels[word] for word in begins]


def tokenize_file(source: Path, out: Path, columns: Columns, tokenizer: IdsOf, progress: Progress) -> int:
    """Writes the rows of `source` with the new columns; the file appears whole or not at all. Returns their number.

    `progress` gets the bytes (of JSON lines) or rows (of Parquet) done since the last call. PolystillError names file
    and row.
    """
    kinds = {".jsonl": _tokenize_jsonl, ".parquet": _tokenize_parquet}
    temporary = out.parent / f".{out.name}.tmp-{os.getpid()}"
    try:
        rows = kinds[source.suffix](source, temporary, columns, tokenizer, progress)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def size_of(source: Path) -> int:
    """What `progress` of tokenize_file adds up to."""
    if source.suffix == ".jsonl":
        return source.stat().st_size
    try:
        return int(pq.read_metadata(source).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise PolystillError(f"{source}: is no whole Parquet file: {error}") from error


def _json_rows(source: Path, columns: Columns) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Number of the line, its bytes, what it says."""
    needed = [*columns.ids, *([columns.label] if columns.label else [])]
    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise PolystillError(f"{source}: line {number}: is no JSON object: {error}") from error
            if not isinstance(row, dict):
                raise PolystillError(f"{source}: line {number}: is no JSON object")
            for column in needed:
                if column not in row:
                    raise PolystillError(f"{source}: line {number}: has no key '{column}'; name columns with --column")
            for column in columns.ids.values():
                if column in row:
                    raise PolystillError(f"{source}: line {number}: has a key '{column}' already; name another")
            yield number, len(line), row


def _tokenize_jsonl(source: Path, out: Path, columns: Columns, tokenizer: IdsOf, progress: Progress) -> int:
    count = 0
    numbers: list[int] = []
    rows: list[dict[str, Any]] = []
    with out.open("w", encoding="utf-8") as file:

        def write() -> None:
            try:
                made = add_ids(rows, columns, tokenizer)
            except BadRow as error:
                raise PolystillError(f"{source}: line {numbers[error.place]}: {error}") from error
            for place, row in enumerate(rows):
                new = {name: values[place] for name, values in made.items()}
                file.write(json.dumps(row | new, ensure_ascii=False) + "\n")
            numbers.clear()
            rows.clear()

        for number, size, row in _json_rows(source, columns):
            numbers.append(number)
            rows.append(row)
            count += 1
            progress(size)
            if len(rows) == ROWS_AT_ONCE:
                write()
        write()
    return count


def _check_schema(source: Path, schema: pa.Schema, columns: Columns) -> None:
    for column in [*columns.ids, *([columns.label] if columns.label else [])]:
        if column not in schema.names:
            there = ", ".join(schema.names)
            raise PolystillError(f"{source}: has no column '{column}', only {there}; name columns with --column")
    for column in columns.ids.values():
        if column in schema.names:
            raise PolystillError(f"{source}: has a column '{column}' already; name another")


def _tokenize_parquet(source: Path, out: Path, columns: Columns, tokenizer: IdsOf, progress: Progress) -> int:
    done = 0
    try:
        with pq.ParquetFile(source) as file:
            schema = file.schema_arrow
            _check_schema(source, schema, columns)
            for name in columns.ids.values():
                schema = schema.append(pa.field(name, IDS))
            with pq.ParquetWriter(out, schema) as writer:
                for group in range(file.num_row_groups):
                    waiting: list[pa.RecordBatch] = []
                    for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group]):
                        waiting.append(_with_ids(source, batch, done, columns, tokenizer))
                        done += batch.num_rows
                        progress(batch.num_rows)
                        if len(waiting) * ROWS_AT_ONCE >= ROWS_PER_GROUP:
                            writer.write_table(pa.Table.from_batches(waiting, schema))
                            waiting = []
                    if waiting:
                        writer.write_table(pa.Table.from_batches(waiting, schema))
    except pa.ArrowException as error:
        raise PolystillError(f"{source}: {error}") from error
    return done


def _with_ids(source: Path, batch: pa.RecordBatch, done: int, columns: Columns, tokenizer: IdsOf) -> pa.RecordBatch:
    needed = [*columns.ids, *([columns.label] if columns.label else [])]
    try:
        made = add_ids(batch.select(needed).to_pylist(), columns, tokenizer)
    except BadRow as error:
        raise PolystillError(f"{source}: row {done + error.place}: {error}") from error
    arrays, fields = list(batch.columns), list(batch.schema)
    for name, values in made.items():
        if name in batch.schema.names:  # the labels, in their place
            place = batch.schema.get_field_index(name)
            arrays[place] = pa.array(values, fields[place].type)
        else:
            arrays.append(pa.array(values, IDS))
            fields.append(pa.field(name, IDS))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields, batch.schema.metadata))


def files_of(source: Path) -> list[Path]:
    """The record files of a folder, as a run reads them: not those of folders inside; of a file, itself."""
    if source.is_file():
        if source.suffix not in ENDINGS:
            raise PolystillError(f"{source}: the ending must be {' or '.join(ENDINGS)}")
        return [source]
    found = sorted(path for path in source.glob("*") if path.suffix in ENDINGS and path.is_file())
    if not found:
        raise PolystillError(f"{source}: is neither a record file nor a folder with {' or '.join(ENDINGS)} files")
    return found


def tokenize(
    source: Path, out: Path, columns: Columns, tokenizer: IdsOf, progress: Progress = lambda done: None
) -> int:
    """Of a file or a folder; `out` is the same, and must not be there yet. It appears whole or not at all."""
    if out.exists():
        raise PolystillError(f"{out}: is there already; give another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        if out.suffix != source.suffix:
            raise PolystillError(f"{out}: must end as {source} does")
        return tokenize_file(source, out, columns, tokenizer, progress)
    temporary = out.parent / f".{out.name}.tmp-{os.getpid()}"
    temporary.mkdir()
    try:
        rows = sum(
            tokenize_file(path, temporary / path.name, columns, tokenizer, progress) for path in files_of(source)
        )
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return rows
