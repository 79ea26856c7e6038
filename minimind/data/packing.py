"""Lays documents out in rows of ``max_seq_len`` tokens.

``bestfit``: the documents are cut into *pieces* that fit a row, and pieces share rows.
A document longer than a row is cut so that neighbouring pieces overlap by one token: the
last token of a piece is only predicted there, and only an input in the next. So every
token except each document's first is a target exactly once. Whole documents are combined
best-fit decreasing (https://en.wikipedia.org/wiki/Best-fit_bin_packing). Where that would
leave more than 1 % padding (say, all documents are a bit longer than half a row), the
documents of the emptier rows are laid out anew as one stream that row ends cut wherever
they fall, so that padding stays under 1 % whatever the lengths.

``none``: one document a row, truncated (its EOS stays last) and padded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np

from minimind.data.sampler import SourceRows
from minimind.data.sealed import (
    DIGESTS,
    SUMS,
    DamagedFileError,
    FileSums,
    Seal,
    write_digests,
    write_sums,
)
from minimind.data.token_store import DAMAGE, NOT_THERE, TokenStore
from minimind.errors import DataError
from minimind.system.durable import folder_when_done
from minimind.system.ownership import is_ours, let_read

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from minimind.data.token_store import StoredArray

A = TypeVar("A")

log = logging.getLogger(__name__)

PLAN_VERSION = 1
MAX_PADDING = 0.01
"""Share of positions without a token above which documents are split to fill rows."""

IGNORED = -100
"""The target of a position that is not scored (PyTorch's ``ignore_index``)."""

RowGroup = tuple[list[tuple[int, int]], int]
"""Rows filled alike: (length of pieces, how many of them) pairs, and how many such rows."""

PLAN = "plan.json"
_ARRAYS = ("starts", "lengths", "row_ptr", "targets_per_row", "tokens_per_row")


@dataclass(frozen=True)
class Layout(Generic[A]):
    """Pieces of the token stream, in row order.

    Row ``r`` holds the pieces ``row_ptr[r]:row_ptr[r + 1]``; piece ``p`` is
    ``tokens[starts[p] : starts[p] + lengths[p]]``.
    """

    starts: A
    lengths: A
    row_ptr: A


@dataclass(frozen=True, eq=False)
class RowPlan:
    """What is in each row, and how to build it. Pickling carries paths, not data.

    Attributes:
        targets_per_row: scored positions, shape [n_rows].
        tokens_per_row: real (non-padding) tokens, shape [n_rows].
        fingerprint: SHA-256 (hex) of the content and all that decides the rows; equal
            fingerprints mean equal rows under equal ids.
    """

    store: TokenStore
    pack: str
    max_seq_len: int
    layout: Layout[StoredArray]
    targets_per_row: StoredArray
    tokens_per_row: StoredArray
    fingerprint: str

    @property
    def n_rows(self) -> int:
        return len(self.targets_per_row)

    @property
    def mix(self) -> tuple[SourceRows, ...]:
        """Empty: all rows come from one source, each once an epoch."""
        return ()

    @property
    def fill(self) -> float:
        """Share of all positions that hold a real token."""
        tokens = np.asarray(self.tokens_per_row).sum(dtype=np.int64)
        return float(tokens) / (self.n_rows * self.max_seq_len)

    def __reduce__(self) -> tuple[Any, ...]:
        return plan_rows, (self.store, self.max_seq_len, self.pack)

    def build(self, row_ids: NDArray[Any], batch_size: int) -> dict[str, NDArray[Any]]:
        """Build rows; rows that ``row_ids`` lacks up to ``batch_size`` are all padding.

        Returns:
            arrays of shape [batch_size, max_seq_len]: ``input_ids``; ``targets``, already
            shifted (the token after each position in its piece, else -100);
            ``position_ids`` (from 0 in each piece); ``token_mask`` (True: a real token); and,
            unless each row is one document, ``document_ids`` (the piece's number in its row,
            -1: padding).
        """
        row_ids = np.asarray(row_ids, np.int64)
        first, last = self.layout.row_ptr[row_ids], self.layout.row_ptr[row_ids + 1]
        n_pieces = last - first
        piece_in_row = _ranges(n_pieces)
        pieces = np.repeat(first, n_pieces) + piece_in_row
        lengths = self.layout.lengths[pieces].astype(np.int64)
        within = _ranges(lengths)
        tokens = self.store.tokens[np.repeat(self.layout.starts[pieces], lengths) + within]

        # Pieces stand one after the other in a row, and rows one after the other here, so
        # a token's place is its number among the row's tokens.
        tokens_in_row = self.tokens_per_row[row_ids].astype(np.int64)
        places = np.repeat(np.arange(len(row_ids)) * self.max_seq_len, tokens_in_row)
        places += _ranges(tokens_in_row)

        ends = np.cumsum(lengths) - 1
        targets = np.empty(len(tokens), np.int64)
        targets[:-1] = tokens[1:]
        targets[ends] = IGNORED
        if self.pack == "none" and self.store.eos_id is not None:
            # A truncated document ends with EOS instead of the token that stood there.
            tokens[ends] = self.store.eos_id
            scored = lengths > 1
            targets[ends[scored] - 1] = self.store.eos_id

        pad = next(i for i in (self.store.pad_id, self.store.eos_id, 0) if i is not None)
        shape = (batch_size, self.max_seq_len)

        def laid_out(values: NDArray[Any] | bool, empty: int, dtype: type) -> NDArray[Any]:
            array: NDArray[Any] = np.full(shape, empty, dtype)
            array.reshape(-1)[places] = values
            return array

        batch = {
            "input_ids": laid_out(tokens, pad, np.int64),
            "targets": laid_out(targets, IGNORED, np.int64),
            "position_ids": laid_out(within, 0, np.int64),
            "token_mask": laid_out(True, False, np.bool_),
        }
        if self.pack != "none":
            batch["document_ids"] = laid_out(np.repeat(piece_in_row, lengths), -1, np.int32)
        return batch


def plan_rows(
    store: TokenStore, max_seq_len: int, pack: Literal["bestfit", "none"] = "bestfit"
) -> RowPlan:
    """Return the rows of a store; computed once and kept in the store's folder.

    Raises:
        DataError: no document has two tokens, so that there is nothing to predict.
    """
    if pack not in ("bestfit", "none"):
        raise ValueError(f"pack must be bestfit or none, not {pack!r}")
    parts = json.dumps([PLAN_VERSION, store.content_hash, pack, max_seq_len])
    fingerprint = hashlib.sha256(parts.encode()).hexdigest()
    name = f"{pack}-{max_seq_len}-v{PLAN_VERSION}"
    arrays = _find(store, name, fingerprint)
    if arrays is None:
        arrays = _computed(store, max_seq_len, pack, _plans(store) / name, fingerprint)
    return RowPlan(
        store=store,
        pack=pack,
        max_seq_len=max_seq_len,
        layout=Layout(arrays["starts"], arrays["lengths"], arrays["row_ptr"]),
        targets_per_row=arrays["targets_per_row"],
        tokens_per_row=arrays["tokens_per_row"],
        fingerprint=fingerprint,
    )


def _computed(
    store: TokenStore, max_seq_len: int, pack: str, folder: Path, fingerprint: str
) -> Mapping[str, StoredArray]:
    """Plan the rows, and keep the plan where the store's folder can be written."""
    arrays = _arrays(store, max_seq_len, pack)
    # A cache that cannot be written costs time, no more.
    with contextlib.suppress(OSError):
        _save(folder, fingerprint, arrays)
        return _load(folder, fingerprint) or arrays
    return arrays


def _arrays(store: TokenStore, max_seq_len: int, pack: str) -> dict[str, NDArray[Any]]:
    offsets = np.asarray(store.offsets).astype(np.int64)
    if pack == "none":
        layout = _one_document_a_row(offsets, max_seq_len)
    else:
        layout = pack_bestfit(offsets, max_seq_len)
    if not (layout.lengths > 1).any():
        raise DataError("no document has two tokens: there is nothing to predict")
    per_row = layout.row_ptr[:-1]
    tokens_per_row = np.add.reduceat(layout.lengths, per_row, dtype=np.int32)
    pieces_per_row = np.diff(layout.row_ptr).astype(np.int32)
    return {
        "starts": layout.starts,
        "lengths": layout.lengths,
        "row_ptr": layout.row_ptr,
        "targets_per_row": tokens_per_row - pieces_per_row,
        "tokens_per_row": tokens_per_row,
    }


def _one_document_a_row(offsets: NDArray[np.int64], max_seq_len: int) -> Layout[NDArray[Any]]:
    lengths = np.minimum(np.diff(offsets), max_seq_len).astype(np.int32)
    return Layout(offsets[:-1], lengths, np.arange(len(lengths) + 1))


def pack_bestfit(offsets: NDArray[np.int64], max_seq_len: int) -> Layout[NDArray[Any]]:
    """Lay the documents ``offsets[i]:offsets[i + 1]`` out in rows; see the module's docstring.

    Documents without a target (one token) are left out.
    """
    starts, lengths = _split_long(offsets[:-1], np.diff(offsets), max_seq_len)
    useful = lengths > 1
    starts, lengths = starts[useful], lengths[useful]

    # Pieces of equal length are interchangeable, so the packing works on counts of
    # lengths; which piece goes where follows from the order of the documents.
    by_length = np.argsort(lengths.astype(np.min_scalar_type(max_seq_len)), kind="stable")
    counts = np.bincount(lengths, minlength=max_seq_len + 1)
    next_piece = np.cumsum(counts) - counts
    groups = _best_fit_decreasing(counts, max_seq_len)
    too_empty = _padding(groups, max_seq_len) > MAX_PADDING
    order: list[NDArray[np.int64]] = []
    row_sizes: list[NDArray[np.int64]] = []
    loose: list[NDArray[np.int64]] = []
    for pattern, n_rows in groups:
        columns = []
        for length, times in pattern:
            taken = by_length[next_piece[length] : next_piece[length] + n_rows * times]
            next_piece[length] += n_rows * times
            columns.append(taken.reshape(n_rows, times))
        rows = np.concatenate(columns, axis=1)
        if too_empty and _padding([(pattern, 1)], max_seq_len) > MAX_PADDING:
            loose.append(rows.ravel())
        else:
            order.append(rows.ravel())
            row_sizes.append(np.full(n_rows, rows.shape[1]))
    pieces = np.concatenate(order) if order else np.empty(0, np.int64)
    sizes = np.concatenate(row_sizes) if row_sizes else np.empty(0, np.int64)
    packed: Layout[NDArray[Any]] = Layout(
        starts[pieces], lengths[pieces].astype(np.int32), _pointers(sizes)
    )
    if not loose:
        return packed
    rest = np.sort(np.concatenate(loose))
    return _joined(packed, _stream(starts[rest], lengths[rest], max_seq_len))


def _split_long(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], max_seq_len: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut documents into pieces of at most ``max_seq_len`` that overlap by one token."""
    step = max_seq_len - 1
    n_pieces = np.maximum(1, -(-(lengths - 1) // step))
    shift = _ranges(n_pieces) * step
    left = np.repeat(lengths, n_pieces) - shift
    return np.repeat(starts, n_pieces) + shift, np.minimum(left, max_seq_len)


def _padding(groups: list[RowGroup], max_seq_len: int) -> float:
    """Share of the rows' positions that stay empty."""
    n_rows = sum(n_rows for _, n_rows in groups)
    tokens = sum(n_rows * sum(length * times for length, times in p) for p, n_rows in groups)
    return 1 - tokens / (n_rows * max_seq_len) if n_rows else 0.0


def _best_fit_decreasing(counts: NDArray[np.int64], max_seq_len: int) -> list[RowGroup]:
    """Pack ``counts[length]`` items of each length into bins of ``max_seq_len``.

    Bins of equal content are one group, so the work depends on the lengths, not on how
    many items there are.
    """
    groups: defaultdict[int, list[tuple[Any, int]]] = defaultdict(list)  # room left → groups
    rooms = 0  # a bit for each room that some group has
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            fitting = rooms >> length
            if fitting:
                room = length + (fitting & -fitting).bit_length() - 1
                content, n_bins = groups[room].pop()
                if not groups[room]:
                    rooms ^= 1 << room
            else:
                room, content, n_bins = max_seq_len, None, left
            times = min(room // length, left)
            filled = min(n_bins, left // times)
            if filled < n_bins and room < max_seq_len:
                groups[room].append((content, n_bins - filled))
                rooms |= 1 << room
            left -= filled * times
            room -= times * length
            groups[room].append(((content, length, times), filled))
            rooms |= 1 << room
    return [
        (_content(linked), n_bins) for room in sorted(groups) for linked, n_bins in groups[room]
    ]


def _content(linked: Any) -> list[tuple[int, int]]:
    content = []
    while linked is not None:
        linked, length, times = linked
        content.append((length, times))
    return content[::-1]


def _stream(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], max_seq_len: int
) -> Layout[NDArray[Any]]:
    """Lay pieces out one after the other, cut by row ends with an overlap of one token."""
    ends = np.cumsum(lengths)
    step = max_seq_len - 1
    n_rows = max(1, -(-(int(ends[-1]) - 1) // step))
    # Where something begins in the stream: each piece, and each row. A row's last token
    # is the next row's first.
    row_begins = np.arange(n_rows) * step
    begins = np.concatenate([ends - lengths, row_begins])
    source = np.searchsorted(ends, begins, side="right")
    row = begins // step
    finish = np.minimum(ends[source], row * step + max_seq_len)
    keys = np.lexsort((begins, row))
    begins, source, row, finish = begins[keys], source[keys], row[keys], finish[keys]
    # A piece that begins with its row appears twice, and one token alone has no target.
    useful = finish - begins > 1
    useful[1:] &= (begins[1:] != begins[:-1]) | (row[1:] != row[:-1])
    begins, source, row, finish = begins[useful], source[useful], row[useful], finish[useful]
    sizes = np.bincount(row, minlength=n_rows)
    return Layout(
        starts[source] + begins - (ends - lengths)[source],
        (finish - begins).astype(np.int32),
        _pointers(sizes[sizes > 0]),
    )


def _joined(first: Layout[NDArray[Any]], second: Layout[NDArray[Any]]) -> Layout[NDArray[Any]]:
    return Layout(
        np.concatenate([first.starts, second.starts]),
        np.concatenate([first.lengths, second.lengths]),
        np.concatenate([first.row_ptr, first.row_ptr[-1] + second.row_ptr[1:]]),
    )


def _ranges(counts: NDArray[Any]) -> NDArray[np.int64]:
    """``[2, 3]`` → ``[0, 1, 0, 1, 2]``."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def _pointers(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _plans(store: TokenStore) -> Path:
    """Where plans of a store are kept: in it, or beside it where it is somebody else's."""
    inside = store.path / "plans"
    if not store.path.exists() or is_ours(store.path):
        return inside
    return store.path.with_name(f"{store.path.name}-plans-u{os.geteuid()}")


def _find(store: TokenStore, name: str, fingerprint: str) -> Mapping[str, StoredArray] | None:
    """A plan that is kept, if whoever made it made the store, or is this user."""
    for plans in dict.fromkeys((store.path / "plans", _plans(store))):
        folder = plans / name
        try:
            made_by = {plans.lstat().st_uid, folder.lstat().st_uid}
            is_trusted = is_ours(folder) or made_by == {store.path.stat().st_uid}
            if is_trusted and (found := _load(folder, fingerprint)):
                return found
        except OSError as error:
            if error.errno not in NOT_THERE:
                log.warning("the row plan %s cannot be read: %s; it is made anew", folder, error)
    return None


def _load(folder: Path, fingerprint: str) -> dict[str, StoredArray] | None:
    """Return the plan kept in ``folder``, or None where there is no whole one of this store.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    try:
        description = json.loads((folder / PLAN).read_bytes())
        if description["fingerprint"] != fingerprint:
            return None
        if any((folder / name).stat().st_size != s for name, s in description["files"].items()):
            return None
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        if "digests" not in description and not (folder / SUMS).exists():  # an older version's
            return arrays
        seal = Seal(folder)
        seal.check(PLAN)
        files = {f"{name}.npy": array for name, array in arrays.items()}
        checked = seal.open_arrays(files, description["digests"])
        return dict(zip(_ARRAYS, checked, strict=True))
    except OSError:
        raise
    except (*DAMAGE, RecursionError, DamagedFileError):
        return None


def _is_damaged(folder: Path, fingerprint: str) -> bool:
    try:
        return _load(folder, fingerprint) is None
    except OSError as error:
        return error.errno in NOT_THERE


def _save(folder: Path, fingerprint: str, arrays: dict[str, NDArray[Any]]) -> None:
    def remove_damaged() -> None:
        if not os.path.lexists(folder):
            return
        if is_ours(folder) and _is_damaged(folder, fingerprint):
            log.warning("the row plan %s is damaged; it is replaced", folder)
            shutil.rmtree(folder)

    folder.parent.mkdir(exist_ok=True)
    with folder_when_done(folder, before_rename=remove_damaged) as building:
        for name, array in arrays.items():
            np.save(building / f"{name}.npy", array)
        names = [f"{name}.npy" for name in _ARRAYS]
        sums = {name: FileSums.of(building / name) for name in names}
        description = {
            "fingerprint": fingerprint,
            "files": {name: (building / name).stat().st_size for name in names},
            "digests": write_digests(building, sums),
        }
        (building / PLAN).write_text(json.dumps(description))
        write_sums(building, sums, (*names, PLAN, DIGESTS))
        let_read(building, like=folder.parent.parent)
