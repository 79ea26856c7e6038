"""The cache of token stores: who builds one, what an interrupted build left, how it gets its name.

A store is built in a folder beside it, so that its own folder is whole or absent.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from minimind.data.chunks import Place
from minimind.data.conversations import ChatTemplate
from minimind.data.formats.registry import JSONL
from minimind.data.inputs import Source
from minimind.data.token_store import (
    FORMAT_VERSION,
    REJECTED,
    TokenStore,
    UnreadableStoreError,
)
from minimind.data.tokenize.lookup import find_store, own_name, reason_not_to_trust
from minimind.errors import DataError
from minimind.rundir import env
from minimind.system.durable import remove_temporaries, take_name, write_text_durably
from minimind.system.ownership import (
    holds_only_own_files,
    is_open_to_group,
    is_ours,
    let_read,
    user_on,
)

log = logging.getLogger(__name__)

STALL_SECONDS = 60.0
"""A build elsewhere that writes nothing for so long is taken for dead: we build our own."""

ABANDONED_SECONDS = 120.0
"""A folder that nobody holds and nobody has written to for so long is nobody's."""

KEPT_SECONDS = 7 * 24 * 3600.0
"""An interrupted build waits so long for somebody who goes on with it."""

SUFFIX = ".building"
_LOCK, _MARK = "owner.lock", "mark.json"


def cache_folder(cache_dir: str = "") -> Path:
    """Return the folder for token stores: the flag, ``$MINIMIND_CACHE``, or the user's cache."""
    given = cache_dir or os.environ.get(env.CACHE, "")
    if given:
        return Path(given).expanduser().absolute()
    return user_cache()


def user_cache() -> Path:
    """Return the cache folder of this user alone."""
    from platformdirs import user_cache_path

    return user_cache_path("minimind", appauthor=False)


def store_folder(
    cache_dir: str,
    sources: Sequence[Source],
    text_field: str,
    fingerprint: str,
    version: int = FORMAT_VERSION,
    chat: ChatTemplate | None = None,
) -> Path:
    """Return the folder of the store of ``sources`` as they are, under one tokenizer."""
    files = [[str(s.real), s.size, s.mtime_ns] for s in sources]
    parts: list[Any] = [version, files, text_field, fingerprint]
    formats = [source.format for source in sources]
    if set(formats) != {JSONL}:
        # A link's name can say how its text is read. Keys of jsonl are as they always were.
        parts.append(formats)
    if chat is not None:
        parts.append({"chat": chat.digest})
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    return cache_folder(cache_dir) / f"tokens-{key}"


@contextlib.contextmanager
def cache_errors(cache: Path, *, only_full: bool = False) -> Iterator[None]:
    """Say what to do about a cache folder that cannot be written, or just about a full disk."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if only_full and not full:
            raise
        advice = "point --cache_dir or $MINIMIND_CACHE at a folder that can be written"
        if full:
            advice = "free some space there, or set --cache_dir"
        raise DataError(f"cache folder {cache}: {error.strerror or error}; {advice}") from None


@contextlib.contextmanager
def builders_turn(folder: Path, report: Callable[[str], None] | None) -> Iterator[None]:
    """Wait while another process builds this store, but never for one that is dead.

    The lock only saves work: two builds at once are harmless, so where locks do not work,
    or the holder has stopped writing, we go on without it.
    """
    lock = _lock_of(folder)
    seen, seen_at = signs_of_life(folder), time.monotonic()
    waiting = False
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            if _is_finished(folder):
                break
            if (signs := signs_of_life(folder)) != seen:
                seen, seen_at = signs, time.monotonic()
                if report is not None:
                    report("waiting for another process that tokenises the same text")
            if time.monotonic() - seen_at > STALL_SECONDS:
                log.warning("the process that builds %s seems stuck; building it here", folder)
                break
            if not waiting:
                log.info("another process is building %s; waiting for it", folder)
                waiting = True
        except (OSError, NotImplementedError) as error:
            log.warning("no file locks in %s (%s); building without", folder.parent, error)
            break
    try:
        yield
    finally:
        lock.release()


def _lock_of(folder: Path) -> FileLock:
    """In a cache that is opened for a group all of it can hold the lock."""
    shared = is_open_to_group(folder.parent.stat())
    return FileLock(folder.with_name(f".{folder.name}.lock"), mode=0o660 if shared else 0o600)


def _is_finished(folder: Path) -> bool:
    try:
        return find_store(folder) is not None
    except UnreadableStoreError:
        return False


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
        store: the folder that the finished store will have.
        mark: how far an interrupted build had come that was taken up; None: start afresh.
    """

    store: Path
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
        building = _folder_for(store)
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

    def keep_listing(self) -> Path:
        """Keep the list of rejected rows, though there will be no store; return where it is."""
        kept = self.store.with_name(f"{self.store.name}-{REJECTED}")
        let_read(self.path, like=self.store.parent)
        try:
            os.replace(self.path / REJECTED, kept)
        except OSError:  # another user's has the name
            kept = self.path.with_name(f"{self.path.name.removesuffix(SUFFIX)}-{REJECTED}")
            os.replace(self.path / REJECTED, kept)
        return kept

    def publish(self) -> TokenStore:
        """Give the finished store its name; if another build was faster, use that one's.

        Raises:
            UnreadableStoreError: there is one of ours, which cannot be read.
            DataError: others have every name that it could get.
        """
        self.release()
        let_read(self.path, like=self.store.parent)
        while True:
            try:
                take_name(self.path, self.store)
                return TokenStore.open(self.store)
            except OSError:
                if not os.path.lexists(self.store):
                    raise
            if found := find_store(self.store):
                return found
            if is_ours(self.store):
                log.warning("the token store %s is damaged; it is replaced", self.store)
                discard(self.store)
            self.store = own_name(self.store)


def _folder_for(store: Path) -> Building:
    """A folder of this user alone, with what an interrupted build left or with nothing."""
    own = Path(tempfile.mkdtemp(suffix=SUFFIX, prefix=_own_prefix(store), dir=store.parent))
    user = os.lstat(own).st_uid
    for path in store.parent.glob(f"{store.name}-*{SUFFIX}"):
        if path != own and (taken := _take_up(store, path, own, user)):
            return taken
    lock = FileLock(own / _LOCK)
    with contextlib.suppress(OSError, NotImplementedError):
        lock.acquire(timeout=0)
    return Building(store, own, None, lock)


def _take_up(store: Path, path: Path, own: Path, user: int) -> Building | None:
    """Take over the interrupted build in ``path``, if it is ours and nobody is at work on it."""
    lock = FileLock(path / _LOCK)
    try:
        if not holds_only_own_files(path, user) or (mark := Mark.read(path)) is None:
            return None
        # Between machines a lock may mean nothing: silence tells there, and of two that
        # hear it only one can rename the folder.
        here = path.name.startswith(f"{store.name}-{socket.gethostname()}-")
        if not here and _silent_for(path) < ABANDONED_SECONDS:
            return None
        lock.acquire(timeout=0)
        os.rename(path, own)
    except (OSError, NotImplementedError, Timeout):
        lock.release()
        return None
    return Building(store, own, mark, lock)


def _own_prefix(store: Path) -> str:
    return f"{store.name}-{socket.gethostname()}-{os.getpid()}-"


def _silent_for(path: Path) -> float:
    """Seconds since anything in a folder was written."""
    return time.time() - max(file.lstat().st_mtime for file in [*path.iterdir(), path])


def signs_of_life(store: Path) -> list[tuple[str, int]]:
    """What changes as long as somebody builds this store."""
    signs = []
    for building in store.parent.glob(f"{store.name}-*{SUFFIX}"):
        with contextlib.suppress(OSError):
            if not reason_not_to_trust(building):
                signs.append((str(building), building.lstat().st_mtime_ns))
                # Another user's is private; but each mark changes the folder's own time, too.
                signs += [(str(path), path.lstat().st_mtime_ns) for path in building.iterdir()]
    return sorted(signs)


def remove_abandoned(cache: Path) -> None:
    """Remove what killed builders of this user left, of any store in this cache."""
    user = user_on(cache)
    for path in cache.glob(f"tokens-*{SUFFIX}"):
        with contextlib.suppress(OSError, NotImplementedError, Timeout):
            if path.is_symlink() or path.lstat().st_uid != user:
                continue
            patience = ABANDONED_SECONDS if Mark.read(path) is None else KEPT_SECONDS
            if _silent_for(path) < patience:
                continue
            with FileLock(path / _LOCK, timeout=0):
                shutil.rmtree(path, ignore_errors=True)
            log.info("removed the unfinished build %s", path)


def discard(folder: Path) -> None:
    """Remove a damaged store; whoever has it open keeps reading what it has mapped."""
    grave = tempfile.mkdtemp(suffix=SUFFIX, prefix=f"{folder.name}-damaged-", dir=folder.parent)
    with contextlib.suppress(FileNotFoundError):  # another process discarded it
        os.rename(folder, Path(grave) / folder.name)
    shutil.rmtree(grave, ignore_errors=True)
