"""Writes records as Parquet, one file a language, and beside them what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from recipes.package_topics.records import Record, storage_order

SOURCES = "SOURCES.json"
# The unit of reading: the smaller languages fit one, and the larger have several to permute.
ROWS_PER_BLOCK = 2048


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path that is moved to `path` at the end: readers see the old file or the new one."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_records(path: Path, records: Sequence[Record]) -> None:
    import pyarrow as pa  # 0.3 s to load: not needed when the output is there already
    import pyarrow.parquet as pq

    columns = [pa.field(field.name, pa.string(), nullable=field.name == "pool") for field in fields(Record)]
    rows = [asdict(record) for record in sorted(records, key=storage_order)]
    table = pa.Table.from_pylist(rows, schema=pa.schema(columns))
    with _replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=ROWS_PER_BLOCK)


def count(records: Sequence[Record]) -> dict[str, Any]:
    """Records in all, by split (train: by pool) and by label."""
    parts = Counter(f"train {record.pool}" if record.pool else record.split for record in records)
    labels = Counter(record.label for record in records)
    return {
        "records": len(records),
        "parts": dict(sorted(parts.items())),
        "labels": dict(sorted(labels.items())),
    }


def write_corpus(folder: Path, corpus: dict[str, list[Record]], sources: dict[str, Any]) -> None:
    """Writes `folder`/LANGUAGE.parquet and, last, SOURCES.json: a folder without it is not whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SOURCES).unlink(missing_ok=True)
    for stale in folder.glob("*.parquet"):
        if stale.stem not in corpus:
            stale.unlink()
    files = {}
    for language, records in corpus.items():
        path = folder / f"{language}.parquet"
        write_records(path, records)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path), **count(records)}
    with _replacing(folder / SOURCES) as temporary:
        temporary.write_text(json.dumps({**sources, "files": files}, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_sources(folder: Path) -> dict[str, Any] | None:
    """SOURCES.json, when the folder holds every file that it names, as large as it says."""
    try:
        sources: dict[str, Any] = json.loads((folder / SOURCES).read_text("utf-8"))
        whole = all((folder / name).stat().st_size == file["bytes"] for name, file in sources["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return sources if whole else None
