"""How tokens are stored. Standard library only: a plan of a run asks as well."""

from __future__ import annotations

TOKEN_BYTES = {"uint16": 2, "uint32": 4}
"""The types of a token in a store, and their sizes."""


def token_type(vocab_size: int) -> str:
    """The smallest type that has every id below ``vocab_size``."""
    return next(name for name, size in TOKEN_BYTES.items() if vocab_size <= 1 << 8 * size)
