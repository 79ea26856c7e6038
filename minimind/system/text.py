"""What a text may hold."""

from __future__ import annotations


def is_utf8(text: str) -> bool:
    """False for a text that no file in UTF-8 can hold, such as a file's name in Latin-1."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
