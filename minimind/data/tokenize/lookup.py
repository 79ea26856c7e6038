"""Which finished store of a cache may be used, and which name is free for one's own.

A store that somebody else made decides what a run learns. It is used if whoever can change it is
trusted anyway: this user, root, the owner of the cache folder that the user has named, and in a
cache that its owner has opened for a group (``chmod g+ws``) all who can write there. It is
read, and never written or removed.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from minimind.data.token_store import DamagedStoreError, TokenStore, UnreadableStoreError
from minimind.errors import DataError
from minimind.system.ownership import is_open_to_group, is_ours

log = logging.getLogger(__name__)


def find_store(folder: Path) -> TokenStore | None:
    """Open a finished store, if there is one that may be used.

    Raises:
        UnreadableStoreError: it is our own, or the file system fails. It is left as it is.
    """
    if not os.path.lexists(folder):
        return None
    if reason := reason_not_to_trust(folder):
        log.info("%s is not used: %s", folder, reason)
        return None
    try:
        return TokenStore.open(folder)
    except DamagedStoreError as error:
        log.info("%s", error)
        return None
    except UnreadableStoreError as error:
        if not error.forbidden or is_ours(folder):
            raise
        log.warning("%s; a store of our own is made", error)
        return None


def reason_not_to_trust(folder: Path) -> str:
    """Why the content of a store may be anybody's; "" when it is not."""
    try:
        found, link, cache = folder.stat(), folder.lstat(), folder.parent.stat()
    except FileNotFoundError:
        return "it is a link to nothing"
    reason = reason_to_distrust(found, link, cache, os.geteuid())
    # On a file system that shows users by other numbers, only what it says of us can tell.
    return "" if reason and link.st_uid == found.st_uid and _is_ours_alone(folder) else reason


def _is_ours_alone(folder: Path) -> bool:
    return not folder.stat().st_mode & stat.S_IWOTH and is_ours(folder)


def reason_to_distrust(
    store: os.stat_result, link: os.stat_result, cache: os.stat_result, me: int
) -> str:
    """As :func:`reason_not_to_trust`.

    Args:
        store: what is behind the name, ``link``: what has the name; mostly the same.
        cache: the folder around it.
        me: the number of this process's user.
    """
    if store.st_mode & stat.S_IWOTH:
        return "everybody can write to it"
    if is_open_to_group(cache) and not cache.st_mode & stat.S_IWOTH:
        return ""
    strangers = {store.st_uid, link.st_uid} - {me, cache.st_uid, 0}
    if not strangers:
        return ""
    return f"it belongs to user {strangers.pop()}, and the cache is not opened for a group (g+ws)"


def own_name(store: Path) -> Path:
    """The name of a store that this user may make: ``store``, unless somebody else has it.

    Raises:
        DataError: somebody else has this user's own, too.
    """
    for name in names_of(store):
        if not os.path.lexists(name) or is_ours(name):
            return name
    raise DataError(
        f"{name} belongs to another user; point --cache_dir or $MINIMIND_CACHE at another folder"
    )


def names_of(store: Path) -> tuple[Path, Path]:
    """Where a store may lie that this user can use, in the order to look."""
    return store, store.with_name(f"{store.name}-u{os.geteuid()}")
