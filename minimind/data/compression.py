"""A file's content, decompressed by what its first bytes say, whatever its name is."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from minimind.errors import DataError

BUFFER_BYTES = 1 << 20
MAGIC_BYTES = 16

Content = IO[bytes] | io.BufferedIOBase

WINDOW_BYTES = 1 << 31
"""The largest window of zstd's own tool (``--long=31``), which is also its largest here."""


@dataclass(frozen=True)
class Compression:
    """One way to compress a file: how its name ends, how it begins, and how it is read."""

    name: str
    suffix: str
    recognised: Callable[[bytes], bool]
    decompress: Callable[[IO[bytes]], Content]


def compression_of(head: bytes) -> Compression | None:
    """How the file that begins with ``head`` is compressed; None: it is not, as far as we know."""
    return next((known for known in COMPRESSIONS if known.recognised(head)), None)


def bare_name(name: str) -> str:
    """A file's name in lower case, without the suffixes of compression."""
    name = name.lower()
    while suffix := next((c.suffix for c in COMPRESSIONS if name.endswith(c.suffix)), ""):
        name = name.removesuffix(suffix)
    return name


def named_compression(name: str) -> Compression | None:
    """How a file of this name should be compressed."""
    return next((c for c in COMPRESSIONS if name.lower().endswith(c.suffix)), None)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[tuple[IO[bytes], Content]]:
    """Open a file, compressed or not.

    Yields:
        the file on the disk, whose position says how much has been read, and its content.

    Raises:
        DataError: the file cannot be read, or is damaged; also from within the ``with``.
    """
    try:
        with open(path, "rb") as raw:
            compression = compression_of(raw.peek(MAGIC_BYTES)[:MAGIC_BYTES])
            if compression is None:
                yield raw, raw
            else:
                with compression.decompress(raw) as content:
                    yield raw, content
    except DeclinedError as error:
        raise DataError(f"{path}: {error}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile, DamagedError) as error:
        raise DataError(f"{path}: damaged or incomplete compressed file ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


class DamagedError(Exception):
    """A decompressor met what it never writes."""


class DeclinedError(Exception):
    """A decompressor does not take a file that may be whole."""


class FramedFile(io.RawIOBase):
    """Reads frames one after the other, and notices when the last is cut off or none at all.

    The readers of zstandard, lzma and bz2 do not: at something else behind a frame they end
    quietly, as if that were the end of the file.

    Args:
        new_frame: makes what decompresses one frame, as ``lzma.LZMADecompressor`` does.
        padding: bytes that may lie between frames.
    """

    # Small, because one compressed byte can stand for very many.
    INPUT_BYTES = 1 << 13

    def __init__(self, raw: IO[bytes], new_frame: Callable[[], Any], padding: bytes = b"") -> None:
        self._raw = raw
        self._new_frame = new_frame
        self._padding = padding
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input and (self._frame is None or self._frame.needs_input):
                self._input = self._raw.read(self.INPUT_BYTES)
                if not self._input:
                    if self._frame is not None:
                        raise EOFError("it ends within a frame")
                    return 0
            self._decompress()
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _decompress(self) -> None:
        if self._frame is None:
            self._input = self._input.lstrip(self._padding) if self._padding else self._input
            if not self._input:
                return
            self._frame = self._new_frame()
        try:
            self._output = memoryview(self._frame.decompress(self._input, BUFFER_BYTES))
        except MemoryError:
            raise DeclinedError("there is too little memory to decompress it") from None
        except (lzma.LZMAError, OSError, ValueError) as error:
            raise DamagedError(str(error)) from None
        self._input = b""
        if self._frame.eof:
            self._input = self._frame.unused_data
            self._frame = None


class _ZstdFrame:
    """zstandard's decompressor of one frame, as :class:`FramedFile` wants it."""

    needs_input = True

    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        # Its own limit is 128 MiB: all that was written with more would be refused.
        self._frame = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()

    def decompress(self, data: bytes, _: int) -> bytes:
        try:
            return self._frame.decompress(data)
        except self._error as error:
            # "Frame requires too much memory for decoding", "Allocation error : not enough memory"
            if "memory" in str(error):
                raise DeclinedError(
                    "zstd cannot decompress it here: its window (--long) is larger than "
                    f"{WINDOW_BYTES >> 20} MiB, or than the memory that is free"
                ) from None
            raise DamagedError(str(error)) from None

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._frame.unused_data)


def _is_zstd(head: bytes) -> bool:
    # A skippable frame comes first where zstd was made by several threads (pzstd) or to be sought.
    skippable = head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50
    return head.startswith(b"\x28\xb5\x2f\xfd") or skippable


def _is_bz2(head: bytes) -> bool:
    blocks = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")
    return head[:3] == b"BZh" and head[3:4].isdigit() and head[4:10] in blocks


def _framed(new_frame: Callable[[], Any], padding: bytes = b"") -> Callable[[IO[bytes]], Content]:
    return lambda raw: io.BufferedReader(FramedFile(raw, new_frame, padding), BUFFER_BYTES)


COMPRESSIONS = (
    Compression("gzip", ".gz", lambda head: head.startswith(b"\x1f\x8b"), gzip.open),
    Compression("zstd", ".zst", _is_zstd, _framed(_ZstdFrame)),
    Compression(
        "xz",
        ".xz",
        lambda head: head.startswith(b"\xfd7zXZ\0"),
        _framed(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), b"\0"),
    ),
    Compression("bzip2", ".bz2", _is_bz2, _framed(bz2.BZ2Decompressor)),
)
"""Every compression that is read; to add one is to add its entry."""
