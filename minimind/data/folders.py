"""Which files of a folder are its text: a corpus in parts, or what ``datasets`` has saved."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minimind.data.compression import bare_name
from minimind.data.formats.registry import FORMATS
from minimind.errors import DataError

log = logging.getLogger(__name__)

SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""What ``save_to_disk`` writes beside the text."""

PREPARED = "dataset_info.json"
"""What ``datasets`` writes beside a data set that it has prepared."""

NO_TEXT = {
    SAVED,
    SAVED_SPLITS,
    PREPARED,
    "dataset_infos.json",
    "license.txt",
    "readme.txt",
    "requirements.txt",
}
"""Names of files that describe a data set."""

_BY_PRODUCT = re.compile(r"cache-[0-9a-f]{10,}.*\.arrow")
_SPLIT = re.compile(r"(?:^|[-_./])(train|test|validation|valid|val|dev|eval)(?=$|[-_./])")


def files_of_folder(folder: Path) -> list[Path]:
    """The files with a folder's text, in order.

    Raises:
        DataError: there are none, or it is not clear which are meant.
    """
    if (folder / SAVED_SPLITS).is_file():
        return files_of_folder(folder / _only_split(folder))
    if (folder / SAVED).is_file():
        return _saved_files(folder)
    paths = list(_all_files(folder))
    _refuse_unfinished(folder, paths)
    texts = (path for path in paths if not _is_by_product(path))
    found = [(path, kind) for path in texts if (kind := kind_of(path.name))]
    kinds = Counter(kind for _, kind in found)
    if len(kinds) != 1:
        listed = " and ".join(f"{count} {kind}" for kind, count in kinds.items())
        raise DataError(
            f"{folder}: is a folder with {listed or 'no'} files of text; "
            f"name the files in it, e.g. '{folder}/*.jsonl'"
        )
    files = [path for path, _ in found]
    if "txt" not in kinds:
        _refuse_splits(folder, files)
    log.info("%s: %d %s files", folder, len(files), *kinds)
    _note_missing_parts(folder, files)
    return files


def _only_split(folder: Path) -> str:
    splits = list(_read_json(folder / SAVED_SPLITS, "splits", list))
    if len(splits) != 1:
        listed = ", ".join(map(repr, splits))
        raise DataError(f"{folder}: has the splits {listed}; name one, e.g. {folder}/{splits[0]}")
    return str(splits[0])


def _saved_files(folder: Path) -> list[Path]:
    """What ``save_to_disk`` has written, in its order."""
    entries = _read_json(folder / SAVED, "_data_files", list)
    try:
        # Text is looked for in this folder alone, whatever a file from elsewhere says.
        files = [folder / Path(str(entry["filename"])).name for entry in entries]
    except (LookupError, TypeError) as error:
        raise DataError(f"{folder / SAVED}: is damaged: {error}") from None
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: is missing; {folder / SAVED} names it")
    return files


def _read_json(path: Path, key: str, kind: type) -> Any:
    try:
        value = json.loads(path.read_bytes())[key]
        if not isinstance(value, kind) or not value:
            raise ValueError(f"{key} is empty")
        return value
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: is damaged: {error}") from None


def _all_files(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in sorted(names) if not name.startswith("."))


def _is_by_product(path: Path) -> bool:
    """Whether ``datasets`` keeps there what it has made of a prepared data set, beside it."""
    return _BY_PRODUCT.match(path.name) is not None and (path.parent / PREPARED).is_file()


def _refuse_unfinished(folder: Path, paths: list[Path]) -> None:
    """What :mod:`minimind.data.download` keeps of a file that has not come whole, and its note."""
    for path in paths:
        if path.name.endswith(".part.json") and path.with_suffix("") in paths:
            raise DataError(
                f"{folder}: holds an unfinished download, {path.with_suffix('').name}; repeat the "
                f"download, or remove it and {path.name}"
            )


def kind_of(name: str) -> str:
    """The format that a name promises; "": it is no text."""
    if name.lower() in NO_TEXT:
        return ""
    bare = bare_name(name)
    kinds = (known.name for known in FORMATS if known.suffixes and bare.endswith(known.suffixes))
    return next(kinds, "")


def _refuse_splits(folder: Path, files: list[Path]) -> None:
    """A held-out part must not be trained on just because it lies beside the rest."""
    splits: Counter[str] = Counter()
    for file in files:
        splits.update(set(_SPLIT.findall(bare_name(file.relative_to(folder).as_posix()))))
    if len(splits) > 1:
        listed = " and ".join(splits)
        raise DataError(
            f"{folder}: holds {listed}; name the files of one, e.g. '{folder}/**/*train*'"
        )


def _note_missing_parts(folder: Path, files: list[Path]) -> None:
    """Parts that are numbered ``-of-N`` say how many there should be."""
    numbered = [found for file in files if (found := re.search(r"-of-(\d{5})\b", file.name))]
    wanted = {int(found[1]) for found in numbered}
    if len(wanted) == 1 and len(numbered) == len(files) < max(wanted):
        log.warning("%s: %d of %d parts are there", folder, len(files), max(wanted))
