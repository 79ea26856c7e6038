"""What a run says of its needs before it builds a model, and whether it can be at all."""

from __future__ import annotations

import logging
import os

import torch

from minimind.config import AUTO, TrainConfig
from minimind.distributed.device import CPU, MPS, device_name, memory_left
from minimind.distributed.world import World
from minimind.errors import ConfigError
from minimind.planning.model import vocabulary_of
from minimind.planning.rows import Rows
from minimind.planning.run_plan import Machine, RunPlan, plan_run, this_host
from minimind.planning.text import head, memory_table
from minimind.rundir import env
from minimind.training.execution import pays_to_compile

log = logging.getLogger(__name__)


def machine_of(device: torch.device, ranks: int) -> Machine:
    """Where a rank on ``device`` runs; ``ranks`` of this run are on this machine."""
    if device.type == CPU:
        return this_host(ranks)
    # Apple's GPUs only recommend a limit of the memory that they share with the CPU.
    found = None if device.type == MPS else memory_left(device)
    free, total, _ = found or (None, None, 0)
    return Machine(device.type, device_name(device), total, free)


def refuse_what_cannot_fit(config: TrainConfig, world: World, dtype: str) -> None:
    """See, before the text is tokenised, that there is memory for weights and optimizer.

    Raises:
        ConfigError: there is not; on every rank. The log has the whole plan.
    """
    plan = _plan(config, world, Rows(1), vocabulary_of(config.tokenizer_path) or 1, dtype)
    if plan.cannot_fit:
        log.info("%s", memory_table(plan))
        raise ConfigError(refusal(plan))


def refusal(plan: RunPlan) -> str:
    """Why a run cannot be, and what to change."""
    machine = plan.machine
    assert machine.memory is not None
    shared = f" for each of {machine.ranks} ranks" if machine.ranks > 1 else ""
    return (
        f"the model does not fit: weights, gradients and optimizer alone take "
        f"{plan.memory.fixed / 1e9:.1f} GB{shared}, and there are "
        f"{(machine.memory + machine.swap) / 1e9:.1f} GB ({machine.name}); lower --hidden_size "
        f"{plan.config.hidden_size}, --num_hidden_layers {plan.config.num_hidden_layers}"
        + (f" or --num_experts {plan.config.num_experts}" if plan.config.use_moe else "")
    )


def announce_plan(
    config: TrainConfig, world: World, n_rows: int, vocab_size: int, dtype: str
) -> None:
    """Say what the run takes, by arithmetic, and warn of what may not be there."""
    plan = _plan(config, world, Rows(n_rows), vocab_size, dtype)
    for line in head(plan):
        log.info("%s", line)
    if not plan.fits and config.batch_size != AUTO:
        log.warning(
            "this may need more memory than there is; `minimind plan` with the same flags says "
            "what would make it fit"
        )
    if not plan.disk.suffices:
        log.warning(
            "--checkpoint_dir %s has too little free space for the checkpoints of this run; free "
            "some, or lower --keep_checkpoints %d",
            config.checkpoint_dir,
            config.keep_checkpoints,
        )


def _plan(config: TrainConfig, world: World, rows: Rows, vocab_size: int, dtype: str) -> RunPlan:
    machine = machine_of(world.device, _ranks_here(world))
    return plan_on(config, rows, machine, vocab_size, dtype, world.world_size)


def plan_on(
    config: TrainConfig, rows: Rows, machine: Machine, vocab_size: int, dtype: str, ranks: int
) -> RunPlan:
    """A plan that knows whether this machine would compile the model."""
    plan = plan_run(config, rows, machine, vocab_size=vocab_size, dtype=dtype, ranks=ranks)
    pays = pays_to_compile(machine.device, plan.flops_per_update * plan.full_updates / ranks)
    if config.compile == "off" or not (pays or config.compile == "on"):
        return plan
    return plan_run(
        config, rows, machine, vocab_size=vocab_size, dtype=dtype, ranks=ranks, compiled=True
    )


def _ranks_here(world: World) -> int:
    """Ranks that share this machine, as far as whoever started them has said: 1 at least."""
    said = os.environ.get(env.LOCAL_WORLD_SIZE, "")
    return max(1, min(world.world_size, int(said))) if said.isdecimal() else 1
