"""MiniMind pretraining: a small Qwen3-like language model, trained exactly and resumably.

Importing this package costs nothing: torch loads only when a run starts, so that a
login node without torch can still validate flags through :mod:`minimind.config`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["TrainConfig", "__version__", "pretrain"]

if TYPE_CHECKING:
    from minimind.config import TrainConfig
    from minimind.train_pretrain import pretrain


def __getattr__(name: str) -> Any:
    if name == "TrainConfig":
        from minimind.config import TrainConfig

        return TrainConfig
    if name == "pretrain":
        from minimind.train_pretrain import pretrain

        return pretrain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
