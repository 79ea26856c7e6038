"""The text files that a command reads: which ones, in which formats, and whether they change."""

from __future__ import annotations

import glob
import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minimind.data.folders import files_of_folder
from minimind.data.formats.registry import format_of
from minimind.data.hub_cache import (
    cached_dataset,
    datasets_cache,
    hub_cache,
    looks_like_dataset,
)
from minimind.errors import DataError
from minimind.system.text import is_utf8

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """An input file as it was when the work began.

    Attributes:
        path: as it was given, but absolute: what messages name, and whose suffix counts.
        real: where it lies once all links are followed.
        format: see :mod:`minimind.data.formats.registry`.
    """

    path: Path
    size: int
    mtime_ns: int
    real: Path
    format: str = field(compare=False)

    @staticmethod
    def of(path: Path) -> Source:
        """Look at a file.

        Raises:
            DataError: it cannot be read, or is known to hold no rows of text.
        """
        found = path.stat()
        return Source(path, found.st_size, found.st_mtime_ns, path.resolve(), format_of(path).name)

    def refuse_change(self) -> None:
        """Raise DataError if the file is no longer as it was."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}") from None
        now = (found.st_size, found.st_mtime_ns, self.path.resolve())
        if now != (self.size, self.mtime_ns, self.real):
            raise DataError(f"{self.path}: changed while it was being read; start again")


def find_files(paths: Sequence[str]) -> list[Path]:
    """Return the files that are meant, each once, as absolute paths by the names that were given.

    Args:
        paths: files, folders, globs (sorted), or names of data sets in the hub's local cache.

    Raises:
        DataError: a path is missing, unreadable or no file of text, or a folder holds none.
    """
    found: dict[Path, Path] = {}
    for given in paths:
        for match in _matches(given):
            _check_name(match)
            _check_file(match)
            real = Path(match).resolve()
            if real in found:
                log.warning("%s is named more than once; it is read once", match)
            found.setdefault(real, Path(match).absolute())
    if not found:
        raise DataError("no data file is given; name one with --data_path")
    return list(found.values())


def _matches(given: str) -> list[str]:
    """The files behind one name. What exists wins over what its name could mean otherwise."""
    path = given if os.path.lexists(given) else os.path.expanduser(given)
    if not os.path.lexists(path) and not any(glob.iglob(path, recursive=True)):
        path = cached_dataset(given) or path
    if os.path.isdir(path):
        _check_name(path)
        return [str(file) for file in files_of_folder(Path(path))]
    if not glob.has_magic(path) or os.path.lexists(path):
        return [path]
    matches = sorted(p for p in glob.glob(path, recursive=True) if not os.path.isdir(p))
    if not matches:
        raise DataError(f"{given}: no file matches; check --data_path")
    return matches


def _check_name(path: str) -> None:
    """Refuse a name that neither the store's records nor a log could hold."""
    if not is_utf8(path):
        raise DataError(f"{path!r}: the name is not valid UTF-8; rename the file")


def _check_file(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
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
        elif looks_like_dataset(path):
            caches = f"{hub_cache()} or {datasets_cache()}"
            hint = f"nor is a data set of that name in {caches}; check --data_path"
        raise DataError(f"{path}: no such file; {hint}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
