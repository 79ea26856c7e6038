"""Is the text still what a store was made of? Names, sizes and times only say that it may be.

A store is found by the path, size and modification time of its text files. All of these can stay
as they were when the text does not (``cp -p``, ``rsync -t``, two writes within one tick of a
clock). What no program can set is the time of a file's last change of any kind: while that is as
it was, so is the text. Otherwise the bytes decide, by their SHA-256. These times are kept beside
what is sealed: the same text makes the same store.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minimind.data.inputs import Source
from minimind.data.token_store import TokenStore
from minimind.errors import DataError
from minimind.system.digest import sha256_of
from minimind.system.durable import write_text_durably
from minimind.system.ownership import is_ours

log = logging.getLogger(__name__)

TICK_SECONDS = 2.0
"""A file that changed so shortly ago may change again without another time: that of FAT."""

CONFIRMED = "confirmed.json"
"""In a store: when each text file last changed in any way before it was seen to be the text."""


class SourceHashes:
    """Hashes text files in a thread of its own, beside the tokenising, which takes longer."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._changed = {source.path: settled_change(source.path) for source in sources}
        self._hashes: dict[Path, str] = {}
        self._error: OSError | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="hash sources", daemon=True)

    def __enter__(self) -> SourceHashes:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            for source in self._sources:
                self._hashes[source.path] = sha256_of(source.path, self._go_on).hexdigest()
        except _StoppedError:
            pass
        except OSError as error:
            self._error = error

    def _go_on(self) -> None:
        if self._is_over.is_set():
            raise _StoppedError

    def settled(self) -> dict[str, int]:
        """What :data:`CONFIRMED` has to hold."""
        return {
            str(source.real): ns
            for source in self._sources
            if (ns := self._changed[source.path]) is not None
        }

    def rows(self) -> list[dict[str, Any]]:
        """What a store says of its text files, once all of them are hashed.

        Raises:
            OSError: one of them cannot be read.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return [
            {
                "path": str(source.real),
                "size": source.size,
                "mtime_ns": source.mtime_ns,
                "sha256": self._hashes[source.path],
            }
            for source in self._sources
        ]


class _StoppedError(Exception):
    pass


def settled_change(path: Path) -> int | None:
    """When a file last changed in any way (ns); None: so shortly ago that it tells nothing."""
    status = os.stat(path)
    return status.st_ctime_ns if abs(time.time() - status.st_ctime) > TICK_SECONDS else None


def is_same_text(
    store: TokenStore, sources: Sequence[Source], report: Callable[[str], None] | None
) -> bool:
    """Whether ``sources``, which have the names, sizes and times of the store's, are its text.

    Raises:
        DamagedStoreError: the store's list of them is damaged.
        DataError: one of them cannot be read.
    """
    made_of = {row["path"]: row for row in store.sources()}
    try:
        return _is_same_text(store, made_of, sources, report)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None


def _is_same_text(
    store: TokenStore,
    made_of: dict[str, dict[str, Any]],
    sources: Sequence[Source],
    report: Callable[[str], None] | None,
) -> bool:
    confirmed = _confirmed(store)
    found: dict[str, int] = {}
    for source in sources:
        name, row = str(source.real), made_of[str(source.real)]
        changed = os.stat(source.path).st_ctime_ns
        if changed == confirmed.get(name):
            continue

        def going(path: str = name) -> None:
            if report is not None:
                report(f"checking that {path} is the text that was tokenised")

        going()
        if sha256_of(source.path, going).hexdigest() != row["sha256"]:
            log.warning("%s changed, though not its size and time: it is tokenised anew", name)
            return False
        if settled_change(source.path) == changed:
            found[name] = changed
    if found and is_ours(store.path):
        confirm(store.path, {**confirmed, **found})
    return True


def _confirmed(store: TokenStore) -> dict[str, int]:
    try:
        return dict(json.loads((store.path / CONFIRMED).read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def confirm(folder: Path, times: dict[str, int]) -> None:
    """Spare the next start the reading, where this one can write."""
    with contextlib.suppress(OSError):
        write_text_durably(folder / CONFIRMED, json.dumps(times))
