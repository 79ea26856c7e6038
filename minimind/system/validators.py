"""What a value that was read from a file may be. Standard library only."""

from __future__ import annotations

import math
from typing import Any

MOST = 1 << 62
"""Whole numbers are smaller, so that whoever computes with them, in whatever type, can."""

LONGEST_WORD = 255


def is_whole(value: Any) -> bool:
    """A whole number from 0 on; True and False are none."""
    return type(value) is int and 0 <= value < MOST


def is_number(value: Any) -> bool:
    """Any number, also NaN and infinity; True and False are none."""
    return isinstance(value, float) or (type(value) is int and abs(value) < MOST)


def is_finite(value: Any) -> bool:
    """A number to compute with."""
    return is_number(value) and math.isfinite(value) and abs(value) < MOST


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_word(value: Any) -> bool:
    """A name of something, which goes into a table on a terminal."""
    return isinstance(value, str) and len(value) <= LONGEST_WORD and value.isprintable()


def is_word_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_word, value))
