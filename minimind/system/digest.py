"""What a file's content is known by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

READ_BYTES = 1 << 20


def sha256_of(path: Path, each_block: Callable[[], None] = lambda: None) -> hashlib._Hash:
    """The SHA-256 of a file of any size, which more may be added to.

    Args:
        each_block: called after each megabyte.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
            each_block()
    return digest
