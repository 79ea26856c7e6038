"""What a weight file says of itself, inside it: how far its run was, and its tokenizer.

A state dict has room for it: torch keeps an attribute ``_metadata`` (versions of modules by their
names) through ``torch.save`` and the weights-only loader; ``load_state_dict(strict=True)`` reads
only the names of modules in it. So a ``.pth`` that is copied away from its run still says which
tokenizer the rows of its embedding belong to, and every program that loads state dicts loads it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Any) -> Origin:
        """What was written, or as much of it as makes sense: the file may be anybody's."""
        if not isinstance(found, Mapping):
            return cls()
        numbers = {
            name: found[name] for name in ("step", "bos_id", "eos_id") if is_whole(found.get(name))
        }
        tokenizer = found.get("tokenizer")
        return cls(tokenizer=str(tokenizer) if is_word(tokenizer) else "", **numbers)


def with_origin(state: Mapping[str, Tensor], origin: Origin) -> OrderedDict[str, Tensor]:
    """The state dict, to be saved with ``origin`` in it."""
    marked = OrderedDict(state)
    marked._metadata = OrderedDict({KEY: origin.to_dict()})  # type: ignore[attr-defined]
    return marked


def origin_of(state: Any) -> Origin:
    """What a loaded state dict says of itself."""
    metadata = getattr(state, "_metadata", None)
    return Origin.from_dict(metadata.get(KEY)) if isinstance(metadata, Mapping) else Origin()
