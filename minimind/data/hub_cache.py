"""Data sets of the Hugging Face hub by name, as far as they were downloaded; never the network."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from minimind.errors import DataError

_NAME = re.compile(r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:/(?P<rest>.+))?")


def hub_cache() -> Path:
    """Where ``huggingface_hub`` keeps what it has downloaded."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if given := os.environ.get(name):
            return _expanded(given)
    return _home() / "hub"


def datasets_cache() -> Path:
    """Where ``datasets`` keeps what it has prepared, as Arrow."""
    given = os.environ.get("HF_DATASETS_CACHE")
    return _expanded(given) if given else _home() / "datasets"


def _home() -> Path:
    if given := os.environ.get("HF_HOME"):
        return _expanded(given)
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"


def _expanded(path: str) -> Path:
    # Path.expanduser raises where a user has no home, as in some containers.
    return Path(os.path.expanduser(path))


def cached_dataset(name: str) -> str | None:
    """The path behind ``OWNER/NAME``, or ``OWNER/NAME/FILE_OR_GLOB``; None: it is not there.

    As it was downloaded, else as ``datasets`` has prepared it.

    Raises:
        DataError: it was prepared in several configurations, and none of them is named.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    owner, dataset, rest = match["owner"], match["name"], match["rest"]
    found = _snapshot(hub_cache() / f"datasets--{owner}--{dataset}")
    if found is None:
        found, rest = _prepared(owner, dataset, rest)
    if found is None:
        return None
    return str(found / rest) if rest else str(found)


def _prepared(owner: str, name: str, rest: str | None) -> tuple[Path | None, str | None]:
    """``CONFIG/VERSION/HASH`` of a prepared data set, and what is left of ``[CONFIG/]REST``."""
    folder = datasets_cache() / f"{owner}___{_snake_case(name)}"
    infos = sorted(folder.glob("*/*/*/dataset_info.json"))
    there = [info.parent for info in infos if not info.parent.name.endswith(".incomplete")]
    config, _, behind = (rest or "").partition("/")
    named = [path for path in there if path.relative_to(folder).parts[0] == config]
    if named:
        there, rest = named, behind
    if len(there) > 1:
        configs = ", ".join(dict.fromkeys(path.relative_to(folder).parts[0] for path in there))
        raise DataError(
            f"{owner}/{name}: is prepared several times in {folder} ({configs}); name one "
            f"configuration, as {owner}/{name}/CONFIG, or a folder there"
        )
    return (there[0] if there else None), rest


def _snake_case(name: str) -> str:
    """``TinyStories-v2`` → ``tiny_stories-v2``, as ``datasets`` names its folders."""
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z\d])([A-Z])", r"\1_\2", name).lower()


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
