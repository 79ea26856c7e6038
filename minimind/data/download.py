"""Fetches MiniMind's own data sets, over HTTP, resumably."""

from __future__ import annotations

import contextlib
import json
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any

from minimind.errors import MiniMindError
from minimind.system.digest import sha256_of
from minimind.system.durable import take_name, write_text_durably
from minimind.system.ownership import create_anew, is_own_file, open_private, user_on

TIMEOUT_SECONDS = 10
"""For connecting, and for each read: without a network the command ends soon."""

BLOCK_BYTES = 1 << 20
_CHECKSUM = re.compile(r'(?:W/)?"?([0-9a-f]{64})"?')


def dataset_url(name: str, source: str) -> str:
    """Return where a file of MiniMind's data sets is; ``$HF_ENDPOINT`` names an HF mirror."""
    if source == "modelscope":
        endpoint = os.environ.get("MODELSCOPE_ENDPOINT") or "https://www.modelscope.cn"
        return f"{endpoint.rstrip('/')}/datasets/gongjy/minimind_dataset/resolve/master/{name}"
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return f"{endpoint.rstrip('/')}/datasets/jingyaogong/minimind_dataset/resolve/main/{name}"


def download(url: str, target: Path) -> str:
    """Fetch ``url`` into ``target`` and return its SHA-256 (hex).

    What has arrived is kept in ``target`` + ``.part``; the next call goes on from there if
    the file has not changed meanwhile. A checksum that the server names is verified.

    Raises:
        MiniMindError: the network or the server fails, the disk is full, or the checksum
            is wrong.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_foreign(part)
        expected = _fetch(url, part)
        checksum = sha256_of(part).hexdigest()
        if expected and checksum != expected:
            part.unlink()
            raise MiniMindError(f"{url}: checksum {checksum} is not {expected}; start again")
        take_name(part, target)
        _note_file(part).unlink(missing_ok=True)
    except urllib.error.HTTPError as error:
        raise MiniMindError(f"{url}: the server says {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise MiniMindError(f"{url}: no connection ({error.reason})") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MiniMindError(
            f"{url}: interrupted ({reason}); the same command goes on from here"
        ) from None
    return checksum


def _fetch(url: str, part: Path) -> str | None:
    """Complete ``part`` and return the SHA-256 that the server names, if any."""
    have = part.stat().st_size if part.exists() else 0
    note = _read_note(part)
    request = urllib.request.Request(url, headers={"User-Agent": "minimind"})
    if have and note.get("validator"):
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", note["validator"])
    redirects = _WatchRedirects()
    try:
        response = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and note.get("size") == have:  # it was complete
            return note.get("sha256")
        raise
    with response:
        resumed = response.status == 206
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        size = start + int(length) if length else None
        sha256 = redirects.sha256 or _checksum_of(response.headers)
        validator = _validator(response.headers)
        note = {"validator": validator, "size": size, "sha256": sha256}
        write_text_durably(_note_file(part), json.dumps(note), 0o644)
        with os.fdopen(_opened(part, resumed), "ab" if resumed else "wb") as file:
            _copy(response, file, start, size)
    if size is not None and part.stat().st_size != size:
        raise OSError(f"{part.stat().st_size} of {size} bytes came")
    return sha256


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


class _WatchRedirects(urllib.request.HTTPRedirectHandler):
    """Remembers the checksum that a hub names before it sends us to its storage."""

    def __init__(self) -> None:
        self.sha256: str | None = None

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        self.sha256 = self.sha256 or _checksum_of(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _checksum_of(headers: HTTPMessage) -> str | None:
    for name in ("X-Linked-ETag", "X-Sha256"):
        if match := _CHECKSUM.fullmatch(headers.get(name) or ""):
            return match[1]
    return None


def _validator(headers: HTTPMessage) -> str | None:
    """What If-Range may hold: a strong ETag, else the date."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _note_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> dict[str, Any]:
    try:
        note = json.loads(_note_file(part).read_bytes())
        return note if isinstance(note, dict) else {}
    except (OSError, ValueError):
        return {}
