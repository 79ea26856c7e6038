"""JobSpec: everything about one run, frozen, validated and serialisable as JSON."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_type_hints

from launcher.spec.checks import (
    check_limit,
    check_name,
    check_path,
    check_utf8,
    check_variable,
    check_word,
    typed,
)
from launcher.spec.mount import Mount
from minimind.errors import ConfigError

TRAIN_MODULE = "minimind.train_pretrain"
CONTAINERS = ("none", "pyxis", "enroot", "apptainer", "docker", "podman", "charliecloud")


@dataclass(frozen=True)
class JobSpec:
    """One run. ``time_minutes`` and ``hang_timeout`` are limits; ``gpus`` is ranks a node.

    Raises:
        ConfigError: a value that cannot work; the message names the option and the fix.
    """

    name: str
    run_dir: str
    workdir: str
    sweep_dir: str = ""
    """For a point of a sweep: the sweep's folder, where its pickles and its code lie."""
    train_args: tuple[str, ...] = ()
    module: str = TRAIN_MODULE
    cluster: str = "slurm"
    nodes: int = 1
    gpus: int = 1
    request_gpus: bool = True
    save_dir: str = ""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time_minutes: int | None = None
    mem: str | None = None
    cpus_per_gpu: int | None = None
    constraint: str | None = None
    exclude: str | None = None
    reservation: str | None = None
    sbatch: dict[str, Any] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    image: str | None = None
    container: str = "none"
    container_args: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    secret_env: tuple[str, ...] = ()
    user: str | None = None
    python: str = "python3"
    host_python: str = "python3"
    max_restarts: int = 3
    max_node_failures: int = 10
    max_no_progress: int = 3
    hang_timeout: int = 1800
    signal_lead: int = 120

    def __post_init__(self) -> None:
        check_name(self.name)
        check_path(self.run_dir, "the run folder")
        check_path(self.workdir, "the working folder")
        limits: tuple[tuple[str, int | None, int], ...] = (
            ("--nodes", self.nodes, 1),
            ("--gpus", self.gpus, 1),
            ("--cpus-per-gpu", self.cpus_per_gpu, 1),
            ("--time", self.time_minutes, 1),
            ("--max-restarts", self.max_restarts, 0),
            ("--hang-timeout", self.hang_timeout, 1),
        )
        for option, value, least in limits:
            check_limit(option, value, least)
        for field_name in ("partition", "account", "qos", "mem", "constraint", "exclude"):
            check_word(f"--{field_name}", getattr(self, field_name))
        check_word("--reservation", self.reservation)
        check_word("--image", self.image)
        if self.container not in CONTAINERS:
            raise ConfigError(f"--container {self.container}: choose auto, {', '.join(CONTAINERS)}")
        if self.container != "none" and not self.image:
            raise ConfigError(f"--container {self.container} needs --image")
        if self.container != "none":
            for folder in (self.run_dir, self.workdir):
                if ":" in folder or "," in folder:
                    raise ConfigError(f"{folder!r}: a colon or comma in a path cannot be mounted")
        if self.container == "none" and self.image:
            raise ConfigError("--image needs a container runtime: leave out --container none")
        for name, text in self.env.items():
            check_variable(name, "--env")
            if "\0" in text:
                raise ConfigError(f"--env {name}: a value cannot hold a zero byte")
        for name in self.secret_env:
            check_variable(name, "--secret-env")
        for argument in self.train_args:
            if "\0" in argument:
                raise ConfigError("a train flag cannot hold a zero byte")
        if self.cluster not in ("slurm", "local"):
            raise ConfigError(f"--cluster {self.cluster}: choose auto, slurm or local")
        check_utf8(asdict(self))
        if not re.fullmatch(r"[A-Za-z_][\w.]*", self.module):
            raise ConfigError(f"--module {self.module!r}: must be a dotted Python module name")

    @property
    def world_size(self) -> int:
        """Number of ranks: one for every GPU of every node."""
        return self.nodes * self.gpus

    def to_json(self) -> str:
        """The spec as JSON text; ``from_json`` reads it back."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        """Reads what ``to_json`` wrote; keys of another version are left out.

        Raises:
            ConfigError: no JSON, or a value that no spec has.
        """
        try:
            stored = json.loads(text)
        except (ValueError, RecursionError):
            raise ConfigError("no job spec: not valid JSON") from None
        if not isinstance(stored, dict):
            raise ConfigError("no job spec: not a JSON object")
        hints = _hints()
        values = {
            entry.name: typed(entry.name, hints[entry.name], stored[entry.name])
            for entry in fields(cls)
            if entry.name in stored
        }
        missing = [name for name in ("name", "run_dir", "workdir") if name not in values]
        if missing:
            raise ConfigError(f"no job spec: {missing[0]} is missing")
        return cls(**values)


@functools.cache
def _hints() -> dict[str, Any]:
    # Working them out costs more than all else that reading a spec does.
    return get_type_hints(JobSpec)
