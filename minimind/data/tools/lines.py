"""Two passes over files of text: judge every row, then copy each line to where it belongs."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from minimind.data.chunks import BadRow
from minimind.data.inputs import Source, find_files
from minimind.data.rows import (
    RejectedRows,
    Row,
    nothing_usable,
    read_chunks,
    read_rows,
    refuse_unknown_field,
)
from minimind.data.tools.outputs import writing
from minimind.errors import DataError
from minimind.system.ownership import create_anew

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Lines:
    """The lines of some files, numbered through from 0 in the order of the files.

    Args:
        paths: files of any format, folders or globs.
        listing: where bad rows are listed.

    Attributes:
        n_rows: good rows, once :meth:`rows` has been read to its end.
        rejected: the bad ones.
    """

    def __init__(self, paths: Sequence[str], text_field: str, listing: IO[str]) -> None:
        self.files = find_files(paths)
        self.rejected = RejectedRows(listing)
        self.n_rows = 0
        self._sources = [Source.of(file) for file in self.files]
        self._text_field = text_field
        self._n_lines: list[int] = []
        self._is_row = bytearray()

    @property
    def is_row(self) -> NDArray[np.bool_]:
        """Which lines hold a good row, once :meth:`rows` has been read; shape [lines]."""
        return np.frombuffer(self._is_row, np.bool_)

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield the good rows, each with the number of its line.

        Raises:
            DataError: a file cannot be read, or no row of any file is good.
        """
        refuse_unknown_field(self.files, self._text_field)
        for file in self.files:
            begin = len(self._is_row)
            for row in read_rows(file, self._text_field, whole=True):
                number = begin + row.line - 1
                self._is_row += bytes(number - len(self._is_row))  # blank lines
                self._is_row.append(isinstance(row, Row))
                if isinstance(row, BadRow):
                    self.rejected.add(file, [row])
                else:
                    self.n_rows += 1
                    yield number, row
            self._n_lines.append(len(self._is_row) - begin)
        if not self.n_rows:
            raise nothing_usable(self.files, self.rejected.count, self.rejected.first)

    def copy(self, target: NDArray[np.integer], outputs: Sequence[Path]) -> None:
        """Copy line ``i``, as it stands, to ``outputs[target[i]]``; nowhere if that is negative.

        Raises:
            DataError: a file has changed since the first pass, or an output cannot be written.
        """
        with writing(outputs) as streams:
            begin = 0
            for file, n_lines in zip(self.files, self._n_lines, strict=True):
                own = target[begin : begin + n_lines]
                for chunk in read_chunks(file):
                    lines = chunk.data.removesuffix(b"\n").split(b"\n")
                    first = chunk.first_line - 1
                    for line, where in zip(lines, own[first : first + len(lines)], strict=False):
                        if where >= 0:
                            streams[where].write(line + b"\n")
                begin += n_lines
            for source in self._sources:
                source.refuse_change()


@contextlib.contextmanager
def listing_beside(output: Path) -> Iterator[IO[str]]:
    """Open the list of bad rows ``OUTPUT.rejected.jsonl``; it stays only if there is one.

    It stays too when an error ends the work, since it may say why.
    """
    path = rejected_file(output)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(create_anew(path), "w", encoding="utf-8") as listing:
            yield listing
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            if not path.stat().st_size:
                path.unlink()


def rejected_file(output: Path) -> Path:
    return output.with_name(f"{output.name}.rejected.jsonl")


@contextlib.contextmanager
def scratch_folder(near: Path | None = None) -> Iterator[Path]:
    """A temporary folder: beside ``near``, where there is room for its copy, or ``$TMPDIR``."""
    where = None if near is None else near.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".minimind-data-", dir=where) as folder:
            yield Path(folder)
    except OSError as error:
        place = where or tempfile.gettempdir()
        raise DataError(f"{place}: cannot be written: {error.strerror or error}") from None
