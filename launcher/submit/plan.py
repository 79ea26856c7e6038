"""What a submission would take, by arithmetic: a login node has neither its GPUs nor torch."""

from __future__ import annotations

from launcher.spec.job_spec import JobSpec
from launcher.spec.options import TRAIN_MODULE
from minimind.config import parse_args
from minimind.errors import ConfigError
from minimind.planning.cards import CARDS
from minimind.planning.model import likely_vocabulary
from minimind.planning.rows import estimate_rows
from minimind.planning.run_plan import Machine, RunPlan, card, plan_run, this_host


def plan_of(spec: JobSpec, on: str | None) -> RunPlan:
    """The plan of a job; ``on`` is the card of its nodes.

    Raises:
        ConfigError: it is no training of ours, or there is no such card.
        DataError: its text cannot be seen from here.
    """
    if spec.module != TRAIN_MODULE:
        raise ConfigError(
            f"--plan: only the flags of {TRAIN_MODULE} are known, not {spec.module}'s"
        )
    if on is not None and on not in CARDS:
        raise ConfigError(f"--on {on}: choose {', '.join(CARDS)}")
    config = parse_args(spec.train_args)
    return plan_run(
        config,
        estimate_rows(config),
        _machine(spec, on, config.dtype),
        vocab_size=likely_vocabulary(config),
        dtype=config.dtype,
        ranks=spec.world_size,
        compiled=spec.request_gpus and config.compile != "off",
    )


def _machine(spec: JobSpec, on: str | None, dtype: str) -> Machine:
    """Of a node only the submission knows something: nobody asks Slurm for its GPUs' memory."""
    if on is not None:
        return card(on, dtype)
    if spec.cluster == "local" and not spec.request_gpus:
        return this_host(spec.gpus)
    device = "accelerator" if spec.request_gpus else "cpu"
    return Machine(device, "the node's GPU" if spec.request_gpus else "node", None, ranks=spec.gpus)
