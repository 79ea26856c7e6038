from __future__ import annotations

import math
from typing import Any

import pytest

from minimind.system.validators import is_finite, is_number, is_whole, is_word, is_word_list


@pytest.mark.parametrize(
    ("value", "whole", "number", "finite"),
    [
        (0, True, True, True),
        (7, True, True, True),
        (-7, False, True, True),
        (1.5, False, True, True),
        (math.nan, False, True, False),
        (-math.inf, False, True, False),
        (True, False, False, False),
        (1 << 62, False, False, False),
        (1e300, False, True, False),
        ("7", False, False, False),
        (None, False, False, False),
    ],
)
def test_numbers(value: Any, whole: bool, number: bool, finite: bool) -> None:
    assert (is_whole(value), is_number(value), is_finite(value)) == (whole, number, finite)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("node-1", True), ("", True), ("a\nb", False), ("\x1b[2J", False), ("a" * 256, False)],
)
def test_words(value: Any, expected: bool) -> None:
    assert is_word(value) == expected
    assert is_word_list([value]) == expected
