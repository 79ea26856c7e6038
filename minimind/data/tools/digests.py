"""Finds equal texts among any number of them, in little memory: their digests go to disk."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_BUCKETS = 256
"""Equal digests meet in the bucket of their first byte; one bucket at a time is in memory."""

BUFFER_BYTES = 1 << 14

_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("number", "<u8")])


class DigestTable:
    """BLAKE2b digests of 128 bits, 24 bytes a text on disk.

    Two different texts of a trillion have the same digest with a probability under 1e-14.

    Args:
        folder: an existing, empty folder for the buckets.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"{bucket:02x}.digests" for bucket in range(N_BUCKETS)]
        with contextlib.ExitStack() as opened:
            self._files = [
                opened.enter_context(open(path, "wb", BUFFER_BYTES)) for path in self._paths
            ]
            self._opened = opened.pop_all()

    def __enter__(self) -> DigestTable:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def add(self, text: str, number: int) -> None:
        """Note a text under its number."""
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        self._files[digest[0]].write(digest + number.to_bytes(8, "little"))

    def repeats(self, n_numbers: int) -> NDArray[np.bool_]:
        """Tell, for each number below ``n_numbers``, whether a lower one has an equal text."""
        for file in self._files:
            file.flush()
        repeated = np.zeros(n_numbers, np.bool_)
        for path in self._paths:
            records = np.fromfile(path, _RECORD)
            # Numbers came in rising order, and the sort is stable.
            records = records[np.lexsort((records["low"], records["high"]))]
            later, earlier = records[1:], records[:-1]
            equal = (later["high"] == earlier["high"]) & (later["low"] == earlier["low"])
            repeated[later["number"][equal]] = True
        return repeated
