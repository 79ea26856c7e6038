"""One corpus in every format: the text of a jsonl file, rewritten in bounded memory."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROWS_A_GROUP = 50_000
ROWS_A_BATCH = 1_000
"""What ``datasets`` writes at once."""


def texts_of(jsonl: Path) -> Iterator[str]:
    with open(jsonl, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def groups(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(texts)
    while group := list(itertools.islice(rest, size)):
        yield group


def write_parquet(path: Path, texts: Iterable[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in groups(texts, ROWS_A_GROUP):
            writer.write_table(pa.table([range(len(group)), group], schema=schema))


def write_arrow_stream(path: Path, texts: Iterable[str]) -> None:
    import pyarrow as pa

    _write_arrow(path, texts, pa.ipc.new_stream)


def write_arrow_file(path: Path, texts: Iterable[str]) -> None:
    import pyarrow as pa

    _write_arrow(path, texts, pa.ipc.new_file)


def _write_arrow(path: Path, texts: Iterable[str], opened: Callable[..., Any]) -> None:
    import pyarrow as pa

    schema = pa.schema([("text", pa.string())])
    with opened(str(path), schema) as writer:
        for group in groups(texts, ROWS_A_BATCH):
            writer.write_batch(pa.record_batch([group], schema=schema))


def write_json(path: Path, texts: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            file.write("[\n" if number == 0 else ",\n")
            file.write(json.dumps({"text": text}, ensure_ascii=False, indent=1))
        file.write("\n]\n")


def write_csv(path: Path, texts: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows((number, text) for number, text in enumerate(texts))


def write_txt(path: Path, texts: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(text + "\n" for text in texts)


WRITERS: dict[str, tuple[str, Callable[[Path, Iterable[str]], None]]] = {
    "parquet": (".parquet", write_parquet),
    "arrow stream": (".arrow", write_arrow_stream),
    "arrow": (".feather", write_arrow_file),
    "json": (".json", write_json),
    "csv": (".csv", write_csv),
    "txt": (".txt", write_txt),
}


def rewritten(jsonl: Path, name: str) -> Path:
    """The file beside ``jsonl`` with its text in another format, written if it is not there."""
    suffix, write = WRITERS[name]
    path = jsonl.with_suffix(suffix)
    if not path.exists():
        part = path.with_name(f"part-{path.name}")
        write(part, texts_of(jsonl))
        part.rename(path)
    return path
