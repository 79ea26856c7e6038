"""Folders in which stores are built: held while they are, taken up again after an interruption."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from minimind.data.rows import Place
from minimind.system.durable import remove_temporaries, write_text_durably

log = logging.getLogger(__name__)

ABANDONED_SECONDS = 120.0
"""A folder that nobody holds and nobody has written to for so long is nobody's."""

KEPT_SECONDS = 7 * 24 * 3600.0
"""An interrupted build waits so long for somebody who goes on with it."""

SUFFIX = ".building"
_LOCK, _MARK = "owner.lock", "mark.json"


@dataclass(frozen=True)
class Mark:
    """How far a build has come.

    Attributes:
        source: number of the file that was being read.
        place: where to go on in it.
        sizes: of the arrays' files, in bytes, when this was all that was in them.
        digest: SHA-256 (hex) over the arrays and all of the above, so that nothing is built on
            bytes that a crashed machine never wrote.
    """

    source: int
    place: Place
    sizes: dict[str, int]
    digest: str

    def write(self, folder: Path) -> None:
        write_text_durably(folder / _MARK, json.dumps(asdict(self)))

    @staticmethod
    def read(folder: Path) -> Mark | None:
        """The mark of an interrupted build; None where there is none that makes sense."""
        try:
            found = json.loads((folder / _MARK).read_bytes())
            mark = Mark(
                int(found["source"]),
                Place(int(found["place"]["line"]), int(found["place"]["offset"])),
                {str(name): int(size) for name, size in found["sizes"].items()},
                str(found["digest"]),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
        except (OverflowError, RecursionError):  # an infinite number, a nest too deep
            return None
        numbers = (mark.source, mark.place.line, mark.place.offset, *mark.sizes.values())
        return mark if min(numbers) >= 0 else None

    @staticmethod
    def remove(folder: Path) -> None:
        remove_temporaries(folder / _MARK)
        (folder / _MARK).unlink(missing_ok=True)


@dataclass
class Building:
    """A folder in which this process builds a store.

    Attributes:
        mark: how far an interrupted build had come that was taken up; None: start afresh.
    """

    path: Path
    mark: Mark | None
    _lock: FileLock

    @staticmethod
    @contextlib.contextmanager
    def of(store: Path) -> Iterator[Building]:
        """A folder for building ``store``: an interrupted build of it, or a new one.

        It is gone afterwards, unless this process is interrupted meanwhile.

        Raises:
            OSError: the cache folder cannot be written.
        """
        building = _take_up(store) or _begin(store)
        try:
            yield building
        except Exception:
            with contextlib.suppress(OSError):
                Mark.remove(building.path)
            raise
        finally:
            building.release()
            if Mark.read(building.path) is None:
                shutil.rmtree(building.path, ignore_errors=True)

    def release(self) -> None:
        """Let go of the folder; it holds nothing then but what is built in it."""
        self._lock.release()
        with contextlib.suppress(OSError):
            (self.path / _LOCK).unlink(missing_ok=True)


def _begin(store: Path) -> Building:
    path = Path(tempfile.mkdtemp(suffix=SUFFIX, prefix=_own_prefix(store), dir=store.parent))
    path.chmod(store.parent.stat().st_mode)  # readable for whom the cache is
    lock = FileLock(path / _LOCK)
    with contextlib.suppress(OSError, NotImplementedError):
        lock.acquire(timeout=0)
    return Building(path, None, lock)


def _take_up(store: Path) -> Building | None:
    """Take over an interrupted build of ``store``, if nobody is at work on it."""
    here = f"{store.name}-{socket.gethostname()}-"
    for path in store.parent.glob(f"{store.name}-*{SUFFIX}"):
        if (mark := Mark.read(path)) is None:
            continue
        lock = FileLock(path / _LOCK)
        try:
            # Between machines a lock may mean nothing: silence tells there, and of two that
            # hear it only one can rename the folder.
            if not path.name.startswith(here) and _silent_for(path) < ABANDONED_SECONDS:
                continue
            lock.acquire(timeout=0)
            own = Path(tempfile.mkdtemp(suffix=SUFFIX, prefix=_own_prefix(store), dir=store.parent))
            os.rename(path, own)
        except (OSError, NotImplementedError, Timeout):
            lock.release()
            continue
        return Building(own, mark, lock)
    return None


def _own_prefix(store: Path) -> str:
    return f"{store.name}-{socket.gethostname()}-{os.getpid()}-"


def _silent_for(path: Path) -> float:
    """Seconds since anything in a folder was written."""
    return time.time() - max(file.stat().st_mtime for file in [*path.iterdir(), path])


def signs_of_life(store: Path) -> list[tuple[str, int]]:
    """What changes as long as somebody builds this store."""
    signs = []
    for building in store.parent.glob(f"{store.name}-*{SUFFIX}"):
        with contextlib.suppress(OSError):
            signs += [(str(path), path.stat().st_mtime_ns) for path in building.iterdir()]
    return sorted(signs)


def remove_abandoned(cache: Path) -> None:
    """Remove what killed builders left, of any store in this cache."""
    for path in cache.glob(f"tokens-*{SUFFIX}"):
        patience = ABANDONED_SECONDS if Mark.read(path) is None else KEPT_SECONDS
        with contextlib.suppress(OSError, NotImplementedError, Timeout):
            if _silent_for(path) < patience:
                continue
            with FileLock(path / _LOCK, timeout=0):
                shutil.rmtree(path, ignore_errors=True)
            log.info("removed the unfinished build %s", path)
