"""A run's weights, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minimind.config import TrainConfig, write_config_file
from minimind.model import MiniMindConfig, MiniMindForCausalLM

VOCABULARY = 384
"""Entries of the tests' tokenizer."""


def make_model(**changes: Any) -> MiniMindForCausalLM:
    """Two layers of width 32, with weights large enough for differences to show."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "moe_intermediate_size": 24,
        "initializer_range": 0.3,
        **changes,
    }
    return MiniMindForCausalLM(MiniMindConfig(**settings)).eval()


def write_weight(folder: Path, model: MiniMindForCausalLM, tokenizer: Path) -> Path:
    """A ``.pth`` with the ``config.toml`` that a run leaves beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    moe = model.config.use_moe
    config = TrainConfig(
        hidden_size=model.config.hidden_size,
        use_moe=int(moe),
        num_experts_per_tok=model.config.num_experts_per_tok,
        tokenizer_path=str(tokenizer),
    )
    write_config_file(config, folder / "config.toml")
    file = folder / f"pretrain_{model.config.hidden_size}{'_moe' if moe else ''}.pth"
    torch.save({name: tensor.half() for name, tensor in model.state_dict().items()}, file)
    return file


def write_checkpoint(file: Path, model: MiniMindForCausalLM, tokenizer: Path) -> Path:
    """What a run's checkpoint holds, as far as anything but a resume reads it."""
    flags = {
        **TrainConfig(hidden_size=model.config.hidden_size).to_dict(),
        "tokenizer_path": str(tokenizer),
    }
    state = {
        "model": model.state_dict(),
        "model_config": model.config.to_dict(),
        "config": flags,
        "optimizer": {},
        "scaler": {},
        "wandb_id": None,
        "epoch": 0,
        "step": 60,
        "global_step": 20,
        "tokens": 12345,
        "rows_done": 240,
        "skipped_steps": 0,
        "world_size": 1,
        "rows_per_update": 12,
        "data": "fingerprint",
        "ranks": [{"rng": {}, "meter": torch.zeros(3), "grad_norm": torch.zeros(())}],
    }
    torch.save(state, file)
    return file


def random_ids(rows: int = 2, length: int = 40) -> torch.Tensor:
    """Token ids [rows, length], always the same."""
    return torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))
