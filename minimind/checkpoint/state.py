"""What a checkpoint holds. No other module spells its keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from minimind.errors import WeightsError
from minimind.system.validators import is_whole
from minimind.weights.torch_file import plain_tensor

T = TypeVar("T")

FORMAT = 1

WEIGHT_KEYS = ("model", "state_dict", "model_state_dict")
"""Where a checkpoint has its weights: ours and upstream's, Lightning's, and torch's tutorials'."""

MARKS = {"model", "optimizer", "scaler", "epoch", "step", "global_step", "wandb_id"}
"""Keys that tell a checkpoint from other torch files."""


@dataclass
class Progress:
    """How far the run is, at an optimiser-step boundary."""

    epoch: int = 0
    """Epoch under way, 0-based."""
    step: int = 0
    """Micro-steps done in this epoch."""
    rows_done: int = 0
    """Rows of this epoch trained, by all ranks together."""
    global_step: int = 0
    """Optimiser steps done in the whole run."""
    tokens: int = 0
    """Real tokens trained in the whole run."""
    skipped_steps: int = 0
    """Optimiser steps skipped because the loss or gradient was not finite."""


@dataclass(frozen=True)
class RankState:
    """What every rank has of its own."""

    rng: dict[str, Any]
    """As of ``rng_state``."""
    meter: torch.Tensor
    """As of ``LossMeter.snapshot``: [3]."""
    grad_norm: torch.Tensor
    """Of the newest optimiser step, a scalar."""


@dataclass(frozen=True)
class Execution:
    """What ``--dtype``, ``--compile`` and ``--attention`` came to on this machine."""

    device: str
    dtype: str
    compile: bool
    attention: str


@dataclass(frozen=True)
class TrainState:
    """All that exact resume needs."""

    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    progress: Progress
    wandb_id: str | None
    world_size: int
    rows_per_update: int
    ranks: list[RankState]
    config: dict[str, Any]
    """The run's flags."""
    execution: Execution | None
    """None in checkpoints from before there was a choice."""
    model_config: dict[str, Any]
    data: str
    """Fingerprint of the rows."""
    origin: dict[str, Any] = field(default_factory=dict)
    """What the weights say of themselves: as ``minimind.weights.origin``; {}: older versions'."""

    def to_dict(self) -> dict[str, Any]:
        """What is written."""
        return {
            "format": FORMAT,
            "model": self.model,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
            **asdict(self.progress),
            "wandb_id": self.wandb_id,
            "world_size": self.world_size,
            "rows_per_update": self.rows_per_update,
            "ranks": [dict(vars(rank)) for rank in self.ranks],
            "config": self.config,
            "execution": asdict(self.execution) if self.execution else None,
            "model_config": self.model_config,
            "data": self.data,
            "origin": self.origin,
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any], path: Path) -> TrainState:
        """What was written, once it is seen to be all there and of the right types.

        The values are not judged: a damaged file fails its checksums before.

        Raises:
            WeightsError: something else wrote it, or somebody changed it.
        """
        if wrong := faults(found):
            raise WeightsError(
                f"{path} is not a checkpoint that this program can go on from: its "
                f"{', '.join(wrong)} cannot be used; start from its weights with --from_weight"
            )
        return cls(
            model=found["model"],
            optimizer=found["optimizer"],
            scaler=found["scaler"],
            progress=_pick(Progress, found),
            wandb_id=found["wandb_id"],
            world_size=found["world_size"],
            rows_per_update=found["rows_per_update"],
            ranks=[_pick(RankState, rank) for rank in found["ranks"]],
            config=found["config"],
            execution=_pick(Execution, found["execution"]) if "execution" in found else None,
            model_config=found["model_config"],
            data=found["data"],
            origin=dict(found["origin"]) if isinstance(found.get("origin"), Mapping) else {},
        )


def _pick(kind: type[T], found: Mapping[str, Any]) -> T:
    return kind(**{field.name: found[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def faults(found: Mapping[str, Any]) -> list[str]:
    """The keys of a checkpoint that are missing or of another type than a resume needs."""
    ranks, model, config = found.get("ranks"), found.get("model"), found.get("config")
    right = {
        **{name: is_whole(found.get(name)) for name in vars(Progress())},
        "world_size": is_whole(found.get("world_size")),
        "rows_per_update": is_whole(found.get("rows_per_update")),
        "optimizer": isinstance(found.get("optimizer"), dict),
        "scaler": isinstance(found.get("scaler"), dict),
        "model": isinstance(model, dict) and all(map(plain_tensor, model.values())),
        "model_config": isinstance(found.get("model_config"), dict),
        "data": isinstance(found.get("data"), str),
        "wandb_id": isinstance(found.get("wandb_id"), (str, type(None))),
        "config": isinstance(config, dict)
        and all(
            is_whole(config.get(name)) and config[name] > 0
            for name in ("batch_size", "accumulation_steps")
        ),
        "execution": "execution" not in found or _is_execution(found["execution"]),
        "ranks": isinstance(ranks, list)
        and is_whole(found.get("world_size"))
        and len(ranks) == found["world_size"]
        and all(map(_is_rank, ranks)),
    }
    return [name for name, is_right in right.items() if not is_right]


def _is_execution(value: Any) -> bool:
    texts = ("device", "dtype", "attention")
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name), str) for name in texts)
        and isinstance(value.get("compile"), bool)
    )


def _is_rank(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("rng"), dict)
        and all(plain_tensor(value.get(name)) for name in ("meter", "grad_norm"))
        and value["meter"].shape == (3,)
    )


def is_checkpoint(found: Any) -> bool:
    """Whether a torch file's content is a checkpoint; whether it can be used is another matter."""
    return isinstance(found, dict) and found.keys() >= MARKS


def step_of(found: Mapping[str, Any]) -> int:
    """Optimiser steps in a checkpoint; -1 when it does not say."""
    step = found["global_step"]
    return step if is_whole(step) else -1


@dataclass(frozen=True)
class SavedModel:
    """A checkpoint's model, for who needs nothing else of it, of whatever age or program."""

    weights: Any
    model_config: dict[str, Any] | None
    """None where it is not on record."""
    config: dict[str, Any]
    """The run's flags; empty where they are not on record."""
    progress: Progress | None
    origin: Any = None
    """What the weights say of themselves, unchecked."""

    @classmethod
    def of(cls, found: Any) -> SavedModel:
        """The model in what a torch file holds, which may also be nothing but weights."""
        content: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
        inner = [content[key] for key in WEIGHT_KEYS if isinstance(content.get(key), Mapping)]
        if not inner:
            return cls(found, None, {}, None)
        model_config, config = found.get("model_config"), found.get("config")
        counts = {name: found[name] for name in vars(Progress()) if is_whole(found.get(name))}
        return cls(
            weights=inner[0],
            model_config=dict(model_config) if isinstance(model_config, Mapping) else None,
            config=dict(config) if isinstance(config, Mapping) else {},
            progress=Progress(**counts) if "global_step" in counts else None,
            origin=found.get("origin"),
        )
