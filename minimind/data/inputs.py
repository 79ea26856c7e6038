"""The text files that a command reads: which ones, in which formats, and whether they change."""

from __future__ import annotations

import contextlib
import glob
import gzip
import io
import logging
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from minimind.errors import DataError
from minimind.system.text import is_utf8

log = logging.getLogger(__name__)

BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """An input file as it was when the work began."""

    path: Path
    size: int
    mtime_ns: int

    @staticmethod
    def of(path: Path) -> Source:
        found = path.stat()
        return Source(path, found.st_size, found.st_mtime_ns)

    def refuse_change(self) -> None:
        """Raise DataError if the file is no longer as it was."""
        if Source.of(self.path) != self:
            raise DataError(f"{self.path}: changed while it was being read; start again")


def find_files(paths: Sequence[str]) -> list[Path]:
    """Expand globs (sorted) and return each file once, as an absolute path.

    Raises:
        DataError: a path is missing, a folder, no plain file or unreadable.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = os.path.expanduser(given)
        if glob.has_magic(path) and not os.path.lexists(path):
            matches = sorted(p for p in glob.glob(path, recursive=True) if not os.path.isdir(p))
            if not matches:
                raise DataError(f"{given}: no file matches; check --data_path")
        else:
            matches = [path]
        for match in matches:
            _check_name(match)
            _check_file(match)
            resolved = Path(match).resolve()
            if resolved in found:
                log.warning("%s is named more than once; it is read once", match)
            found[resolved] = None
    if not found:
        raise DataError("no data file is given; name one with --data_path")
    return list(found)


def _check_name(path: str) -> None:
    """Refuse a name that neither the store's records nor a log could hold."""
    if not is_utf8(path):
        raise DataError(f"{path!r}: the name is not valid UTF-8; rename the file")


def _check_file(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise DataError(f"{path}: is a folder; name the files in it, e.g. '{path}/*.jsonl'")
        if not stat.S_ISREG(mode):
            raise DataError(f"{path}: is not a regular file")
        with open(path, "rb"):
            pass
    except FileNotFoundError:
        if os.path.islink(path):
            raise DataError(f"{path}: is a link to a file that does not exist") from None
        hint = "check --data_path"
        if Path(path).parts[-3:-1] == ("data", "sample"):
            hint = "run 'minimind data sample' to make it"
        raise DataError(f"{path}: no such file; {hint}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes] | io.BufferedIOBase]]:
    """Open a plain file, a ``.gz`` or a ``.zst``.

    Yields:
        the file on the disk, whose position says how much has been read, and its content.

    Raises:
        DataError: the file cannot be read, or is damaged; also from within the ``with``.
    """
    try:
        with open(path, "rb") as raw, _decompressed(path, raw) as content:
            yield raw, content
    except (EOFError, zlib.error, gzip.BadGzipFile, _DamagedError) as error:
        raise DataError(f"{path}: damaged or incomplete compressed file ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _decompressed(path: Path, raw: IO[bytes]) -> IO[bytes] | io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(raw)
    if path.suffix == ".zst":
        return io.BufferedReader(_ZstdFile(raw), BUFFER_BYTES)
    return raw


class _DamagedError(Exception):
    pass


class _ZstdFile(io.RawIOBase):
    """Reads zstd frames, and unlike zstandard's own reader notices when the last is cut off."""

    # Small, because one compressed byte can stand for very many.
    INPUT_BYTES = 1 << 13

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self._raw = raw
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input:
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
            self._frame = self._new_frame()
        try:
            self._output = memoryview(self._frame.decompress(self._input))
        except self._error as error:
            raise _DamagedError(str(error)) from None
        self._input = b""
        if self._frame.eof:
            self._input = self._frame.unused_data
            self._frame = None
