"""How many nodes a run may go on with once it has lost some: ``--min-nodes``, ``--spare-nodes``."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.spec.job_spec import JobSpec
from launcher.spec.options import TRAIN_MODULE
from minimind.errors import ConfigError
from minimind.system.terminal import note

LARGEST_SUGGESTION = 1000
"""Of ``--accumulation_steps``: more micro-batches in an update are no advice."""


def keeps_nodes(spec: JobSpec) -> bool:
    """Whether the job outlives the loss of a node, and goes on with others of its own."""
    return spec.min_nodes is not None or spec.spare_nodes > 0


def allocated_nodes(spec: JobSpec) -> int:
    """The nodes that Slurm is asked for."""
    return spec.nodes + spec.spare_nodes


def node_counts(spec: JobSpec) -> list[int]:
    """The numbers of nodes that the ranks may run on, largest first.

    An update has ``nodes × gpus × accumulation_steps`` micro-batches. On fewer nodes the training
    keeps its rows where they share these evenly; a count that does not is left out.
    """
    least = spec.nodes if spec.min_nodes is None else spec.min_nodes
    return [n for n in range(spec.nodes, least - 1, -1) if _micro_batches(spec) % n == 0]


def _micro_batches(spec: JobSpec) -> int:
    """Of an update, for each rank of a node; 0, which all counts share, where nobody knows."""
    return spec.nodes * spec.accumulation_steps


def choose_nodes(spec: JobSpec, left: Sequence[str], batch_host: str) -> list[str]:
    """The nodes of the next attempt, of those that are ``left`` of the job, in Slurm's order.

    Empty: the job has to go back to Slurm. Rank 0 and the supervisor need the batch host.
    """
    if batch_host not in left:
        return []
    count = next((n for n in node_counts(spec) if n <= len(left)), 0)
    return list(left)[:count]


def accumulation_of(train_args: Sequence[str], module: str) -> int:
    """Micro-batches of an update for each rank, by the training's flags; 0: nobody knows.

    Raises:
        ConfigError: the training itself settles it only once it runs.
    """
    if module != TRAIN_MODULE:
        return 0
    from minimind.config import AUTO, parse_args

    config = parse_args(train_args)
    if config.batch_size == AUTO:
        raise ConfigError(
            "--min-nodes needs the rows of an update to be known: give --batch_size a number"
        )
    return config.accumulation_steps


def check_node_counts(spec: JobSpec) -> None:
    """Raises ConfigError where no node can be lost; a note says which counts are passed over."""
    if spec.min_nodes is None or spec.min_nodes == spec.nodes:
        return
    fewer = range(spec.min_nodes, spec.nodes)
    usable = node_counts(spec)
    passed_over = [str(n) for n in fewer if n not in usable]
    if not passed_over:
        return
    what = (
        f"--min-nodes {spec.min_nodes}: the {spec.nodes} nodes × {spec.accumulation_steps} "
        f"--accumulation_steps of an update cannot be shared by {_or(passed_over)} nodes"
    )
    if usable == [spec.nodes]:
        raise ConfigError(f"{what}; {_suggestion(spec, fewer)}")
    note(f"{what}, so a run with as many left uses fewer; {_suggestion(spec, fewer)}")


def _suggestion(spec: JobSpec, fewer: range) -> str:
    """What to change so that each count of ``fewer`` can be used."""
    for steps in range(spec.accumulation_steps, LARGEST_SUGGESTION):
        if all(spec.nodes * steps % n == 0 for n in fewer):
            return f"--accumulation_steps {steps} can"
    return "choose other --nodes"


def _or(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
