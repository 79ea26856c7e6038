"""Writes a store's arrays as the documents come; holds only a chunk in memory."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from minimind.data.rows import Place, RejectedRows
from minimind.data.token_store import DOC_BYTES, OFFSETS, REJECTED, TOKENS
from minimind.data.tokenize.unfinished import Mark

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

MARK_SECONDS = 5.0
"""An interruption costs no more work than this."""

LENGTHS, BYTES = "lengths.tmp", "bytes.tmp"
ARRAYS = (TOKENS, LENGTHS, BYTES)
READ_BYTES = 1 << 22


class _DamagedError(Exception):
    """What lies in the folder is not what its mark says."""


class StoreWriter:
    """Fills a folder with the arrays of a store.

    Args:
        folder: an existing folder.
        dtype: of a token.
        mark: how far an interrupted build in this folder had come.

    Attributes:
        begins_at: ``mark`` if the folder holds what that says; None: this build starts afresh.
        rejected: the rows that were left out.
        content_hash: see :class:`minimind.data.token_store.TokenStore`; known once finished.
    """

    def __init__(self, folder: Path, dtype: str, mark: Mark | None) -> None:
        self._folder = folder
        self._dtype = np.dtype(dtype)
        self._marked_at = time.monotonic()
        self.n_docs = self.n_tokens = self.n_bytes = 0
        self.content_hash = ""
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
        with contextlib.ExitStack() as opened:
            self._files: dict[str, IO[bytes]] = {
                name: opened.enter_context(open(self._folder / name, f"{mode}b")) for name in ARRAYS
            }
            self._listing = opened.enter_context(
                open(self._folder / REJECTED, f"{mode}+", encoding="utf-8")
            )
            self._opened = opened.pop_all()
        self._digests = {name: _sha256(self._folder / name) for name in ARRAYS}
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
        self._digests[name].update(data)

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
            whole.update(self._digests[name].digest())
        return whole.hexdigest()

    def _restore(self, mark: Mark) -> None:
        """Take up what an interrupted build left, and cut off what came after its mark.

        Raises:
            _DamagedError, OSError, ValueError, LookupError, TypeError: it is not what it was.
        """
        for name in (*ARRAYS, REJECTED):
            if (self._folder / name).stat().st_size < mark.sizes[name]:
                raise _DamagedError(f"{name} is cut off")
            os.truncate(self._folder / name, mark.sizes[name])
        self._open("a")
        try:
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

    def finish(self) -> dict[str, int]:
        """Write the indexes, once all files are closed, and return the counts."""
        if self.n_docs:
            self._write_indexes()
        return {
            "n_docs": self.n_docs,
            "n_tokens": self.n_tokens,
            "n_bytes": self.n_bytes,
            "n_rejected": self.rejected.count,
        }

    def _write_indexes(self) -> None:
        lengths = np.memmap(self._folder / LENGTHS, np.uint64, "r")
        offsets = np.lib.format.open_memmap(
            self._folder / OFFSETS, "w+", np.uint64, (self.n_docs + 1,)
        )
        offsets[0] = 0
        np.cumsum(lengths, out=offsets[1:])
        offsets.flush()
        np.save(self._folder / DOC_BYTES, np.memmap(self._folder / BYTES, np.uint32, "r"))
        digest = hashlib.sha256(self._digests[TOKENS].digest())
        digest.update(lengths.data)
        self.content_hash = digest.hexdigest()

    def remove_scaffolding(self) -> None:
        """Remove what only an interrupted build needs."""
        Mark.remove(self._folder)
        for name in (LENGTHS, BYTES):
            (self._folder / name).unlink()


def _sha256(path: Path) -> hashlib._Hash:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest
