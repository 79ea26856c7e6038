"""What a weight file says of itself, inside it: how far its run was, and its tokenizer.

A state dict has room for it: torch keeps an attribute ``_metadata`` (versions of modules by their
names) through ``torch.save`` and the weights-only loader; ``load_state_dict(strict=True)`` reads
only the names of modules in it. So a ``.pth`` that is copied away from its run still says which
tokenizer the rows of its embedding belong to, and every program that loads state dicts loads it.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from minimind.data.tokenizer import MOST_IDS, tokenizer_identity
from minimind.errors import WeightsError
from minimind.system.validators import is_whole, is_word

KEY = "minimind"
"""Beside the names of modules in ``_metadata``."""


@dataclass(frozen=True)
class Origin:
    """Attributes are None or "" where a file does not say.

    Attributes:
        step: optimiser steps behind the weights.
        tokenizer: as ``minimind.data.tokenizer.tokenizer_identity``.
        bos_id, eos_id: what began and ended each document; None also where nothing did.
    """

    step: int | None = None
    tokenizer: str = ""
    bos_id: int | None = None
    eos_id: int | None = None

    @classmethod
    def of_tokenizer(cls, tokenizer: Any) -> Origin:
        """What weights have to say that are trained with ``tokenizer``."""
        identity = tokenizer_identity(tokenizer)
        return cls(None, identity, tokenizer.bos_token_id, tokenizer.eos_token_id)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: Any) -> Origin:
        """As :meth:`from_dict`, of a text, or of whatever a file has in its place."""
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return cls()

    @classmethod
    def from_dict(cls, found: Any) -> Origin:
        """What was written, or as much of it as makes sense: the file may be anybody's."""
        if not isinstance(found, Mapping):
            return cls()
        ids = {name: found[name] for name in ("bos_id", "eos_id") if _is_id(found.get(name))}
        step, tokenizer = found.get("step"), found.get("tokenizer")
        return cls(
            step=step if is_whole(step) else None,
            tokenizer=str(tokenizer) if is_word(tokenizer) else "",
            **ids,
        )


def _is_id(value: Any) -> bool:
    return is_whole(value) and value < MOST_IDS


UNKNOWN = Origin()
"""Of weights that say nothing."""


def with_origin(state: Mapping[str, Tensor], origin: Origin) -> OrderedDict[str, Tensor]:
    """The state dict, to be saved with ``origin`` in it."""
    marked = OrderedDict(state)
    marked._metadata = OrderedDict({KEY: origin.to_dict()})  # type: ignore[attr-defined]
    return marked


def origin_of(state: Any) -> Origin:
    """What a loaded state dict says of itself."""
    metadata = getattr(state, "_metadata", None)
    return Origin.from_dict(metadata.get(KEY)) if isinstance(metadata, Mapping) else Origin()


def check_tokenizer(origin: Origin, tokenizer: Any, weights: Path, folder: Path) -> None:
    """Refuse a tokenizer that is known to be another than the weights were trained with.

    With one of the same size nothing else would notice: the text is only predicted worse.

    Raises:
        WeightsError: it is another; the message says in what.
    """
    if not origin.tokenizer:
        return
    given = Origin.of_tokenizer(tokenizer)
    differs = ["the ids of a text differ"] if given.tokenizer != origin.tokenizer else []
    for role, mine, theirs in (
        ("begin", origin.bos_id, given.bos_id),
        ("end", origin.eos_id, given.eos_id),
    ):
        if not differs and mine != theirs:
            differs.append(f"the {role} token is {_id(theirs)}, not {_id(mine)}")
    if differs:
        raise WeightsError(
            f"{weights} was trained with another tokenizer than {folder}: {differs[0]}; name its "
            "own by --tokenizer_path, or insist with --allow_other_tokenizer"
        )


def _id(token: int | None) -> str:
    return "none" if token is None else str(token)
