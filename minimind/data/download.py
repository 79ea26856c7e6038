"""Fetches files of data sets over HTTP, resumably, and compares their hashes with the hub's."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import urllib.error
from collections.abc import Sequence
from http.client import HTTPException, HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO, Any

from minimind.data.hub import HubFile, address, file_url, opened, refusal
from minimind.errors import DataError, MiniMindError
from minimind.system.digest import READ_BYTES, sha256_of
from minimind.system.durable import take_name, write_text_durably
from minimind.system.ownership import create_anew, is_own_file, open_private, user_on
from minimind.system.terminal import size_text

BLOCK_BYTES = 1 << 20

MINIMIND = "jingyaogong/minimind_dataset"


class InterruptedDownloadError(MiniMindError):
    """The connection was lost on the way; what has arrived is kept."""


def dataset_url(name: str, source: str) -> str:
    """Where a file of MiniMind's data sets is; ``$MODELSCOPE_ENDPOINT`` names a mirror, too."""
    if source == "modelscope":
        endpoint = address("MODELSCOPE_ENDPOINT", "https://www.modelscope.cn")
        return f"{endpoint}/datasets/gongjy/minimind_dataset/resolve/master/{name}"
    return file_url(MINIMIND, name)


def download_all(dataset: str, files: Sequence[HubFile], folder: str, target: Path) -> None:
    """Fetch files of a data set into ``target``, each by its path below ``folder``.

    Those that are there are compared with the hub's hash. A connection that is lost is taken up
    again as long as each try brings something.

    Raises:
        MiniMindError: as :func:`download`; a file of that name holds something else, or there is
            too little room for all of them.
    """
    places = [target / PurePosixPath(file.path).relative_to(folder) for file in files]
    todo = [(f, place) for f, place in zip(files, places, strict=True) if not _is_there(f, place)]
    for_all = sum(file.size - _arrived(place) for file, place in todo)
    target.mkdir(parents=True, exist_ok=True)
    _refuse_full_disk(target, for_all)
    for number, (file, place) in enumerate(todo, len(files) - len(todo) + 1):
        print(f"{number}/{len(files)} {place} ({size_text(file.size)})", flush=True)
        _download_persistently(file_url(dataset, file.path), place, file.checksum)


def _is_there(file: HubFile, place: Path) -> bool:
    if not place.exists():
        return False
    if place.stat().st_size != file.size or not has_checksum(place, file.checksum):
        raise DataError(f"{place}: is another file than the hub's; move it away, or name --out")
    return True


def _download_persistently(url: str, target: Path, checksum: str) -> None:
    while True:
        before = _arrived(target)
        try:
            download(url, target, checksum)
            return
        except InterruptedDownloadError:
            if _arrived(target) <= before:
                raise


def _arrived(target: Path) -> int:
    """Bytes of an unfinished download."""
    try:
        return _part(target).stat().st_size
    except OSError:
        return 0


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether a file has this SHA-256, or this SHA-1 of git (40 digits)."""
    if len(checksum) == 64:
        return sha256_of(path).hexdigest() == checksum
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest() == checksum


def download(url: str, target: Path, checksum: str | None = None) -> str:
    """Fetch ``url`` into ``target`` and return its SHA-256 (hex).

    What has arrived is kept in ``target`` + ``.part``; the next call goes on from there if
    the file has not changed meanwhile.

    Args:
        checksum: what :func:`has_checksum` has to find; None: what the server names, if it does.

    Raises:
        MiniMindError: the network or the server fails, the disk is full, or the checksum
            is wrong.
    """
    part = _part(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_foreign(part)
        named = _fetch(url, part)
        expected = checksum or named
        sha256 = sha256_of(part).hexdigest()
        if expected and sha256 != expected and not has_checksum(part, expected):
            part.unlink()
            raise MiniMindError(f"{url}: checksum {sha256} is not {expected}; start again")
        take_name(part, target)
        _note_file(part).unlink(missing_ok=True)
    except urllib.error.HTTPError as error:
        raise refusal(url, error) from None
    except urllib.error.URLError as error:
        raise MiniMindError(f"{url}: no connection ({error.reason})") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InterruptedDownloadError(
            f"{url}: interrupted ({reason}); the same command goes on from here"
        ) from None
    return sha256


def _fetch(url: str, part: Path) -> str | None:
    """Complete ``part`` and return the checksum that the server names, if any."""
    have = part.stat().st_size if part.exists() else 0
    note = _read_note(part)
    headers = {}
    if have and note.get("validator"):
        headers = {"Range": f"bytes={have}-", "If-Range": note["validator"]}
    try:
        response = opened(url, headers)
    except urllib.error.HTTPError as error:
        if error.code == 416 and note.get("size") == have:  # it was complete
            return note.get("sha256")
        raise
    with response:
        resumed = response.status == 206
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        size = start + int(length) if length else None
        _refuse_full_disk(part.parent, (size or 0) - start)
        validator = _validator(response.headers)
        note = {"validator": validator, "size": size, "sha256": response.checksum}
        write_text_durably(_note_file(part), json.dumps(note), 0o644)
        with os.fdopen(_opened(part, resumed), "ab" if resumed else "wb") as file:
            _copy(response, file, start, size)
    if size is not None and part.stat().st_size != size:
        raise OSError(f"{part.stat().st_size} of {size} bytes came")
    return note["sha256"]


def _refuse_full_disk(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise MiniMindError(
            f"{folder}: {size_text(n_bytes)} are still to come, and {size_text(free)} are free; "
            "make room, name another folder with --out, or less with --max_gb"
        )


def _remove_foreign(part: Path) -> None:
    """Begin anew where others could have written what seems to be ours."""
    user = user_on(part.parent)
    for path in (part, _note_file(part)):
        with contextlib.suppress(FileNotFoundError):
            if not is_own_file(os.lstat(path), user):
                path.unlink()


def _opened(part: Path, resumed: bool) -> int:
    if not resumed:
        return create_anew(part, 0o644)
    return open_private(part, os.O_WRONLY | os.O_APPEND, user_on(part.parent))


def _copy(response: IO[bytes], file: IO[bytes], start: int, size: int | None) -> None:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("downloading", total=size, completed=start)
        while block := response.read(BLOCK_BYTES):
            file.write(block)
            bar.advance(task, len(block))
        file.flush()
        os.fsync(file.fileno())


def _validator(headers: HTTPMessage) -> str | None:
    """What If-Range may hold: a strong ETag, else the date."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _note_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> dict[str, Any]:
    try:
        note = json.loads(_note_file(part).read_bytes())
        return note if isinstance(note, dict) else {}
    except (OSError, ValueError):
        return {}
