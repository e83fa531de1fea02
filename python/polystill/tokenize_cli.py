"""polystill-tokenize: gives records a column of token ids."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from polystill.errors import PolystillError
from polystill.program import Parser, run

EXAMPLES = """examples:
  polystill-tokenize data/reviews --tokenizer xlm-roberta-base --max-length 128 --out data/reviews-ids
      every .jsonl and .parquet file of the folder, with the ids of `text` in `ids`
  polystill-tokenize train.parquet --tokenizer my-model/tokenizer.json --max-length 256 \\
      --column body=ids --column english=source_ids --out train-ids.parquet
  polystill-tokenize names.jsonl --tokenizer my-model --column words=ids --label label --out names-ids.jsonl
      lists of words (task token_classification): the labels become one for each id, null where a word goes on

The run file of the result says tokenizer: {kind: ids, vocab_size: ..., max_length: ...}, as is printed at the end.

exit codes: 0 fine, 1 failed (nothing is left behind), 2 wrong usage, 130 interrupted."""


def column(text: str) -> tuple[str, str]:
    source, equals, target = text.partition("=")
    if not (source and equals and target):
        raise argparse.ArgumentTypeError(f"'{text}' is not COLUMN=IDS_COLUMN, as in text=ids")
    return source, target


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="polystill-tokenize",
        description="Writes records again, with a column of token ids made by a HuggingFace tokeniser.",
        epilog=EXAMPLES,
    )
    made.add_argument("records", type=Path, help="a .jsonl or .parquet file, or a folder with such files")
    made.add_argument("--tokenizer", required=True, help="a folder, a tokenizer.json, or a name at HuggingFace's hub")
    made.add_argument("--out", required=True, type=Path, help="file or folder to write; appears whole or not at all")
    made.add_argument(
        "--column",
        type=column,
        action="append",
        metavar="COLUMN=IDS_COLUMN",
        help="column of texts (or lists of words), and the new one of their ids; may be repeated (default text=ids)",
    )
    made.add_argument("--label", help="column with a label for each word")
    made.add_argument("--max-length", type=int, help="ids kept of a text; by default as many as the tokeniser says")
    return made


def tokenize(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from polystill import tokenizing

    pairs = arguments.column or [("text", "ids")]
    columns = tokenizing.Columns(dict(pairs), arguments.label)
    if len(columns.ids) < len(pairs) or len(set(columns.ids.values())) < len(pairs):
        raise PolystillError("--column: names a column twice")
    if arguments.label is not None and len(pairs) != 1:
        raise PolystillError("--label: goes with one --column, that of the words")
    if arguments.max_length is not None and arguments.max_length < 1:
        raise PolystillError("--max-length: must be at least 1")
    files = tokenizing.files_of(arguments.records)
    total = sum(map(tokenizing.size_of, files))
    tokenizer = tokenizing.IdsOf(arguments.tokenizer, arguments.max_length)
    with tqdm(total=total, unit="B" if files[0].suffix == ".jsonl" else "rows", unit_scale=True, disable=None) as bar:
        rows = tokenizing.tokenize(arguments.records, arguments.out, columns, tokenizer, bar.update)
    mask = f", mask_id: {tokenizer.mask_id}" if tokenizer.mask_id is not None else ""
    print(f"{arguments.out}: {rows} rows; for the run file:")
    print(f"tokenizer: {{kind: ids, vocab_size: {tokenizer.vocab_size}, max_length: {tokenizer.max_length}{mask}}}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    return run(parser(), tokenize, arguments)


if __name__ == "__main__":
    sys.exit(main())
