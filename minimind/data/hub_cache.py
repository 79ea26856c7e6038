"""Data sets of the Hugging Face hub by name, as far as they were downloaded; never the network."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_NAME = re.compile(r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:/(?P<rest>.+))?")


def hub_cache() -> Path:
    """Where ``huggingface_hub`` keeps what it has downloaded."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if given := os.environ.get(name):
            return _expanded(given)
    return _home() / "hub"


def _home() -> Path:
    if given := os.environ.get("HF_HOME"):
        return _expanded(given)
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"


def _expanded(path: str) -> Path:
    # Path.expanduser raises where a user has no home, as in some containers.
    return Path(os.path.expanduser(path))


def cached_dataset(name: str) -> str | None:
    """The path behind ``OWNER/NAME``, or ``OWNER/NAME/FILE_OR_GLOB``; None: it is not there."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    folder = hub_cache() / f"datasets--{match['owner']}--{match['name']}"
    snapshot = _snapshot(folder)
    if snapshot is None:
        return None
    return str(snapshot / match["rest"]) if match["rest"] else str(snapshot)


def _snapshot(folder: Path) -> Path | None:
    """The main branch as it was last seen; without that, the only commit that there is."""
    snapshots = folder / "snapshots"
    with contextlib.suppress(OSError, ValueError):
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
        if re.fullmatch(r"\w+", commit) and (snapshots / commit).is_dir():
            return snapshots / commit
    with contextlib.suppress(OSError, ValueError):
        (only,) = snapshots.iterdir()
        return only
    return None


def looks_like_dataset(name: str) -> bool:
    """Whether a path that does not exist may be meant as a name on the hub."""
    return re.fullmatch(r"[\w-]+/[\w-]+", name) is not None
