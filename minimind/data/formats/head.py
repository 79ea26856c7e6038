"""How a file begins and how it was called: all that a format is recognised by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from minimind.data.compression import (
    MAGIC_BYTES,
    Compression,
    bare_name,
    compression_of,
    reading,
)

HEAD_BYTES = 1 << 16
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Head:
    """The beginning of a file.

    Attributes:
        name: as given, in lower case, without suffixes of compression. Where a link points says
            nothing: caches keep their files under hashes.
        content: its first bytes once decompressed.
        compression: how it is compressed; None: not at all.
        is_whole: whether ``content`` is all that there is.
    """

    path: Path
    name: str
    content: bytes
    compression: Compression | None
    is_whole: bool

    @staticmethod
    def of(path: Path) -> Head:
        """Read the beginning of a file.

        Raises:
            DataError: it cannot be read, or its compressed beginning is damaged.
        """
        with reading(path) as (raw, content):
            data = content.read(HEAD_BYTES + 1)
            raw.seek(0)
            compression = compression_of(raw.read(MAGIC_BYTES))
        is_whole = len(data) <= HEAD_BYTES
        return Head(path, bare_name(path.name), data[:HEAD_BYTES], compression, is_whole)

    @cached_property
    def text(self) -> bytes:
        """The content without byte order marks and white space in front."""
        return self.content.lstrip(BOM + b" \t\r\n")

    @cached_property
    def is_text(self) -> bool:
        """Whether it is UTF-8, as far as one can see."""
        try:
            # The last character may be cut off.
            self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            if self.is_whole or error.start < len(self.content) - 3:
                return False
        return b"\0" not in self.content
