"""Builds a token store in a folder: sources → chunks → encoder processes → arrays."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from minimind.data.inputs import Source
from minimind.data.rows import BEGINNING, CHUNK_BYTES, Chunk, read_chunks
from minimind.data.token_store import (
    DOC_BYTES,
    FORMAT_VERSION,
    META,
    OFFSETS,
    REJECTED,
    TOKENS,
)
from minimind.data.tokenize.encoder import EncoderSpec, encode_in_order
from minimind.data.tokenize.unfinished import Mark
from minimind.data.tokenize.writer import StoreWriter
from minimind.system.durable import sync_tree
from minimind.system.process import available_cores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

STORE_FILES = (TOKENS, OFFSETS, DOC_BYTES, REJECTED)


def build_store(
    folder: Path,
    sources: Sequence[Source],
    tokenizer: PreTrainedTokenizerFast,
    *,
    text_field: str,
    n_workers: int | None = None,
    progress: bool = False,
    report: Callable[[str], None] | None = None,
    mark: Mark | None = None,
) -> None:
    """Tokenise ``sources`` into the existing ``folder`` and make it durable.

    The result is the same, byte for byte, whatever the number of workers and however often
    the work was interrupted. ``progress`` and ``report`` are those of
    :func:`minimind.data.tokenize.cache.open_corpus`; ``mark`` is how far ``folder`` has come.

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
    if n_workers is None:
        n_chunks = 1 + sum(source.size for source in sources) // CHUNK_BYTES
        n_workers = min(available_cores(), n_chunks)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(StoreWriter(folder, spec.dtype, mark))
        bar = stack.enter_context(_Progress(sources, progress, report))
        if mark := writer.begins_at:
            log.info("going on with an interrupted build: %d documents are done", writer.n_docs)
            bar.begin_at(mark)
        encoding = encode_in_order(_chunks(sources, mark), spec, n_workers)
        for number, chunk, encoded in stack.enter_context(contextlib.closing(encoding)):
            source = sources[number]
            writer.add_docs(encoded.tokens, encoded.lengths, encoded.doc_bytes)
            writer.rejected.add(source.path, encoded.bad_rows)
            if chunk.too_long:
                writer.rejected.add(source.path, [chunk.too_long])
            writer.mark_now_and_then(number, chunk.end)
            bar.read(source, chunk)
        writer.mark(len(sources), BEGINNING)
    for source in sources:
        source.refuse_change()
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
    sync_tree(folder)
    writer.remove_scaffolding()
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


def _chunks(sources: Sequence[Source], mark: Mark | None) -> Iterator[tuple[int, Chunk]]:
    """All sources in chunks, each with its source's number; those before ``mark`` left out."""
    for number, source in enumerate(sources):
        if mark is not None and number < mark.source:
            continue
        start = mark.place if mark is not None and number == mark.source else BEGINNING
        for chunk in read_chunks(source.path, start):
            yield number, chunk


class _Progress:
    """How many bytes of the input files are read: a bar, on a terminal and if wanted; words."""

    def __init__(
        self, sources: Sequence[Source], shown: bool, report: Callable[[str], None] | None
    ) -> None:
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
        self._sources = sources
        self._total_bytes = sum(source.size for source in sources)
        self._task = self._bar.add_task("tokenising", total=self._total_bytes)
        self._position: dict[Path, int] = {}
        self._done_before: int | None = 0
        self._report = report
        self._began = time.monotonic()

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def begin_at(self, mark: Mark) -> None:
        """Count what an interrupted build had read; where in a file, the next read tells."""
        for source in self._sources[: mark.source]:
            self._bar.advance(self._task, source.size)
            self._position[source.path] = source.size
        self._done_before = None

    def read(self, source: Source, chunk: Chunk) -> None:
        self._bar.advance(self._task, chunk.position - self._position.get(source.path, 0))
        self._position[source.path] = chunk.position
        done = sum(self._position.values())
        if self._done_before is None:
            self._done_before = done
        if self._report is not None:
            self._report(self._in_words(done, done - self._done_before))

    def _in_words(self, done: int, done_now: int) -> str:
        total = max(self._total_bytes, 1)
        words = f"tokenising: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB ({done / total:.0%})"
        if not done_now:
            return words
        minutes = (time.monotonic() - self._began) / 60 * (total - done) / done_now
        return f"{words}, about {minutes:,.0f} minutes left"
