"""How many rows a run's text makes, before it is tokenised: from the sizes of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minimind.config import TrainConfig
from minimind.data.compression import named_compression
from minimind.data.inputs import find_files
from minimind.rundir.data_path import parse_sources

BYTES_OF_A_TOKEN = 3.0
"""Of a jsonl file, by the shipped tokenizer: 3.04 in our sample corpus, half of it Chinese.
Larger vocabularies make fewer tokens."""

COMPRESSION = 3.0
"""How much larger text is than its compressed file, roughly."""

PARQUET = ".parquet"
"""Is compressed inside."""


@dataclass(frozen=True)
class Rows:
    """The rows of an epoch.

    Attributes:
        count: how many.
        new_tokens: of text that is still to be tokenised.
        estimated_from: bytes of text files, where nobody has counted the tokens yet; else 0.
    """

    count: int
    new_tokens: int = 0
    estimated_from: int = 0


def estimate_rows(config: TrainConfig) -> Rows:
    """Rows by the sizes of the text files; with ``--pack none`` as if documents filled them.

    Raises:
        DataError: a path of ``--data_path`` is missing or unreadable.
    """
    sources = parse_sources(config.data_path)
    paths = [source.path for source in sources] if sources else config.data_path
    size = sum(map(_text_bytes, find_files(paths)))
    tokens = round(size / BYTES_OF_A_TOKEN)
    return Rows(max(1, -(-tokens // config.max_seq_len)), tokens, size)


def _text_bytes(path: Path) -> int:
    size, name = path.stat().st_size, path.name
    is_compressed = named_compression(name) is not None or name.lower().endswith(PARQUET)
    return round(size * COMPRESSION) if is_compressed else size
