"""The words of ``--data_path``: plain paths, or sources with a weight each (``zh.jsonl:0.7``)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from minimind.errors import ConfigError

MAX_WEIGHT_CHARS = 50
"""Python reads no number of very many digits."""

_WEIGHTED = re.compile(r"(?P<path>.+):(?P<weight>-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?)")


@dataclass(frozen=True)
class WeightedSource:
    """A file or glob, and its share of the rows once all weights are divided by their sum."""

    path: str
    weight: Fraction


def parse_sources(words: Sequence[str]) -> list[WeightedSource] | None:
    """Return the weighted sources that ``--data_path`` names; None: no word has a weight.

    ``a.jsonl:0.7,b.jsonl:0.3`` in one word is read as two. A word that is the name of a file has
    no weight, whatever it looks like. Weights are exact decimals, so
    that every machine gets the same rows.

    Raises:
        ConfigError: only some have a weight, a weight is not above 0 or too long, or a path
            comes twice.
    """
    parts = [part for word in words for part in _split(word)]
    matches = [None if _exists(part) else _WEIGHTED.fullmatch(part) for part in parts]
    if not any(matches):
        return None
    sources: dict[str, WeightedSource] = {}
    for part, match in zip(parts, matches, strict=True):
        if match is None:
            raise ConfigError(
                f"--data_path {part} has no weight, but other sources have; "
                f"write {part}:WEIGHT, or leave all weights out"
            )
        path = match["path"]
        if len(match["weight"]) > MAX_WEIGHT_CHARS:
            raise ConfigError(
                f"--data_path {path}: a weight has {MAX_WEIGHT_CHARS} characters at most"
            )
        weight = Fraction(match["weight"])
        if weight <= 0:
            raise ConfigError(f"--data_path {part}: the weight must be greater than 0")
        if path in sources:
            raise ConfigError(f"--data_path {path} is named twice; give it one weight")
        sources[path] = WeightedSource(path, weight)
    return list(sources.values())


def _exists(word: str) -> bool:
    """Whether there is a file of this very name, which then is meant (``dump_12:30``)."""
    try:
        return os.path.lexists(os.path.expanduser(word))
    except ValueError:  # no name that a file could have
        return False


def _split(word: str) -> list[str]:
    parts = [word] if _exists(word) else word.split(",")
    return parts if all(map(_WEIGHTED.fullmatch, parts)) else [word]
