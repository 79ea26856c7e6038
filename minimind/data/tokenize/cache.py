"""``open_corpus``: the token store of some text files, built at most once for each content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from minimind.data.inputs import Source, find_files
from minimind.data.rows import left_out, nothing_usable, refuse_more_than, row_place
from minimind.data.token_store import FORMAT_VERSION, REJECTED, DamagedStoreError, TokenStore
from minimind.data.tokenize.build import build_store
from minimind.data.tokenize.unfinished import SUFFIX, Building, remove_abandoned, signs_of_life
from minimind.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from minimind.errors import DataError
from minimind.system.durable import take_name

log = logging.getLogger(__name__)

STALL_SECONDS = 60.0
"""A build elsewhere that writes nothing for so long is taken for dead: we build our own."""


def open_corpus(
    paths: Sequence[str],
    tokenizer_path: str = "",
    *,
    text_field: str = "text",
    cache_dir: str = "",
    max_bad_rows: int = -1,
    progress: bool = False,
    report: Callable[[str], None] | None = None,
    n_workers: int | None = None,
) -> TokenStore:
    """Return the token store of ``paths``, tokenising them if no store of them exists.

    Args:
        paths: jsonl files (plain, ``.gz``, ``.zst``) or globs; each file counts once.
        tokenizer_path: a tokenizer folder (``""``: the shipped one).
        cache_dir: where stores live (``""``: ``$MINIMIND_CACHE``, else the user's cache).
        max_bad_rows: more unusable rows than this are an error (-1: never).
        progress: show a progress bar, on a terminal.
        report: told in words, several times a second, how far the work is.
        n_workers: tokenising processes (None: one for each core).

    Raises:
        DataError: a path, the tokenizer or the cache folder cannot be used, no row can, or
            more than ``max_bad_rows`` rows cannot.
    """
    sources = [Source.of(path) for path in find_files(paths)]
    cache = cache_folder(cache_dir)
    key = _key(sources, text_field, tokenizer_fingerprint(tokenizer_path))
    folder = cache / f"tokens-{key}"
    try:
        store = TokenStore.open(folder)
        log.debug("token store %s is up to date", folder)
    except DamagedStoreError:
        store = _build_once(
            folder,
            sources,
            tokenizer_path,
            text_field,
            progress=progress,
            report=report,
            n_workers=n_workers,
        )
    _report_bad_rows(store, max_bad_rows)
    return store


def cache_folder(cache_dir: str = "") -> Path:
    """Return the folder for token stores: the flag, ``$MINIMIND_CACHE``, or the user's cache."""
    given = cache_dir or os.environ.get("MINIMIND_CACHE", "")
    if given:
        return Path(given).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("minimind", appauthor=False)


def _key(sources: Sequence[Source], text_field: str, fingerprint: str) -> str:
    files = [[str(s.path), s.size, s.mtime_ns] for s in sources]
    parts = json.dumps([FORMAT_VERSION, files, text_field, fingerprint])
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


@contextlib.contextmanager
def _cache_errors(cache: Path, *, only_full: bool = False) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if only_full and not full:
            raise
        advice = "point --cache_dir or $MINIMIND_CACHE at a folder that can be written"
        if full:
            advice = "free some space there, or set --cache_dir"
        raise DataError(f"cache folder {cache}: {error.strerror or error}; {advice}") from None


def _build_once(
    folder: Path,
    sources: Sequence[Source],
    tokenizer_path: str,
    text_field: str,
    *,
    progress: bool,
    report: Callable[[str], None] | None,
    n_workers: int | None,
) -> TokenStore:
    """Build the store, or take the one that another process builds meanwhile."""
    cache = folder.parent
    with _cache_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
    with _builders_turn(folder, report):
        with contextlib.suppress(DamagedStoreError):
            return TokenStore.open(folder)
        remove_abandoned(cache)
        tokenizer = load_tokenizer(tokenizer_path)
        with contextlib.ExitStack() as stack:
            with _cache_errors(cache):
                building = stack.enter_context(Building.of(folder))
            with _cache_errors(cache, only_full=True):
                build_store(
                    building.path,
                    sources,
                    tokenizer,
                    text_field=text_field,
                    n_workers=n_workers,
                    progress=progress,
                    report=report,
                    mark=building.mark,
                )
            building.release()
            _refuse_empty(building.path, folder)
            return _publish(building.path, folder)


@contextlib.contextmanager
def _builders_turn(folder: Path, report: Callable[[str], None] | None) -> Iterator[None]:
    """Wait while another process builds this store, but never for one that is dead.

    The lock only saves work: two builds at once are harmless, so where locks do not work,
    or the holder has stopped writing, we go on without it.
    """
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    seen, seen_at = signs_of_life(folder), time.monotonic()
    waiting = False
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            with contextlib.suppress(DamagedStoreError):
                TokenStore.open(folder)
                break
            if (signs := signs_of_life(folder)) != seen:
                seen, seen_at = signs, time.monotonic()
                if report is not None:
                    report("waiting for another process that tokenises the same text")
            if time.monotonic() - seen_at > STALL_SECONDS:
                log.warning("the process that builds %s seems stuck; building it here", folder)
                break
            if not waiting:
                log.info("another process is building %s; waiting for it", folder)
                waiting = True
        except (OSError, NotImplementedError) as error:
            log.warning("no file locks in %s (%s); building without", folder.parent, error)
            break
    try:
        yield
    finally:
        lock.release()


def _refuse_empty(building: Path, folder: Path) -> None:
    """Raise DataError if no document came out; the list of bad rows is kept."""
    meta = json.loads((building / "meta.json").read_bytes())
    if meta["counts"]["n_docs"]:
        return
    first, n_rejected = "", meta["counts"]["n_rejected"]
    if n_rejected:
        listed = folder.with_name(f"{folder.name}-{REJECTED}")
        os.replace(building / REJECTED, listed)
        with open(listed, encoding="utf-8") as file:
            first = f"{row_place(json.loads(file.readline()))} (all: {listed})"
    raise nothing_usable([source["path"] for source in meta["sources"]], n_rejected, first)


def _publish(building: Path, folder: Path) -> TokenStore:
    """Give the finished build its name; if another one was faster, use that."""
    while True:
        try:
            take_name(building, folder)
            return TokenStore.open(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        with contextlib.suppress(DamagedStoreError):
            return TokenStore.open(folder)
        log.warning("the token store %s is damaged; it is replaced", folder)
        _discard(folder)


def _discard(folder: Path) -> None:
    """Remove a damaged store; whoever has it open keeps reading what it has mapped."""
    grave = tempfile.mkdtemp(suffix=SUFFIX, prefix=f"{folder.name}-damaged-", dir=folder.parent)
    with contextlib.suppress(FileNotFoundError):  # another process discarded it
        os.rename(folder, Path(grave) / folder.name)
    shutil.rmtree(grave, ignore_errors=True)


def _report_bad_rows(store: TokenStore, max_bad_rows: int) -> None:
    if not store.n_rejected:
        return
    listed = store.path / REJECTED
    first = row_place(next(store.rejected()))
    refuse_more_than(max_bad_rows, store.n_rejected, f"{first} (all: {listed})")
    log.warning("%s", left_out(store.n_rejected, store.reject_reasons, first, listed))
