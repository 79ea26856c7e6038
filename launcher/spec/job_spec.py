"""JobSpec: everything about one run, frozen, validated and serialisable as JSON."""

from __future__ import annotations

import functools
import json
import os
import re
import reprlib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, get_args, get_origin, get_type_hints

from minimind.errors import ConfigError

LARGEST = 2**31 - 1
TRAIN_MODULE = "minimind.train_pretrain"
CONTAINERS = ("none", "pyxis", "enroot", "apptainer", "docker", "podman", "charliecloud")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESERVED_PREFIXES = ("SLURM", "SBATCH_", "SRUN_", "SUBMITIT_", "LAUNCHER_")
"""Variables that Slurm and the launcher set themselves; a user's value would break the job."""


@dataclass(frozen=True)
class Mount:
    """A folder or file of the host, ``source``, seen as ``target`` inside the container."""

    source: str
    target: str
    read_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Mount:
        """Reads ``SRC:DST`` or ``SRC:DST:ro``.

        Raises:
            ConfigError: another shape, a relative path, or a character no runtime can carry.
        """
        parts = text.split(":")
        read_only = len(parts) == 3 and parts[2] == "ro"
        if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
            raise ConfigError(f"--mount {text!r}: write SRC:DST or SRC:DST:ro")
        for path in parts[:2]:
            check_path(path, "--mount")
            if "," in path:
                raise ConfigError(f"--mount {text!r}: a comma cannot be carried by all runtimes")
            if not PurePosixPath(path).is_absolute():
                raise ConfigError(f"--mount {text!r}: {path!r} must be an absolute path")
        return cls(parts[0], parts[1], read_only)

    def __str__(self) -> str:
        return f"{self.source}:{self.target}" + (":ro" if self.read_only else "")


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
            if value is not None and value < least:
                raise ConfigError(f"{option} {value}: must be {least} or more")
            if value is not None and value > LARGEST:
                raise ConfigError(f"{option} {reprlib.repr(value)}: must be {LARGEST} or less")
        for field_name in ("partition", "account", "qos", "mem", "constraint", "exclude"):
            _check_word(f"--{field_name}", getattr(self, field_name))
        _check_word("--reservation", self.reservation)
        _check_word("--image", self.image)
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
        _check_utf8(asdict(self))
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
            entry.name: _typed(entry.name, hints[entry.name], stored[entry.name])
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


def _typed(name: str, hint: Any, value: Any) -> Any:
    """``value``, as JSON has it, as the type that a field of the spec has.

    Raises:
        ConfigError: it is of another type.
    """
    if hint == tuple[Mount, ...] and isinstance(value, list):
        return tuple(_mount(entry) for entry in value)
    if hint == tuple[str, ...] and isinstance(value, list):
        value = tuple(value)
    members = get_args(hint) or (hint,)
    if get_origin(hint) is tuple:
        fits = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    elif get_origin(hint) is dict:
        values = value.values() if isinstance(value, dict) else ()
        fits = isinstance(value, dict)
        fits = fits and (members[1] is Any or all(isinstance(item, str) for item in values))
    else:
        fits = isinstance(value, members) and isinstance(value, bool) == (hint is bool)
    if not fits or (isinstance(value, int) and abs(value) > LARGEST):
        raise ConfigError(f"no job spec: {name} is {reprlib.repr(value)}")
    return value


def _mount(entry: Any) -> Mount:
    names = {"source": str, "target": str, "read_only": bool}
    if not isinstance(entry, dict) or {k: type(v) for k, v in entry.items()} != names:
        raise ConfigError(f"no job spec: a mount is {reprlib.repr(entry)}")
    return Mount(**entry)


def check_name(name: str) -> None:
    """Raises ConfigError unless ``name`` is safe as a folder, a job name and a label."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"--name {name!r}: use up to 63 letters, digits, dots, dashes and underscores, "
            "and begin with a letter or digit"
        )


def check_path(path: str, what: str) -> None:
    """Raises ConfigError for a path that Slurm would read as something else.

    ``%`` is a pattern and ``\\`` an escape in Slurm's file names; control characters end a line
    of the batch script.
    """
    if any(ord(character) < 32 or character == "\x7f" for character in path):
        raise ConfigError(f"{what} {path!r}: control characters are not allowed in a path")
    for character in "%\\":
        if character in path:
            raise ConfigError(
                f"{what} {path!r}: {character!r} is not allowed, Slurm reads it as a pattern"
            )
    if not path or path.startswith("-"):
        raise ConfigError(f"{what} {path!r}: a path cannot be empty or begin with a dash")


def check_variable(name: str, option: str) -> None:
    """Raises ConfigError unless ``name`` can be an environment variable that is the user's own."""
    if not VARIABLE.fullmatch(name):
        raise ConfigError(f"{option} {name!r}: not the name of an environment variable")
    if name.startswith(RESERVED_PREFIXES):
        raise ConfigError(f"{option} {name}: Slurm and the launcher set this one themselves")


def parse_env(entries: list[str]) -> dict[str, str]:
    """``["K=V", …]`` → ``{"K": "V"}``.

    Raises:
        ConfigError: an entry without ``=``.
    """
    variables = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals:
            raise ConfigError(f"--env {entry!r}: write NAME=VALUE")
        check_variable(name, "--env")
        variables[name] = value
    return variables


_CLOCK = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


def parse_time(text: str) -> int:
    """Slurm's time formats → whole minutes, rounded up as Slurm does.

    ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M``, ``D-H:M:S``.

    Raises:
        ConfigError: none of these, or no time at all.
    """
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"--time {text!r}: write minutes, H:MM:SS or D-HH:MM")
    days, first, second, third = (None if part is None else int(part) for part in match.groups())
    assert first is not None
    if days is not None:
        seconds = days * 86400 + first * 3600 + (second or 0) * 60 + (third or 0)
    elif third is not None:
        seconds = first * 3600 + (second or 0) * 60 + third
    else:
        seconds = first * 60 + (second or 0)
    if seconds == 0:
        raise ConfigError(f"--time {text!r}: must be more than zero")
    return -(-seconds // 60)


def _check_utf8(value: Any) -> None:
    """Raises ConfigError for a text that no file in UTF-8 can hold, such as a name in Latin-1."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ConfigError(f"{value!r} is not valid UTF-8; rename the file or folder") from None
    elif isinstance(value, dict):
        _check_utf8([*value, *value.values()])
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_utf8(item)


def _check_word(option: str, value: str | None) -> None:
    if value is None:
        return
    if not value or value.startswith("-") or any(ord(c) < 33 or ord(c) == 127 for c in value):
        raise ConfigError(f"{option} {value!r}: cannot be empty, hold spaces or begin with a dash")


def check_writable(folder: Path) -> None:
    """Raises ConfigError unless ``folder`` exists or can be made, and can be written."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigError(f"{folder}: {existing} is not a folder; choose another --runs-dir")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: no permission to write there; choose another --runs-dir")
