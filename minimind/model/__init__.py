"""The MiniMind model: one set of layers, in plain torch and in transformers' classes.

``language_model`` trains without transformers, whose model classes take longer to import than
torch. Its classes are imported when one is first taken from this package; from then on
transformers' Auto classes know MiniMind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_minimind import MiniMindConfig
    from .modeling_minimind import MiniMindForCausalLM, MiniMindModel

__all__ = ["MiniMindConfig", "MiniMindForCausalLM", "MiniMindModel"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import auto_classes

    return getattr(auto_classes, name)
