"""JobSpec: everything about one run, frozen, validated and serialisable as JSON."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

from launcher.spec.checks import (
    check_name,
    check_path,
    check_utf8,
    check_variable,
    typed,
)
from launcher.spec.devices import Devices, devices_of
from launcher.spec.options import CONTAINERS, Options, check_values
from minimind.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class JobSpec(Options):
    """One run: what was asked for, and what follows from it.

    ``time_minutes`` and ``hang_timeout`` are limits; ``gpus`` is ranks a node.

    Raises:
        ConfigError: a value that cannot work; the message names the option and the fix.
    """

    run_dir: str
    workdir: str
    sweep_dir: str = ""
    """For a point of a sweep: the sweep's folder, where its pickles and its code lie."""
    train_args: tuple[str, ...] = ()
    save_dir: str = ""
    request_gpus: bool = True
    user: str | None = None
    host_python: str = "python3"
    expedite: bool = False
    """The site runs a requeued job again at once where it asks for that."""
    max_no_progress: int = 3
    max_false_starts: int = 30
    """Attempts in a row that nobody is to blame for and that ended before they began to train."""
    accumulation_steps: int = 0
    """With ``min_nodes``: the training's, which says what fewer nodes can share. 0: unknown."""

    def __post_init__(self) -> None:
        check_name(self.name)
        check_path(self.run_dir, "the run folder")
        check_path(self.workdir, "the working folder")
        check_values(self)
        devices_of(self.device, self.device_options)
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
        if self.min_nodes is not None and self.min_nodes > self.nodes:
            raise ConfigError(f"--min-nodes {self.min_nodes}: cannot be more than --nodes")
        if self.cluster == "local" and (self.min_nodes is not None or self.spare_nodes):
            raise ConfigError("--min-nodes and --spare-nodes need a job of Slurm's; leave them out")
        check_utf8(asdict(self))
        if not re.fullmatch(r"[A-Za-z_][\w.]*", self.module):
            raise ConfigError(f"--module {self.module!r}: must be a dotted Python module name")

    @property
    def world_size(self) -> int:
        """Number of ranks: one for every GPU of every node."""
        return self.nodes * self.gpus

    @property
    def devices(self) -> Devices:
        """The accelerators of the site."""
        return devices_of(self.device, self.device_options)

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
