"""Builds a token store in a folder: sources → chunks → encoder processes → arrays."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minimind.data.cores import available_cores
from minimind.data.encoder import EncoderSpec, encode_in_order
from minimind.data.reader import CHUNK_BYTES, Chunk, read_chunks
from minimind.data.rejected import RejectedRows
from minimind.data.store import (
    DOC_BYTES,
    FORMAT_VERSION,
    META,
    OFFSETS,
    REJECTED,
    TOKENS,
    fsync_tree,
)
from minimind.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

STORE_FILES = (TOKENS, OFFSETS, DOC_BYTES, REJECTED)


@dataclass(frozen=True)
class Source:
    """An input file as it was when the build began."""

    path: Path
    size: int
    mtime_ns: int

    @staticmethod
    def of(path: Path) -> Source:
        stat = path.stat()
        return Source(path, stat.st_size, stat.st_mtime_ns)


def build_store(
    folder: Path,
    sources: Sequence[Source],
    tokenizer: PreTrainedTokenizerFast,
    *,
    text_field: str,
    n_workers: int | None = None,
    progress: bool = False,
    report: Callable[[str], None] | None = None,
) -> None:
    """Tokenise ``sources`` into the existing, empty ``folder`` and make it durable.

    The result is the same, byte for byte, whatever the number of workers. ``progress`` and
    ``report`` are those of :func:`minimind.data.corpus.open_corpus`.

    Raises:
        DataError: a source cannot be read, is damaged, changed meanwhile, or no source has
            a usable row.
    """
    began = time.monotonic()
    vocab_size = max(tokenizer.get_vocab().values()) + 1
    spec = EncoderSpec(
        tokenizer_json=tokenizer.backend_tokenizer.to_str(),
        bos_id=tokenizer.bos_token_id,
        eos_id=tokenizer.eos_token_id,
        dtype="uint16" if vocab_size <= 1 << 16 else "uint32",
        text_field=text_field,
    )
    total_bytes = sum(source.size for source in sources)
    if n_workers is None:
        n_workers = min(available_cores(), 1 + total_bytes // CHUNK_BYTES)
    chunks = ((source, chunk) for source in sources for chunk in read_chunks(source.path))
    encoding = contextlib.closing(encode_in_order(chunks, spec, n_workers))
    bar = _Progress(total_bytes, progress, report)
    with _Writer(folder) as writer, bar, encoding as results:
        for source, chunk, encoded in results:
            writer.add_docs(encoded.tokens, encoded.lengths, encoded.doc_bytes)
            writer.rejected.add(source.path, encoded.bad_rows)
            if chunk.too_long:
                writer.rejected.add(source.path, [chunk.too_long])
            bar.read(source, chunk)
    for source in sources:
        if Source.of(source.path) != source:
            raise DataError(f"{source.path}: changed while it was being read; start again")
    counts = writer.finish()
    files = [name for name in STORE_FILES if (folder / name).exists()]
    meta = {
        "format_version": FORMAT_VERSION,
        "dtype": spec.dtype,
        "counts": counts,
        "content_hash": writer.content_hash,
        "tokenizer": {
            "vocab_size": vocab_size,
            "bos_id": spec.bos_id,
            "eos_id": spec.eos_id,
            "pad_id": tokenizer.pad_token_id,
        },
        "reject_reasons": dict(writer.rejected.reasons),
        "sources": [{**asdict(source), "path": str(source.path)} for source in sources],
        "files": {name: (folder / name).stat().st_size for name in files},
    }
    (folder / META).write_text(json.dumps(meta, indent=2), encoding="utf-8")
    fsync_tree(folder)
    seconds = time.monotonic() - began
    log.info(
        "tokenised %d documents (%d tokens, %.1f MB of text) in %.1f s (%.1f MB/s, %d processes)",
        counts["n_docs"],
        counts["n_tokens"],
        counts["n_bytes"] / 1e6,
        seconds,
        counts["n_bytes"] / 1e6 / seconds,
        n_workers,
    )


class _Writer:
    """Writes a store's arrays as the documents come; holds only a chunk in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lengths_file = folder / "lengths.tmp"
        self._bytes_file = folder / "bytes.tmp"
        self._token_digest = hashlib.sha256()
        self._n_docs = self._n_tokens = self._n_bytes = 0
        self.content_hash = ""

    def __enter__(self) -> _Writer:
        self._tokens = open(self._folder / TOKENS, "wb")
        self._lengths = open(self._lengths_file, "wb")
        self._bytes = open(self._bytes_file, "wb")
        self._listing = open(self._folder / REJECTED, "w", encoding="utf-8")
        self.rejected = RejectedRows(self._listing)
        return self

    def __exit__(self, *exc: object) -> None:
        for file in (self._tokens, self._lengths, self._bytes, self._listing):
            file.close()

    def add_docs(
        self, tokens: NDArray[Any], lengths: NDArray[np.uint64], doc_bytes: NDArray[np.uint64]
    ) -> None:
        data = tokens.tobytes()
        self._token_digest.update(data)
        self._tokens.write(data)
        self._lengths.write(lengths.tobytes())
        self._bytes.write(doc_bytes.astype(np.uint32).tobytes())
        self._n_docs += len(lengths)
        self._n_tokens += len(tokens)
        self._n_bytes += int(doc_bytes.sum())

    def finish(self) -> dict[str, int]:
        """Write the indexes, once all files are closed, and return the counts."""
        if self._n_docs:
            self._write_indexes()
        self._lengths_file.unlink()
        self._bytes_file.unlink()
        return {
            "n_docs": self._n_docs,
            "n_tokens": self._n_tokens,
            "n_bytes": self._n_bytes,
            "n_rejected": self.rejected.count,
        }

    def _write_indexes(self) -> None:
        lengths = np.memmap(self._lengths_file, np.uint64, "r")
        offsets = np.lib.format.open_memmap(
            self._folder / OFFSETS, "w+", np.uint64, (self._n_docs + 1,)
        )
        offsets[0] = 0
        np.cumsum(lengths, out=offsets[1:])
        offsets.flush()
        np.save(self._folder / DOC_BYTES, np.memmap(self._bytes_file, np.uint32, "r"))
        digest = hashlib.sha256(self._token_digest.digest())
        digest.update(lengths.data)
        self.content_hash = digest.hexdigest()


class _Progress:
    """How many bytes of the input files are read: a bar, on a terminal and if wanted; words."""

    def __init__(self, total_bytes: int, shown: bool, report: Callable[[str], None] | None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("tokenising"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bar.add_task("tokenising", total=total_bytes)
        self._position: dict[Path, int] = {}
        self._total_bytes = total_bytes
        self._report = report
        self._began = time.monotonic()

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def read(self, source: Source, chunk: Chunk) -> None:
        self._bar.advance(self._task, chunk.position - self._position.get(source.path, 0))
        self._position[source.path] = chunk.position
        if self._report is not None:
            self._report(self._in_words(sum(self._position.values())))

    def _in_words(self, done: int) -> str:
        total = max(self._total_bytes, 1)
        minutes = (time.monotonic() - self._began) / 60 * (total / max(done, 1) - 1)
        return (
            f"tokenising: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB ({done / total:.0%}), "
            f"about {minutes:,.0f} minutes left"
        )
