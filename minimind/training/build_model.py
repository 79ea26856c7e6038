"""The model of a run: built from flags and weights, wrapped for its ranks, warmed up."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from minimind.checkpoint.state import Execution, TrainState
from minimind.config import TrainConfig
from minimind.data.mixture import Plan
from minimind.data.token_store import TokenStore
from minimind.distributed.ddp import wrap
from minimind.distributed.device import has_block_attention
from minimind.distributed.world import World
from minimind.errors import WeightsError
from minimind.model.architecture import Architecture
from minimind.model.language_model import LanguageModel
from minimind.model.layers import ATTENTION_FUNCTIONS
from minimind.planning.flops import flops_per_token
from minimind.planning.model import sizes_of
from minimind.training.compile_cache import cost_of_compiling, keep_compiled_code
from minimind.training.evaluate import score_batch, to_device
from minimind.training.inputs import find_weight
from minimind.training.profiler import name_compiled_kernels
from minimind.training.schedule import Schedule
from minimind.weights.state_dict import (
    EMBEDDING,
    StoredWeights,
    load_state_into,
    misfit,
    settings_of,
)

if TYPE_CHECKING:
    from minimind.model import MiniMindForCausalLM

log = logging.getLogger(__name__)

NOT_IN_TENSORS = ("rope_theta", "rope_parameters", "rms_norm_eps")
"""What a model computes with and no flag sets: kept from the weights that a run starts from."""


def init_model(
    config: TrainConfig,
    store: TokenStore,
    device: torch.device,
    saved: TrainState | None,
    stored: StoredWeights | None = None,
) -> LanguageModel | MiniMindForCausalLM:
    """Build the model that the flags describe, with the tokenizer's vocabulary.

    Args:
        saved: the checkpoint that its weights will come from.
        stored: the weights to start from where there is none.

    Returns:
        A ``LanguageModel`` if that can train it, else a ``MiniMindForCausalLM``: the same
        weights and numbers, but the latter takes seconds to import.

    Raises:
        WeightsError: ``--from_weight`` does not fit; the message names the tensors.
    """
    settings: dict[str, Any] = {}
    if saved is not None:
        settings = settings_of(saved.model_config, config.checkpoint_file)
    elif stored is not None:
        settings = stored.settings
    sizes = {
        **sizes_of(config),
        "vocab_size": store.vocab_size,
        "bos_token_id": store.bos_id,
        "eos_token_id": store.eos_id,
        "pad_token_id": store.pad_id,
        **{name: settings[name] for name in NOT_IN_TENSORS if settings.get(name) is not None},
    }
    model = _plain_model(config, device, sizes) or _transformers_model(config, sizes)
    if stored is not None:
        load_state_into(model, stored.state, str(find_weight(config)))
        log.info("weights from %s", find_weight(config))
    return model.to(device).train()


def _plain_model(
    config: TrainConfig, device: torch.device, sizes: dict[str, Any]
) -> LanguageModel | None:
    """The model in plain torch; None for what it does not know."""
    if has_block_attention(device.type) or config.gradient_checkpointing:
        return None
    if config.attention not in ("auto", *ATTENTION_FUNCTIONS):
        return None
    architecture = Architecture.plain(**sizes)
    return LanguageModel(architecture) if architecture else None


def _transformers_model(config: TrainConfig, sizes: dict[str, Any]) -> MiniMindForCausalLM:
    from minimind.model import MiniMindConfig, MiniMindForCausalLM

    model = MiniMindForCausalLM(MiniMindConfig(**sizes))
    model.config.use_cache = False
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model


def check_fit(config: TrainConfig, stored: StoredWeights | None) -> None:
    """Check that ``--from_weight`` has the shape that the flags describe, whatever its vocabulary.

    Before the text is tokenised, which can take hours, and says how large the vocabulary is.

    Raises:
        WeightsError: it has not; the message names the tensors.
    """
    if stored is None:
        return
    embedding = stored.state.get(EMBEDDING)
    vocabulary = len(embedding) if embedding is not None and embedding.ndim else 1
    with torch.device("meta"):
        model = LanguageModel(Architecture(**sizes_of(config), vocab_size=vocabulary))
    if fault := misfit(model, stored.state, str(find_weight(config))):
        raise WeightsError(fault)


def planned_flops(
    config: TrainConfig,
    architecture: Architecture,
    plan: Plan,
    schedule: Schedule,
    world_size: int,
) -> float:
    """FLOPs that one rank has before it in the whole run, what a resume finds done included."""
    # The last update of an epoch may be short: with little data all of them are.
    rows = min(schedule.total_steps * schedule.rows_per_update, config.epochs * plan.n_rows)
    per_row = plan.max_seq_len * flops_per_token(architecture, plan.max_seq_len)
    return rows / world_size * per_row


def make_replica(
    model: LanguageModel | MiniMindForCausalLM,
    plan: Plan,
    config: TrainConfig,
    world: World,
    autocast: Any,
    execution: Execution,
    held_out: Plan | None = None,
) -> nn.Module:
    """Compile the model, wrap it for the exchange of gradients, and warm both up.

    Args:
        held_out: rows that are scored in training: a pass without gradients is compiled apart.
    """
    model.set_attn_implementation(execution.attention)
    if execution.compile:
        keep_compiled_code(config.cache_dir, world.device)
        if config.profile:
            name_compiled_kernels()
        log.info("compiling: %s; --compile off does without", cost_of_compiling())
        model.compile(dynamic=False)
    replica = wrap(model, world)
    if execution.compile or world.is_distributed:
        warm_up(replica, plan, config, world, autocast)
    if execution.compile and held_out is not None:
        warm_up_scoring(model, held_out, config, world, autocast)
    return replica


def warm_up(
    replica: nn.Module, plan: Plan, config: TrainConfig, world: World, autocast: Any
) -> None:
    """One forward and backward pass over filler rows, which leaves no trace in the model.

    Compilation happens here. And DDP regroups its buckets after its first pass, which
    changes the order of additions in the all-reduce: a resumed run would differ in the last
    bit from one that went through, were its first real step not its second pass.
    """
    start = time.perf_counter()
    batch = to_device(plan.build(np.empty(0, dtype=np.int64), config.batch_size), world.device)
    targets = batch.pop("targets")
    with autocast:
        out = replica(**batch, shift_labels=targets, num_items_in_batch=1)
    (out.loss + out.aux_loss).backward()
    replica.zero_grad(set_to_none=True)
    log.info("warmed up in %.1f s", time.perf_counter() - start)


def warm_up_scoring(
    model: nn.Module, held_out: Plan, config: TrainConfig, world: World, autocast: Any
) -> None:
    """Score filler rows once, so that no compiling falls into training, where a stop must wait."""
    start = time.perf_counter()
    rows = held_out.build(np.empty(0, dtype=np.int64), config.batch_size)
    model.eval()
    with torch.no_grad():
        score_batch(model, rows, world.device, autocast)
    model.train()
    log.info("warmed up the scoring of held-out text in %.1f s", time.perf_counter() - start)
