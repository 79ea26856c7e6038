"""The end of a file that others write to: what is new in it, and its last lines."""

from __future__ import annotations

import codecs
from pathlib import Path

LARGEST_TAIL = 1 << 16
"""Bytes that the last lines may be, however long they are."""


class Tail:
    """What a file has gained since the last look, as text.

    A character whose bytes are not all there yet waits for the next look.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self) -> str:
        """What is new; "" while there is no file."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return ""
        self._offset += len(data)
        return self._decoder.decode(data)


def last_lines(path: Path, count: int) -> str:
    """The last lines of a file of any size, without blank ones around them; "" without a file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LARGEST_TAIL))
            text = file.read(LARGEST_TAIL).decode(errors="replace").strip()
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])
