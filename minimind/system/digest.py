"""What a file's content is known by."""

from __future__ import annotations

import hashlib
from pathlib import Path

READ_BYTES = 1 << 20


def sha256_of(path: Path) -> hashlib._Hash:
    """The SHA-256 of a file of any size, which more may be added to."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest
