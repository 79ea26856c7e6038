"""Where ranks meet: this process's place and rank 0's address, by torchrun, Slurm or submitit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from minimind.errors import ConfigError
from minimind.rundir import env

FIRST_PORT, PORT_COUNT = 20000, 20000


@dataclass(frozen=True)
class Rendezvous:
    """Where this process stands among all, and where rank 0 listens.

    Attributes:
        local_world_size: ranks on this node; 1 where nobody says.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    master_addr: str
    master_port: int

    @property
    def init_method(self) -> str:
        """The address as ``torch.distributed`` takes it."""
        host = f"[{self.master_addr}]" if ":" in self.master_addr else self.master_addr
        return f"tcp://{host}:{self.master_port}"


def find_rendezvous(environ: Mapping[str, str]) -> Rendezvous | None:
    """Read the place of this process from torchrun's, Slurm's or submitit's variables.

    Slurm's are used only inside a step (``srun``): in a batch script, which also has
    ``SLURM_NTASKS``, a lone process would wait for ranks that nobody starts.

    Returns:
        None when this process runs alone.

    Raises:
        ConfigError: variables contradict each other.
    """
    if env.RANK in environ and env.WORLD_SIZE in environ:
        found = Rendezvous(
            rank=_whole(environ, env.RANK),
            world_size=_whole(environ, env.WORLD_SIZE),
            local_rank=_whole(environ, env.LOCAL_RANK, default=environ[env.RANK]),
            local_world_size=_whole(environ, env.LOCAL_WORLD_SIZE, default="1"),
            master_addr=environ.get(env.MASTER_ADDR, "127.0.0.1"),
            master_port=_whole(environ, env.MASTER_PORT, default="29500"),
        )
    elif "SLURM_PROCID" in environ and "SLURM_STEP_ID" in environ:
        job_id = _whole(environ, "SLURM_JOB_ID", default="0")
        found = Rendezvous(
            rank=_whole(environ, "SLURM_PROCID"),
            world_size=_whole(environ, "SLURM_STEP_NUM_TASKS", default=environ.get("SLURM_NTASKS")),
            local_rank=_whole(environ, "SLURM_LOCALID"),
            local_world_size=_tasks_here(environ),
            master_addr=environ.get(env.MASTER_ADDR) or first_host(environ["SLURM_JOB_NODELIST"]),
            master_port=_whole(environ, env.MASTER_PORT, default=str(_port_of_job(job_id))),
        )
    elif "SUBMITIT_LOCAL_GLOBALID" in environ:
        job_id = _whole(environ, "SUBMITIT_LOCAL_JOB_ID", default="0")
        found = Rendezvous(
            rank=_whole(environ, "SUBMITIT_LOCAL_GLOBALID"),
            world_size=_whole(environ, "SUBMITIT_LOCAL_NTASKS"),
            local_rank=_whole(environ, "SUBMITIT_LOCAL_LOCALID"),
            local_world_size=_whole(environ, "SUBMITIT_LOCAL_NTASKS"),
            master_addr=environ.get(env.MASTER_ADDR, "127.0.0.1"),
            master_port=_whole(environ, env.MASTER_PORT, default=str(_port_of_job(job_id))),
        )
    else:
        return None
    if not 0 <= found.rank < found.world_size:
        raise ConfigError(f"rank {found.rank} is outside of a world of {found.world_size}")
    return found


def left_alone(environ: Mapping[str, str]) -> str:
    """A warning where Slurm has given this job tasks that nobody starts; "" elsewhere."""
    tasks = environ.get("SLURM_NTASKS", "")
    if find_rendezvous(environ) is not None or not tasks.isdecimal() or int(tasks) < 2:
        return ""
    return (
        f"this process trains alone, and the job has {tasks} tasks (SLURM_NTASKS); "
        "start it with srun to train on all of them"
    )


def _whole(environ: Mapping[str, str], name: str, default: str | None = None) -> int:
    text = environ.get(name, default)
    if text is None:
        raise ConfigError(f"environment variable {name} is missing; start the ranks with srun")
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"environment variable {name} must be a number: {text!r}") from None


def _tasks_here(environ: Mapping[str, str]) -> int:
    """The tasks of this step on this node, of what Slurm writes for all: ``2(x3),1``."""
    counts: list[int] = []
    for words in environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        if match := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", words):
            counts += [int(match[1])] * int(match[2] or 1)
    node = _whole(environ, "SLURM_NODEID", default="0")
    return counts[node] if node < len(counts) else 1


def _port_of_job(job_id: int) -> int:
    return FIRST_PORT + job_id % PORT_COUNT


def first_host(nodelist: str) -> str:
    """The first host of a Slurm node list: ``gpu[03-04,7],x1`` → ``gpu03``."""
    match = re.match(r"^([^,\[]+)(?:\[([^\],-]+)[^\]]*\])?([^,]*)", nodelist.strip())
    if match is None:
        raise ConfigError(f"cannot read the node list {nodelist!r}; set MASTER_ADDR")
    prefix, number, suffix = match.groups()
    return f"{prefix}{number or ''}{suffix}"
