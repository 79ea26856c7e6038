"""Which writing system a text is in, by the Unicode blocks of its first letters."""

from __future__ import annotations

import numpy as np

HEAD_CHARS = 256

_BLOCKS = [
    (0x0041, 0x005A, "Latin"),
    (0x0061, 0x007A, "Latin"),
    (0x00C0, 0x024F, "Latin"),
    (0x0370, 0x03FF, "Greek"),
    (0x0400, 0x052F, "Cyrillic"),
    (0x0590, 0x05FF, "Hebrew"),
    (0x0600, 0x077F, "Arabic"),
    (0x0900, 0x097F, "Devanagari"),
    (0x0980, 0x0DFF, "other Indic"),
    (0x0E00, 0x0E7F, "Thai"),
    (0x1100, 0x11FF, "Hangul"),
    (0x1E00, 0x1EFF, "Latin"),
    (0x3040, 0x30FF, "Kana"),
    (0x3400, 0x4DBF, "Han"),
    (0x4E00, 0x9FFF, "Han"),
    (0xAC00, 0xD7AF, "Hangul"),
    (0xF900, 0xFAFF, "Han"),
    (0x20000, 0x323AF, "Han"),
]
"""First and last code point, script (https://www.unicode.org/Public/UNIDATA/Blocks.txt)."""

NO_LETTERS = "no letters"
_NAMES = [NO_LETTERS, *dict.fromkeys(name for *_, name in _BLOCKS)]

# Where a new script begins, and which: blocks and the gaps between them in turn.
_BORDERS = np.array([border for first, last, _ in _BLOCKS for border in (first, last + 1)])
_SCRIPT_FROM = np.array([0, *(i for *_, name in _BLOCKS for i in (_NAMES.index(name), 0))])


def script_of(text: str) -> str:
    """Return the script that most letters in the text's first 256 characters belong to."""
    codes = np.frombuffer(text[:HEAD_CHARS].encode("utf-32-le"), "<u4")
    counts = np.bincount(
        _SCRIPT_FROM[np.searchsorted(_BORDERS, codes, side="right")], minlength=len(_NAMES)
    )
    counts[0] = 0
    return _NAMES[int(counts.argmax())]
