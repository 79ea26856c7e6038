"""The token store: a folder of memory-mapped arrays that holds a tokenised corpus.

=================  ==========================================================================
``tokens.bin``     all documents' token ids, one after the other (uint16, or uint32 for a
                   vocabulary of more than 65,536)
``offsets.npy``    uint64 [n_docs + 1]: document ``i`` is ``tokens[offsets[i]:offsets[i + 1]]``
``bytes.npy``      uint32 [n_docs]: UTF-8 bytes of each document's text
``rejected.jsonl`` the rows that were left out: file, line, reason, preview
``sources.jsonl``  the text files: path, size, time of last modification, SHA-256
``meta.json``      counts, hashes, and how to map each array
``digests.bin``    of each block of the arrays (see :mod:`minimind.data.sealed`)
``SHA256SUMS``     of all files above; written last
``confirmed.json`` when each text file had last changed in any way (not sealed)
``plans/``         cached row plans (see :mod:`minimind.data.packing`)
=================  ==========================================================================

Version 1 had its sources in ``meta.json``, and neither digests nor sums: it is still opened, and
what is in its arrays is taken on trust.
"""

from __future__ import annotations

import errno
import hashlib
import json
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minimind.data.sealed import SUMS, CheckedArray, DamagedFileError, Seal
from minimind.data.token_type import TOKEN_BYTES
from minimind.errors import EXIT_CRASHED, EXIT_USER_ERROR, DataError, MiniMindError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    StoredArray = CheckedArray | NDArray[Any]

FORMAT_VERSION = 2
UNSEALED_VERSION = 1
"""The last format of stores without digests."""

TOKENS, OFFSETS, DOC_BYTES = "tokens.bin", "offsets.npy", "bytes.npy"
STORE_ARRAYS = (TOKENS, OFFSETS, DOC_BYTES)
REJECTED, SOURCES, META = "rejected.jsonl", "sources.jsonl", "meta.json"
HASHED_AT_ONCE = 1 << 22


DAMAGE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    # numpy reads the header of an array with Python's own tokenizer.
    *(SyntaxError, tokenize.TokenError),
)
"""What a damaged description or array makes json and numpy raise."""


NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""What the system says of a file that is missing, or no file. All else says nothing about it."""


class DamagedStoreError(Exception):
    """A store's folder is incomplete or does not fit its own description."""


class UnreadableStoreError(MiniMindError):
    """What is in a store cannot be seen now; so nobody knows whether it is damaged.

    ``forbidden``: this user may not read it. Otherwise the file system fails, and a later start
    may find it well.
    """

    def __init__(self, message: str, forbidden: bool = False) -> None:
        super().__init__(message)
        self.forbidden = forbidden
        self.exit_code = EXIT_USER_ERROR if forbidden else EXIT_CRASHED

    @staticmethod
    def of(folder: Path, error: OSError) -> UnreadableStoreError:
        forbidden = error.errno in (errno.EACCES, errno.EPERM)
        text = f"{error.filename or folder}: cannot be read: {error.strerror or error}"
        if forbidden:
            text += f"; its owner can let others read it: chmod -R go+rX {folder}"
        return UnreadableStoreError(text, forbidden)

    def __reduce__(self) -> tuple[Any, ...]:
        return UnreadableStoreError, (str(self), self.forbidden)


@dataclass(frozen=True, eq=False)
class TokenStore:
    """A tokenised corpus, memory-mapped read-only. Pickling carries the path, not the data.

    Attributes:
        tokens: ids of all documents, shape [n_tokens].
        offsets: where documents begin and end in ``tokens``, shape [n_docs + 1].
        doc_bytes: UTF-8 bytes of each document's text, shape [n_docs].
        content_hash: SHA-256 (hex) of the tokens and the documents' lengths; unlike the
            folder's name it does not depend on where the text came from.
        bos_id, eos_id, pad_id: None where the tokenizer has none.
    """

    path: Path
    tokens: StoredArray
    offsets: StoredArray
    doc_bytes: StoredArray
    n_docs: int
    n_tokens: int
    n_bytes: int
    n_rejected: int
    content_hash: str
    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    reject_reasons: dict[str, int]

    @staticmethod
    def open(path: Path) -> TokenStore:
        """Open a store whose files have the sizes that its ``meta.json`` says.

        Raises:
            DamagedStoreError: a file is missing, has another size or another format.
            UnreadableStoreError: it cannot be read, which is another thing.
        """
        try:
            meta = json.loads((path / META).read_bytes())
            if meta["format_version"] not in (UNSEALED_VERSION, FORMAT_VERSION):
                raise DamagedStoreError(f"{path}: format {meta['format_version']}")
            if meta["dtype"] not in TOKEN_BYTES:
                raise DamagedStoreError(f"{path}: tokens of type {meta['dtype']}")
            for name, size in meta["files"].items():
                if (found := (path / name).stat().st_size) != size:
                    raise DamagedStoreError(f"{path / name}: {found} bytes, not {size}")
            tokens, offsets, doc_bytes = _open_arrays(path, meta)
            store = TokenStore(
                path=path,
                tokens=tokens,
                offsets=offsets,
                doc_bytes=doc_bytes,
                **meta["counts"],
                content_hash=meta["content_hash"],
                **meta["tokenizer"],
                reject_reasons=meta["reject_reasons"],
            )
            store._check()
            return store
        except DamagedFileError as error:
            raise DamagedStoreError(str(error)) from None
        except OSError as error:
            raise _what_it_says(error, path) from None
        except DAMAGE as error:
            raise DamagedStoreError(f"{path}: {error}") from None
        except (RecursionError, MemoryError):
            raise DamagedStoreError(f"{path}: nested too deeply") from None

    def _check(self) -> None:
        """Compare what is known twice; no more than a look at each file's beginning and end.

        Raises:
            ValueError: the arrays are not those that the counts are of.
        """
        numbers = (self.n_docs, self.n_tokens, self.n_bytes, self.n_rejected, self.vocab_size)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"counts {numbers}")
        ids = (self.bos_id, self.eos_id, self.pad_id)
        if not all(i is None or (type(i) is int and 0 <= i < self.vocab_size) for i in ids):
            raise ValueError(f"special ids {ids}")
        if not (isinstance(self.content_hash, str) and isinstance(self.reject_reasons, dict)):
            raise ValueError("no content hash, or no reasons")
        arrays = (
            (self.tokens, self.tokens.dtype, self.n_tokens),
            (self.offsets, np.uint64, self.n_docs + 1),
            (self.doc_bytes, np.uint32, self.n_docs),
        )
        for array, dtype, length in arrays:
            if array.dtype != dtype or array.shape != (length,):
                raise ValueError(f"{array.dtype} {array.shape}, not {length} numbers")
        if self.offsets[0] != 0 or self.offsets[-1] != self.n_tokens:
            raise ValueError("the offsets do not span the tokens")

    def hash_of_content(self) -> str:
        """Compute what ``content_hash`` should be; reads all tokens, in bounded memory."""
        digest = hashlib.sha256()
        for start in range(0, len(self.tokens), HASHED_AT_ONCE):
            digest.update(self.tokens[start : start + HASHED_AT_ONCE].tobytes())
        return hash_content(digest.digest(), np.diff(self.offsets))

    def sources(self) -> list[dict[str, Any]]:
        """The text files that the store was made of.

        Raises:
            DamagedStoreError: their list is not what was written.
            UnreadableStoreError: it cannot be read.
        """
        try:
            if not (self.path / SOURCES).exists():
                return list(json.loads((self.path / META).read_bytes())["sources"])
            Seal(self.path).check(SOURCES)
            return [json.loads(line) for line in (self.path / SOURCES).read_bytes().splitlines()]
        except OSError as error:
            raise _what_it_says(error, self.path) from None
        except (DamagedFileError, *DAMAGE) as error:
            raise DamagedStoreError(f"{self.path / SOURCES}: {error}") from None

    def rejected(self) -> Iterator[dict[str, Any]]:
        """Yield the rows that were left out, as ``rejected.jsonl`` lists them."""
        with open(self.path / REJECTED, encoding="utf-8") as file:
            yield from map(json.loads, file)

    def __reduce__(self) -> tuple[Any, ...]:
        return _same_store, (self.path, self.content_hash)


def _what_it_says(error: OSError, folder: Path) -> Exception:
    if error.errno in NOT_THERE:
        return DamagedStoreError(f"{folder}: {error}")
    return UnreadableStoreError.of(folder, error)


def _same_store(path: Path, content_hash: str) -> TokenStore:
    """The store again, in another process; not another that has been put in its place.

    Raises:
        DataError: it is another, or damaged.
    """
    try:
        store = TokenStore.open(path)
    except DamagedStoreError as error:
        raise DataError(f"{error}: it was changed while in use; start again") from None
    if store.content_hash != content_hash:
        raise DataError(f"{path}: another text was tokenised there meanwhile; start again")
    return store


def _open_arrays(path: Path, meta: dict[str, Any]) -> Sequence[StoredArray]:
    arrays = {
        TOKENS: np.memmap(path / TOKENS, meta["dtype"], "r"),
        OFFSETS: np.load(path / OFFSETS, mmap_mode="r"),
        DOC_BYTES: np.load(path / DOC_BYTES, mmap_mode="r"),
    }
    if meta["format_version"] == UNSEALED_VERSION and not (path / SUMS).exists():
        return list(arrays.values())
    seal = Seal(path)
    seal.check(META)
    return seal.open_arrays(arrays, meta["digests"])


def hash_content(sha256_of_tokens: bytes, lengths: NDArray[np.uint64]) -> str:
    """Return a store's ``content_hash``: equal texts cut into other documents differ, too."""
    digest = hashlib.sha256(sha256_of_tokens)
    digest.update(lengths.data)
    return digest.hexdigest()
