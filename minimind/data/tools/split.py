"""Holds documents out, so that no text is on both sides."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minimind.data.tools.lines import Lines, listing_beside, rejected_file
from minimind.data.tools.outputs import check_outputs
from minimind.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def split(
    paths: Sequence[str],
    train: Path,
    held_out: Path,
    *,
    share: float | None = None,
    count: int | None = None,
    seed: int = 42,
    text_field: str = "text",
    max_bad_rows: int = -1,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write each row, its line unchanged, to one of two files.

    Args:
        share, count: how much to hold out; one of them is None. Where equal texts make
            the exact number impossible, fewer rows are held out, but never none.

    Raises:
        ConfigError, DataError: input or output cannot be used; nothing is written.
    """
    with listing_beside(train) as listing:
        lines = Lines(paths, text_field, listing)
        check_outputs([train, held_out], lines.files, overwrite=overwrite)
        hashes = array("Q")
        for _, row in lines.rows():
            hashes.append(_hash(row.text, seed))
        lines.rejected.refuse_more_than(max_bad_rows)
        wanted = count if share is None else max(1, round(share * lines.n_rows))
        assert wanted is not None
        is_held_out = choose(np.frombuffer(hashes, np.uint64), wanted)
        n_held_out = int(is_held_out.sum())
        if n_held_out == lines.n_rows:
            raise ConfigError(
                f"holding out {wanted} of {lines.n_rows} rows leaves none to train on"
            )
        target = np.full(len(lines.is_row), -1, np.int8)
        target[lines.is_row] = is_held_out
        lines.copy(target, [train, held_out])
    return {
        "train": str(train),
        "eval": str(held_out),
        "rows": lines.n_rows,
        "train_rows": lines.n_rows - n_held_out,
        "eval_rows": n_held_out,
        "share": n_held_out / lines.n_rows,
        "seed": seed,
        "rejected": lines.rejected.to_dict(rejected_file(train)),
    }


def choose(hashes: NDArray[np.uint64], wanted: int) -> NDArray[np.bool_]:
    """Choose the ``wanted`` rows of lowest hash; rows of equal hash all or none.

    Where that cannot be met, fewer are chosen; if the lowest hash alone has more rows, those.
    """
    if wanted >= len(hashes):
        return np.ones(len(hashes), np.bool_)
    border = np.partition(hashes, wanted)[wanted]
    chosen = hashes < border
    return chosen if chosen.any() else hashes == border


def _hash(text: str, seed: int) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode())
    return int.from_bytes(digest.digest(), "little")
