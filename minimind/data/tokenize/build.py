"""From text files to their token store: sources → chunks → encoder processes → arrays.

A store is built at most once for each content (:mod:`minimind.data.tokenize.cache`); here is
how. An interrupted build goes on at its last mark and ends in the very same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from minimind.data.chunks import BEGINNING, CHUNK_BYTES, Chunk, Place
from minimind.data.conversations import ChatTemplate
from minimind.data.inputs import Source, find_files
from minimind.data.rows import (
    RejectedRows,
    left_out,
    nothing_usable,
    read_chunks,
    refuse_more_than,
    refuse_unknown_field,
    row_place,
)
from minimind.data.sealed import DIGESTS, FileSums, write_digests, write_sums
from minimind.data.token_store import (
    DOC_BYTES,
    FORMAT_VERSION,
    META,
    OFFSETS,
    REJECTED,
    SOURCES,
    STORE_ARRAYS,
    TOKENS,
    UNSEALED_VERSION,
    DamagedStoreError,
    TokenStore,
    hash_content,
)
from minimind.data.token_type import token_type
from minimind.data.tokenize.cache import (
    Building,
    Mark,
    builders_turn,
    cache_errors,
    discard,
    remove_abandoned,
    store_folder,
)
from minimind.data.tokenize.encoder import EncoderSpec, encode_in_order
from minimind.data.tokenize.identity import SourceHashes, confirm, is_same_text
from minimind.data.tokenize.lookup import find_store, names_of, own_name
from minimind.data.tokenizer import (
    OWN_TOKENS,
    SpecialTokens,
    load_tokenizer,
    special_tokens,
    tokenizer_fingerprint,
)
from minimind.rundir.data_path import parse_sources
from minimind.system.durable import sync_tree
from minimind.system.ownership import is_ours, open_private, opened_folder
from minimind.system.process import available_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

    from minimind.config import TrainConfig

log = logging.getLogger(__name__)

MARK_SECONDS = 5.0
"""An interruption costs no more work than this."""

STORE_FILES = (*STORE_ARRAYS, REJECTED, SOURCES)
LENGTHS, BYTES = "lengths.tmp", "bytes.tmp"
ARRAYS = (TOKENS, LENGTHS, BYTES)
"""What is written as the documents come; the indexes are made of them at the end."""


def open_corpus(
    paths: Sequence[str],
    tokenizer_path: str = "",
    *,
    text_field: str = "text",
    render_chat: bool = False,
    cache_dir: str = "",
    max_bad_rows: int = -1,
    progress: bool = False,
    report: Callable[[str], None] | None = None,
    n_workers: int | None = None,
    special: SpecialTokens = OWN_TOKENS,
) -> TokenStore:
    """Return the token store of ``paths``, tokenising them if no store of them exists.

    Args:
        paths: files, folders, globs or data sets in the hub's cache; each file counts once.
        tokenizer_path: a tokenizer folder (``""``: the shipped one).
        render_chat: the field holds conversations; their text is what the chat template makes.
        cache_dir: where stores live (``""``: ``$MINIMIND_CACHE``, else the user's cache).
        max_bad_rows: more unusable rows than this are an error (-1: never).
        progress: show a progress bar, on a terminal.
        report: told in words, several times a second, how far the work is.
        n_workers: tokenising processes (None: one for each core).
        special: what begins and ends each document.

    Raises:
        DataError: a path, the tokenizer or the cache folder cannot be used, no row can, or
            more than ``max_bad_rows`` rows cannot.
    """
    sources = [Source.of(path) for path in find_files(paths)]
    fingerprint = tokenizer_fingerprint(tokenizer_path, special)
    chat = ChatTemplate.of(load_tokenizer(tokenizer_path, special)) if render_chat else None
    folder, old = (
        store_folder(cache_dir, sources, text_field, fingerprint, version, chat)
        for version in (FORMAT_VERSION, UNSEALED_VERSION)
    )
    store = _find(folder, sources, report) or _unsealed(old)
    if store is None:
        store = _build_once(
            folder,
            sources,
            tokenizer_path,
            text_field,
            chat,
            progress=progress,
            report=report,
            n_workers=n_workers,
            special=special,
        )
    _report_bad_rows(store, max_bad_rows)
    return store


def find_corpora(config: TrainConfig) -> list[TokenStore] | None:
    """The finished stores of ``--data_path``, one a source; None if one of them is missing.

    They are taken as they are: whether the text has changed since is not looked at.

    Raises:
        DataError: a path, or the tokenizer, cannot be used.
    """
    weighted = parse_sources(config.data_path)
    groups = [[source.path] for source in weighted] if weighted else [config.data_path]
    special = special_tokens(config)
    fingerprint = tokenizer_fingerprint(config.tokenizer_path, special)
    chat = None
    if config.render_chat:
        chat = ChatTemplate.of(load_tokenizer(config.tokenizer_path, special))
    found = []
    for group in groups:
        sources = [Source.of(path) for path in find_files(group)]
        folder = store_folder(config.cache_dir, sources, config.text_field, fingerprint, chat=chat)
        stores = [store for name in names_of(folder) if (store := find_store(name))]
        if not stores:
            return None
        found.append(stores[0])
    return found


def _find(
    folder: Path, sources: Sequence[Source], report: Callable[[str], None] | None
) -> TokenStore | None:
    """The finished store of these sources, a colleague's or our own."""
    stores = (_up_to_date(name, sources, report) for name in names_of(folder))
    return next((store for store in stores if store is not None), None)


def _up_to_date(
    folder: Path, sources: Sequence[Source], report: Callable[[str], None] | None
) -> TokenStore | None:
    """The finished store of these sources; None: it must be built.

    Raises:
        UnreadableStoreError: there is one, and nobody knows what is in it.
    """
    store = find_store(folder)
    if store is None:
        return None
    try:
        if is_same_text(store, sources, report):
            log.debug("token store %s is up to date", folder)
            return store
    except DamagedStoreError as error:
        log.warning("%s; it is replaced", error)
    if is_ours(folder):
        discard(folder)
    return None


def _unsealed(folder: Path) -> TokenStore | None:
    """A store of an older format, which is used as it is."""
    store = find_store(folder)
    if store is None:
        return None
    log.info("the token store %s is of an older format: its content is not checked", folder)
    return store


def _build_once(
    folder: Path,
    sources: Sequence[Source],
    tokenizer_path: str,
    text_field: str,
    chat: ChatTemplate | None,
    *,
    progress: bool,
    report: Callable[[str], None] | None,
    n_workers: int | None,
    special: SpecialTokens,
) -> TokenStore:
    """Build the store, or take the one that another process builds meanwhile."""
    cache = folder.parent
    with cache_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
    folder = own_name(folder)
    with builders_turn(folder, report):
        if store := _find(folder, sources, report):
            return store
        with cache_errors(cache):
            remove_abandoned(cache)
        tokenizer = load_tokenizer(tokenizer_path, special)
        with contextlib.ExitStack() as stack:
            with cache_errors(cache):
                building = stack.enter_context(Building.of(folder))
            with cache_errors(cache, only_full=True):
                build_store(
                    building,
                    sources,
                    tokenizer,
                    text_field=text_field,
                    chat=chat,
                    n_workers=n_workers,
                    progress=progress,
                    report=report,
                )
            return building.publish()


def _report_bad_rows(store: TokenStore, max_bad_rows: int) -> None:
    if not store.n_rejected:
        return
    listed = store.path / REJECTED
    first = row_place(next(store.rejected()))
    refuse_more_than(max_bad_rows, store.n_rejected, f"{first} (all: {listed})")
    log.warning("%s", left_out(store.n_rejected, store.reject_reasons, first, listed))


def build_store(
    building: Building,
    sources: Sequence[Source],
    tokenizer: PreTrainedTokenizerFast,
    *,
    text_field: str,
    chat: ChatTemplate | None = None,
    n_workers: int | None,
    progress: bool,
    report: Callable[[str], None] | None,
) -> None:
    """Tokenise ``sources`` into the folder of ``building`` and make it durable.

    The result is the same, byte for byte, whatever the number of workers and however often
    the work was interrupted. The options are those of :func:`open_corpus`.

    Raises:
        DataError: a source cannot be read, is damaged, changed meanwhile, or no source has
            the field or a usable row.
    """
    began = time.monotonic()
    files = [source.path for source in sources]
    refuse_unknown_field(files, text_field, renders_chat=chat is not None)
    spec = _encoder_spec(tokenizer, text_field, chat)
    if n_workers is None:
        n_chunks = 1 + sum(source.size for source in sources) // CHUNK_BYTES
        n_workers = min(available_cores(), n_chunks)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(StoreWriter(building.path, spec.dtype, building.mark))
        bar = stack.enter_context(_Progress(sources, progress, report))
        hashes = stack.enter_context(SourceHashes(sources))
        if mark := writer.begins_at:
            log.info("going on with an interrupted build: %d documents are done", writer.n_docs)
            bar.begin_at(mark)
        encoding = encode_in_order(_chunks(sources, mark, text_field), spec, n_workers)
        for number, chunk, encoded in stack.enter_context(contextlib.closing(encoding)):
            source = sources[number]
            writer.add_docs(encoded.tokens, encoded.lengths, encoded.doc_bytes)
            writer.rejected.add(source.path, chunk.rejected(encoded.bad_rows))
            writer.mark_now_and_then(number, chunk.end)
            bar.read(source, chunk)
        writer.mark(len(sources), BEGINNING)
        rows = hashes.rows()
    for source in sources:
        source.refuse_change()
    if not writer.n_docs:
        rejected = writer.rejected
        listed = f" (all: {building.keep_listing()})" if rejected.count else ""
        raise nothing_usable((s.path for s in sources), rejected.count, rejected.first + listed)
    confirm(building.path, hashes.settled())
    writer.finish(rows, tokenizer)
    seconds = time.monotonic() - began
    log.info(
        "tokenised %d documents (%d tokens, %.1f MB of text) in %.1f s (%.1f MB/s, %d processes)",
        writer.n_docs,
        writer.n_tokens,
        writer.n_bytes / 1e6,
        seconds,
        writer.n_bytes / 1e6 / seconds,
        n_workers,
    )


def _encoder_spec(
    tokenizer: PreTrainedTokenizerFast, text_field: str, chat: ChatTemplate | None
) -> EncoderSpec:
    # A chat template writes what belongs around a conversation.
    wraps = chat is None
    return EncoderSpec(
        tokenizer_json=tokenizer.backend_tokenizer.to_str(),
        bos_id=tokenizer.bos_token_id if wraps else None,
        eos_id=tokenizer.eos_token_id if wraps else None,
        dtype=token_type(_vocab_size(tokenizer)),
        text_field=text_field,
        chat=chat,
    )


def _vocab_size(tokenizer: PreTrainedTokenizerFast) -> int:
    """One more than the largest id, whether each below it is used or not."""
    return max(tokenizer.get_vocab().values()) + 1


def _chunks(
    sources: Sequence[Source], mark: Mark | None, text_field: str
) -> Iterator[tuple[int, Chunk]]:
    """All sources in chunks, each with its source's number; those before ``mark`` left out."""
    for number, source in enumerate(sources):
        if mark is not None and number < mark.source:
            continue
        start = mark.place if mark is not None and number == mark.source else BEGINNING
        for chunk in read_chunks(source.path, start, text_field):
            yield number, chunk


class _DamagedError(Exception):
    """What lies in the folder is not what its mark says."""


class StoreWriter:
    """Fills a folder with the arrays of a store.

    Args:
        folder: an existing folder, which only this user may write.
        dtype: of a token.
        mark: how far an interrupted build in this folder had come.

    Attributes:
        begins_at: ``mark`` if the folder holds what that says; None: this build starts afresh.
        rejected: the rows that were left out.
    """

    def __init__(self, folder: Path, dtype: str, mark: Mark | None) -> None:
        self._folder = folder
        self._dtype = np.dtype(dtype)
        self._marked_at = time.monotonic()
        self.n_docs = self.n_tokens = self.n_bytes = 0
        self.begins_at = mark

    def __enter__(self) -> StoreWriter:
        if self.begins_at is not None:
            try:
                self._restore(self.begins_at)
            except (_DamagedError, OSError, ValueError, LookupError, TypeError) as error:
                log.warning("an interrupted build is begun anew: %s", error)
                self.begins_at = None
        if self.begins_at is None:
            Mark.remove(self._folder)
            self.n_docs = self.n_tokens = self.n_bytes = 0
            self._open("w")
        return self

    def _open(self, mode: Literal["w", "a"]) -> None:
        """Open the files, by a folder and names that lead nowhere else whoever changes them."""
        with contextlib.ExitStack() as opened, opened_folder(self._folder) as folder:
            user = os.fstat(folder).st_uid

            def private(name: str, flags: int) -> int:
                return open_private(name, flags & ~os.O_TRUNC, user, dir_fd=folder)

            self._files: dict[str, IO[bytes]] = {
                name: opened.enter_context(open(name, f"{mode}b", opener=private))
                for name in ARRAYS
            }
            self._listing = opened.enter_context(
                open(REJECTED, f"{mode}+", encoding="utf-8", opener=private)
            )
            if mode == "w":
                for file in (*self._files.values(), self._listing):
                    file.truncate(0)
            self._opened = opened.pop_all()
        self._sums = {name: FileSums.of(self._folder / name) for name in ARRAYS}
        self.rejected = RejectedRows(self._listing)

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def add_docs(
        self, tokens: NDArray[Any], lengths: NDArray[np.uint64], doc_bytes: NDArray[np.uint64]
    ) -> None:
        self._write(TOKENS, tokens.tobytes())
        self._write(LENGTHS, lengths.tobytes())
        self._write(BYTES, doc_bytes.astype(np.uint32).tobytes())
        self.n_docs += len(lengths)
        self.n_tokens += len(tokens)
        self.n_bytes += int(doc_bytes.sum())

    def _write(self, name: str, data: bytes) -> None:
        self._files[name].write(data)
        self._sums[name].update(data)

    def mark_now_and_then(self, source: int, place: Place) -> None:
        """Let a build that is interrupted after this begin again here, or a little before."""
        if time.monotonic() - self._marked_at >= MARK_SECONDS:
            self.mark(source, place)

    def mark(self, source: int, place: Place) -> None:
        """Let a build that is interrupted after this begin again here."""
        sizes = {}
        files: dict[str, IO[Any]] = {**self._files, REJECTED: self._listing}
        for name, file in files.items():
            file.flush()
            sizes[name] = os.fstat(file.fileno()).st_size
        Mark(source, place, sizes, self._digest(source, place, sizes)).write(self._folder)
        self._marked_at = time.monotonic()

    def _digest(self, source: int, place: Place, sizes: dict[str, int]) -> str:
        whole = hashlib.sha256(repr((source, place, sorted(sizes.items()))).encode())
        for name in ARRAYS:
            whole.update(self._sums[name].sha256.digest())
        return whole.hexdigest()

    def _restore(self, mark: Mark) -> None:
        """Take up what an interrupted build left, and cut off what came after its mark.

        Raises:
            _DamagedError, OSError, ValueError, LookupError, TypeError: it is not what it was.
        """
        for name in (*ARRAYS, REJECTED):
            if os.lstat(self._folder / name).st_size < mark.sizes[name]:
                raise _DamagedError(f"{name} is cut off")
        self._open("a")
        try:
            for name, file in {**self._files, REJECTED: self._listing}.items():
                file.truncate(mark.sizes[name])
            if self._digest(mark.source, mark.place, mark.sizes) != mark.digest:
                raise _DamagedError("it is not what its mark says")
            self._listing.seek(0)
            self.rejected.count_listed(self._listing)
        except BaseException:
            self._opened.close()
            raise
        self.n_docs = mark.sizes[LENGTHS] // np.dtype(np.uint64).itemsize
        self.n_tokens = mark.sizes[TOKENS] // self._dtype.itemsize
        if self.n_docs:
            doc_bytes = np.memmap(self._folder / BYTES, np.uint32, "r")
            self.n_bytes = int(doc_bytes.sum(dtype=np.uint64))

    def finish(
        self, sources: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerFast
    ) -> None:
        """Write the indexes and descriptions, once all files are closed; make it all durable."""
        content_hash = self._write_indexes()
        _write_sources(self._folder / SOURCES, sources)
        arrays = {
            TOKENS: self._sums[TOKENS],
            **{name: FileSums.of(self._folder / name) for name in (OFFSETS, DOC_BYTES)},
        }
        meta = {
            "format_version": FORMAT_VERSION,
            "dtype": self._dtype.name,
            "counts": {
                "n_docs": self.n_docs,
                "n_tokens": self.n_tokens,
                "n_bytes": self.n_bytes,
                "n_rejected": self.rejected.count,
            },
            "content_hash": content_hash,
            "tokenizer": {
                "vocab_size": _vocab_size(tokenizer),
                "bos_id": tokenizer.bos_token_id,
                "eos_id": tokenizer.eos_token_id,
                "pad_id": tokenizer.pad_token_id,
            },
            "reject_reasons": dict(self.rejected.reasons),
            "files": {name: (self._folder / name).stat().st_size for name in STORE_FILES},
            "arrays": self._how_to_map(),
            "digests": write_digests(self._folder, arrays),
        }
        (self._folder / META).write_text(json.dumps(meta, indent=2), encoding="utf-8")
        Mark.remove(self._folder)
        for name in (LENGTHS, BYTES):
            (self._folder / name).unlink()
        write_sums(self._folder, arrays, (*STORE_FILES, META, DIGESTS))
        sync_tree(self._folder)

    def _write_indexes(self) -> str:
        """Write where documents begin and how many bytes each has; return the content's hash."""
        lengths = np.memmap(self._folder / LENGTHS, np.uint64, "r")
        offsets = np.lib.format.open_memmap(
            self._folder / OFFSETS, "w+", np.uint64, (self.n_docs + 1,)
        )
        offsets[0] = 0
        np.cumsum(lengths, out=offsets[1:])
        offsets.flush()
        np.save(self._folder / DOC_BYTES, np.memmap(self._folder / BYTES, np.uint32, "r"))
        return hash_content(self._sums[TOKENS].sha256.digest(), lengths)

    def _how_to_map(self) -> dict[str, dict[str, Any]]:
        """For readers that know nothing of numpy: each array's type, and where in its file."""
        arrays: dict[str, NDArray[Any]] = {
            TOKENS: np.memmap(self._folder / TOKENS, self._dtype, "r"),
            OFFSETS: np.load(self._folder / OFFSETS, mmap_mode="r"),
            DOC_BYTES: np.load(self._folder / DOC_BYTES, mmap_mode="r"),
        }
        return {
            name: {"dtype": array.dtype.str, "offset": array.offset, "length": len(array)}
            for name, array in arrays.items()
            if isinstance(array, np.memmap)
        }


def _write_sources(path: Path, sources: Sequence[Mapping[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(source, ensure_ascii=False) + "\n" for source in sources)


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
