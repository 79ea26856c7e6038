"""The Hugging Face hub over HTTP: where a data set's files are, how long, and their hashes.

``huggingface_hub`` begins a file anew when it was interrupted and does not compare hashes
(``findings/hub_download_starts_over.sh``); and it is not installed with the launcher alone.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import PurePosixPath
from typing import IO, Any

from minimind.errors import ConfigError, MiniMindError

TIMEOUT_SECONDS = 10
"""For connecting, and for each read: without a network the command ends soon."""

_CHECKSUM = re.compile(r'(?:W/)?"?([0-9a-f]{64}|[0-9a-f]{40})"?')
_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class HubFile:
    """A file of a data set.

    Attributes:
        path: inside the data set.
        checksum: SHA-256; of a small file that git keeps itself, git's SHA-1 (40 digits).
    """

    path: str
    size: int
    checksum: str


def address(variable: str, default: str) -> str:
    """A server's address: ``default``, or the mirror that an environment variable names.

    Raises:
        ConfigError: it is no address of the web.
    """
    given = (os.environ.get(variable) or default).rstrip("/")
    if not given.startswith(("http://", "https://")):
        raise ConfigError(f"{variable}={given}: an address begins with https://, as {default}")
    return given


def endpoint() -> str:
    """The hub's address; ``$HF_ENDPOINT`` names a mirror."""
    return address("HF_ENDPOINT", "https://huggingface.co")


def file_url(dataset: str, path: str) -> str:
    """Where a file of a data set is."""
    return f"{endpoint()}/datasets/{dataset}/resolve/main/{urllib.parse.quote(path)}"


def page_of(dataset: str) -> str:
    """A data set's page, for people: not a mirror's."""
    return f"https://huggingface.co/datasets/{dataset}"


def files_of(dataset: str, folder: str) -> list[HubFile]:
    """All files below a folder of a data set, by path.

    Raises:
        MiniMindError: the hub cannot be reached, has no such data set, or answers otherwise.
    """
    where = f"{endpoint()}/api/datasets/{dataset}/tree/main/{urllib.parse.quote(folder)}"
    found: list[HubFile] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"recursive": "true", **({"cursor": cursor} if cursor else {})}
        entries, cursor = _page(f"{where.rstrip('/')}?{urllib.parse.urlencode(query)}")
        try:
            found += _files(entries, folder)
        except (LookupError, TypeError, ValueError) as error:
            raise MiniMindError(f"{where}: is not a hub's list of files ({error!r})") from None
    return sorted(found, key=lambda file: file.path)


def _page(url: str) -> tuple[Any, str | None]:
    """One page of a list, and what asks for the next."""
    try:
        with opened(url) as response:
            answer = json.load(response)
            links = response.headers.get("Link") or ""
    except urllib.error.HTTPError as error:
        raise refusal(url, error) from None
    except (ValueError, RecursionError):
        raise MiniMindError(f"{url}: is not a hub's list of files") from None
    except (OSError, HTTPException) as error:
        raise MiniMindError(f"{url}: no connection ({error})") from None
    # A mirror hands on the hub's own address: only the question is taken from it.
    following = re.search(r'<([^>]*)>;\s*rel="next"', links)
    query = urllib.parse.urlsplit(following[1]).query if following else ""
    return answer, urllib.parse.parse_qs(query).get("cursor", [None])[0]


def _files(entries: Any, folder: str) -> Iterator[HubFile]:
    for entry in entries:
        if entry["type"] != "file":
            continue
        path = PurePosixPath(entry["path"])
        is_below = path.is_relative_to(folder) and path != PurePosixPath(folder)
        if not is_below or ".." in path.parts:
            raise ValueError(str(path))
        checksum = (entry.get("lfs") or entry)["oid"]
        if _CHECKSUM.fullmatch(checksum) is None:
            raise ValueError(checksum)
        yield HubFile(str(path), int(entry["size"]), checksum)


def opened(url: str, headers: dict[str, str] | None = None) -> Any:
    """The answer to a GET, whose ``checksum`` is what the hub says of the file; None: nothing.

    A token goes to the hub alone, never to the storage that the hub sends us to.

    Raises:
        urllib.error.URLError: as urllib's ``urlopen``.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "minimind", **(headers or {})})
    _authorize(request)
    redirects = _WatchRedirects()
    response = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT_SECONDS)
    response.checksum = redirects.checksum or _checksum_of(response.headers)
    return response


def refusal(url: str, error: urllib.error.HTTPError) -> MiniMindError:
    """What to say of an answer that is an error."""
    said = f"{url}: the server says {error.code} {error.reason}"
    if error.code in (401, 403):
        said += "; where a data set has terms, accept them on its page and set HF_TOKEN"
    return MiniMindError(said)


def _authorize(request: urllib.request.Request) -> None:
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token or _origin(request.full_url) != _origin(endpoint()):
        return
    if _TOKEN.fullmatch(token) is None:
        # http.client would put it into its message.
        raise ConfigError("HF_TOKEN: is no token: it has spaces, line breaks or other characters")
    # Of this request alone: urllib hands on all other headers when it is redirected.
    request.add_unredirected_header("Authorization", f"Bearer {token}")


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


class _WatchRedirects(urllib.request.HTTPRedirectHandler):
    """Remembers the checksum that a hub names before it sends us to its storage."""

    def __init__(self) -> None:
        self.checksum: str | None = None

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        self.checksum = self.checksum or _checksum_of(headers)
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            _authorize(request)
        return request


def _checksum_of(headers: HTTPMessage) -> str | None:
    # A hub's own ETag is a hash, too; any other server's may be anything.
    names = ("X-Linked-ETag", "X-Sha256", *(("ETag",) if headers.get("X-Repo-Commit") else ()))
    for name in names:
        if match := _CHECKSUM.fullmatch(headers.get(name) or ""):
            return match[1]
    return None
