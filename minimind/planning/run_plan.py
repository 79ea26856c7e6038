"""What a run takes, all together, and what would make it fit or faster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from minimind.config import TrainConfig
from minimind.planning.cards import CARDS
from minimind.planning.disk import Disk, disk_of
from minimind.planning.flops import flops_per_token
from minimind.planning.memory import Memory, memory_of
from minimind.planning.model import architecture_of
from minimind.planning.parameters import Parameters, count_parameters
from minimind.planning.rows import Rows
from minimind.planning.updates import micro_batch, planned_updates, rows_per_update
from minimind.system.memory import host_memory

TYPICAL_MFU = 0.3
"""Share of a data sheet's peak that a run reaches: 30.1 % at 768×16 on an H100
(docs/performance.md). Smaller models reach less."""


OTHERS_TO_FIT: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--gradient_checkpointing", {"gradient_checkpointing": True}),
    ("--optimizer muon, which has another default --learning_rate", {"optimizer": "muon"}),
    (
        "--gradient_checkpointing --batch_size 1",
        {"gradient_checkpointing": True, "batch_size": 1},
    ),
)
"""Flags that may make a run fit, beside a smaller micro-batch."""


@dataclass(frozen=True)
class Machine:
    """Where each rank runs.

    Attributes:
        device: its kind: "cpu", as torch names it, or "accelerator" of any other.
        name: of what has the memory.
        memory: bytes that the ranks of one machine share on a CPU, or that each has on an
            accelerator; None: not known.
        free: of it, now; None: not known.
        swap: what the host may have beside it.
        ranks: of this run that share it.
        peak: FLOP/s of a rank by a data sheet; None: only a measurement can tell.
    """

    device: str
    name: str
    memory: int | None
    free: int | None = None
    swap: int = 0
    ranks: int = 1
    peak: float | None = None


def this_host(ranks: int = 1) -> Machine:
    """A CPU run's machine."""
    found = host_memory()
    if found is None:
        return Machine("cpu", "host", None, ranks=ranks)
    return Machine("cpu", "host", found.total, found.free, found.swap, ranks)


def card(name: str, dtype: str) -> Machine:
    """A machine with a card that ``--on`` names."""
    found = CARDS[name]
    return Machine("accelerator", found.name, found.memory, peak=found.peak(dtype))


@dataclass(frozen=True)
class RunPlan:
    """All of it.

    Attributes:
        updates: optimizer steps.
        ranks: over all machines.
        measured: seconds of an update, and peak bytes, of a trial on this machine; None: no trial.
    """

    config: TrainConfig
    parameters: Parameters
    rows: Rows
    vocab_size: int
    ranks: int
    dtype: str
    compiled: bool
    updates: int
    memory: Memory
    disk: Disk
    machine: Machine
    flops_per_update: float
    measured: tuple[float, int] | None = None

    @property
    def tokens_per_update(self) -> int:
        return rows_per_update(self.config, self.ranks) * self.config.max_seq_len

    @property
    def bytes_of_a_rank(self) -> int:
        """By measurement, or else by arithmetic."""
        if self.measured is not None:
            return self.measured[1]
        return self.memory.total(self.machine.device)

    @property
    def room(self) -> int | None:
        """Bytes that there are for a rank."""
        memory = self.machine.memory
        return None if memory is None else memory // self.machine.ranks

    @property
    def fits(self) -> bool:
        """Whether the peak is below what there is; True where that is not known."""
        return self.room is None or self.bytes_of_a_rank <= self.room

    @property
    def cannot_fit(self) -> bool:
        """Whether weights, gradients and optimizer alone are more than there is, swap included."""
        machine = self.machine
        if machine.memory is None:
            return False
        return self.memory.fixed * machine.ranks > machine.memory + machine.swap

    @property
    def seconds_per_update(self) -> float | None:
        """Measured, or estimated by a data sheet; None: not known."""
        if self.measured is not None:
            return self.measured[0]
        if self.machine.peak is None:
            return None
        return self.flops_per_update / self.ranks / (self.machine.peak * TYPICAL_MFU)

    @property
    def seconds(self) -> float | None:
        """To the end of training; None: not known."""
        one = self.seconds_per_update
        if one is None:
            return None
        limit = self.config.max_minutes * 60 or float("inf")
        return min(one * self.full_updates, limit)

    @property
    def full_updates(self) -> float:
        """Updates by their rows: the last of an epoch may be a short one."""
        whole = self.config.epochs * self.rows.count / rows_per_update(self.config, self.ranks)
        return min(float(self.updates), whole)


def plan_run(
    config: TrainConfig,
    rows: Rows,
    machine: Machine,
    *,
    vocab_size: int,
    dtype: str,
    ranks: int = 1,
    compiled: bool = False,
) -> RunPlan:
    """Work it out.

    Args:
        vocab_size: of the tokenizer.
        dtype: what the device computes in under these flags.
        compiled: whether torch's compiler runs.
    """
    architecture = architecture_of(config, vocab_size)
    counted = count_parameters(architecture)
    rows_an_update = min(rows_per_update(config, ranks), rows.count)
    per_row = config.max_seq_len * flops_per_token(architecture, config.max_seq_len)
    return RunPlan(
        config=config,
        parameters=counted,
        rows=rows,
        vocab_size=vocab_size,
        ranks=ranks,
        dtype=dtype,
        compiled=compiled,
        updates=planned_updates(config, rows.count, ranks),
        memory=_memory(config, architecture, machine, dtype, ranks, compiled),
        disk=disk_of(config, counted, rows.new_tokens, vocab_size),
        machine=machine,
        flops_per_update=rows_an_update * per_row,
    )


def _memory(
    config: TrainConfig,
    architecture: Any,
    machine: Machine,
    dtype: str,
    ranks: int,
    compiled: bool,
) -> Memory:
    return memory_of(
        architecture,
        rows=micro_batch(config),
        tokens=config.max_seq_len,
        dtype=dtype,
        optimizer=config.optimizer,
        device=machine.device,
        recompute=config.gradient_checkpointing,
        packed=config.pack != "none",
        ranks=ranks,
        compiled=compiled,
    )


def to_fit(plan: RunPlan) -> Iterator[str]:
    """What would make it fit, each with the memory that it leads to."""
    if plan.fits or plan.room is None:
        return
    smaller = _smaller_batch(plan)
    if smaller is not None:
        config, total = smaller
        yield (
            f"--batch_size {config.batch_size} --accumulation_steps {config.accumulation_steps}, "
            f"with which an update keeps its rows: {total / 1e9:.1f} GB"
        )
    advised = smaller is not None
    for flags, changes in OTHERS_TO_FIT:
        total = _replan(plan, **changes).memory.total(plan.machine.device)
        if total <= plan.room:
            advised = True
            yield f"{flags}: {total / 1e9:.1f} GB"
    if not advised:
        experts = ", --num_experts" if plan.config.use_moe else ""
        yield f"a smaller model: --hidden_size, --num_hidden_layers{experts}"


def faster(plan: RunPlan) -> Iterator[str]:
    """What would make it faster, where a flag keeps it from being so."""
    config = plan.config
    if config.gradient_checkpointing and plan.room is not None:
        kept = _replan(plan, gradient_checkpointing=False)
        if kept.memory.total(plan.machine.device) <= plan.room:
            yield "no --gradient_checkpointing: all activations fit, and nothing is computed twice"
    if config.pack == "none":
        yield "--pack bestfit: no padding is computed"
    if config.dtype == "float32" and plan.machine.device != "cpu":
        yield "--dtype bfloat16"
    if config.compile == "off":
        yield "--compile auto: a third off every step where it pays"


def _smaller_batch(plan: RunPlan) -> tuple[TrainConfig, int] | None:
    """The largest smaller micro-batch that fits, with more of them an update."""
    size = micro_batch(plan.config)
    factor = 2
    while size % factor == 0:
        steps = plan.config.accumulation_steps * factor
        changed = _replan(plan, batch_size=size // factor, accumulation_steps=steps)
        total = changed.memory.total(plan.machine.device)
        if plan.room is not None and total <= plan.room:
            return changed.config, total
        factor *= 2
    return None


def _replan(plan: RunPlan, **changes: Any) -> RunPlan:
    """The same run with other flags, by arithmetic."""
    return plan_run(
        replace(plan.config, **changes),
        plan.rows,
        plan.machine,
        vocab_size=plan.vocab_size,
        dtype=plan.dtype,
        ranks=plan.ranks,
        compiled=plan.compiled,
    )


def as_dict(plan: RunPlan) -> dict[str, Any]:
    """For ``--json``."""
    return {
        "parameters": {**asdict(plan.parameters), "total": plan.parameters.total},
        "rows": asdict(plan.rows),
        "updates": plan.updates,
        "tokens_per_update": plan.tokens_per_update,
        "ranks": plan.ranks,
        "dtype": plan.dtype,
        "memory_bytes": {
            **asdict(plan.memory),
            "total": plan.memory.total(plan.machine.device),
            "measured": plan.measured[1] if plan.measured else None,
        },
        "machine": asdict(plan.machine),
        "fits": plan.fits,
        "disk_bytes": asdict(plan.disk),
        "seconds_per_update": plan.seconds_per_update,
        "seconds": plan.seconds,
        "estimated": plan.measured is None,
        "to_fit": list(to_fit(plan)),
        "faster": list(faster(plan)),
    }
