"""Every option of a submission, once: flag, profile key, field of the spec, sbatch parameter.

``Options`` is the table. From a row follow the flag of ``submit``, ``run`` and ``sweep``, what a
site's profile may say, where the spec keeps the value, its limits, and what sbatch is given.
Standard library only: a job's host side reads specs with whatever Python the node has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from launcher.spec.checks import check_limit, check_word, parse_env, parse_time
from launcher.spec.mount import Mount
from minimind.errors import ConfigError

TRAIN_MODULE = "minimind.train_pretrain"

CONTAINERS = ("none", "pyxis", "enroot", "apptainer", "docker", "podman", "charliecloud")
"""Values of ``--container`` besides auto; what each means is in launcher/containers."""

DEFAULT_DEVICE = "nvidia"

WHERE, SIZE, IMAGE, RUN, GRID = "Where", "Size", "Container", "Run", "Grid"
"""Panels of ``--help``."""

EVERY = ("submit", "run", "sweep")
QUEUED = ("submit", "sweep")
ONE_JOB = ("submit",)


def flag_wins(in_profile: Any, given: Any) -> Any:
    """What the command line has, else what the profile has."""
    return in_profile if given is None else given


def joined(in_profile: Any, given: Any) -> tuple[str, ...]:
    """The profile's list, then the command line's."""
    return (*(in_profile or ()), *(given or ()))


def _unless(in_profile: Any, given: Any) -> bool | None:
    """False by a switch that takes something away, else what the profile has."""
    return False if given else in_profile


def _minutes(in_profile: Any, given: Any) -> int | None:
    limit = flag_wins(in_profile, given)
    return None if limit is None else parse_time(str(limit))


def _mounts(in_profile: Any, given: Any) -> tuple[Mount, ...]:
    return tuple(map(Mount.parse, joined(in_profile, given)))


def _names(in_profile: Any, given: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(joined(in_profile, given)))


def _variables(in_profile: Any, given: Any) -> dict[str, str]:
    return (in_profile or {}) | parse_env(given or [])


@dataclass(frozen=True)
class Option:
    """One row of the table."""

    kind: Any
    """What the command line takes: str, int, Path, bool (a switch) or list (repeatable text)."""

    panel: str = ""
    help: str = ""
    """``{}`` stands for the default."""

    commands: tuple[str, ...] = EVERY
    name: str = ""
    """The command's parameter: ``hang_timeout`` is ``--hang-timeout``. As the field, if empty."""

    flags: tuple[str, ...] = ()
    """Only where the flag is not made from the name."""

    help_in: Mapping[str, str] = field(default_factory=dict)
    """Command → the help there, where it means something of its own."""

    after: str = ""
    """Row that has no field: the row it follows in ``--help``; the first if empty."""

    field_name: str = ""
    """The field of the spec, if it has one."""

    key: str | None = None
    """The key in a profile: as the name if None, in no profile if empty."""

    key_kind: Any = None
    """What a profile holds there, if not what the command line takes."""

    default: Any = None
    value: Callable[[Any, Any], Any] = flag_wins
    """What the profile has and what was given → the field's value; None leaves the default."""

    least: int | None = None
    one_word: bool = False
    sbatch: str = ""
    """The parameter that sbatch gets the value by."""

    variable: str = ""
    """Where sbatch looks for a user's default; it would win over what the batch script says."""

    @property
    def flag(self) -> str:
        """The option as a person writes it."""
        return self.flags[0] if self.flags else "--" + self.name.replace("_", "-")

    def help_text(self, command: str = "") -> str:
        """What ``--help`` says."""
        return self.help_in.get(command, self.help).format(self.default)

    def check(self, value: Any) -> None:
        """Raises ConfigError for what is too small, too large or more than a word."""
        if self.least is not None:
            check_limit(self.flag, value, self.least)
        if self.one_word:
            check_word(self.flag, value)


def option(kind: Any, panel: str, help: str, default: Any = None, **more: Any) -> Any:
    """A field of the spec that commands have a flag for; a mutable default is copied."""
    metadata = {"option": Option(kind, panel, help, default=default, **more)}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def in_profile(kind: Any, default: Any = None, **more: Any) -> Any:
    """A field of the spec that only a profile sets."""
    return option(kind, "", "", default, commands=(), **more)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person says about a run. A new option is a new field, and no other edit.

    The order is that of ``--help``.
    """

    name: str = option(
        str, RUN, "Name of the run, and of its folder.", MISSING, key="", sbatch="job_name"
    )
    cluster: str = option(
        str, WHERE, "auto, slurm or local (auto: Slurm if here).", "slurm", commands=QUEUED
    )
    nodes: int = option(
        int, SIZE, "Number of nodes ({}).", 1, commands=QUEUED, least=1, sbatch="nodes"
    )
    min_nodes: int | None = option(
        int,
        SIZE,
        "Go on in the job with this many nodes, if some are lost.",
        commands=ONE_JOB,
        key="",
        least=1,
    )
    spare_nodes: int = option(
        int,
        SIZE,
        "Nodes to hold ready besides, for lost ones ({}).",
        0,
        commands=ONE_JOB,
        key="",
        least=0,
    )
    gpus: int = option(
        int,
        SIZE,
        "GPUs a node, one rank each ({}).",
        1,
        help_in={"run": "Ranks, one a GPU (all GPUs here; 1 without)."},
        least=1,
        sbatch="ntasks_per_node",
    )
    device: str = in_profile(str, DEFAULT_DEVICE)
    """Whose accelerators the site has; what follows from it is in launcher/spec/devices.py."""

    device_options: dict[str, Any] = in_profile(dict, {})
    partition: str | None = option(
        str,
        WHERE,
        "Slurm partition.",
        commands=QUEUED,
        one_word=True,
        sbatch="partition",
        variable="SBATCH_PARTITION",
    )
    account: str | None = option(
        str,
        WHERE,
        "Slurm account.",
        commands=QUEUED,
        one_word=True,
        sbatch="account",
        variable="SBATCH_ACCOUNT",
    )
    qos: str | None = option(
        str,
        WHERE,
        "Slurm quality of service.",
        commands=QUEUED,
        one_word=True,
        sbatch="qos",
        variable="SBATCH_QOS",
    )
    time_minutes: int | None = option(
        str,
        SIZE,
        "Limit of one attempt: minutes or H:MM:SS.",
        name="time",
        key_kind=(str, int),
        value=_minutes,
        least=1,
        sbatch="time",
        variable="SBATCH_TIMELIMIT",
    )
    mem: str | None = option(
        str,
        SIZE,
        "Memory a node, e.g. 64G.",
        commands=QUEUED,
        one_word=True,
        sbatch="mem",
        variable="SBATCH_MEM_PER_NODE",
    )
    cpus_per_gpu: int | None = option(
        int, SIZE, "CPUs for each rank.", commands=QUEUED, least=1, sbatch="cpus_per_task"
    )
    constraint: str | None = option(
        str,
        WHERE,
        "Node features.",
        commands=QUEUED,
        one_word=True,
        sbatch="constraint",
        variable="SBATCH_CONSTRAINT",
    )
    exclude: str | None = option(
        str, WHERE, "Nodes to avoid.", commands=QUEUED, one_word=True, sbatch="exclude"
    )
    reservation: str | None = option(
        str,
        WHERE,
        "Slurm reservation.",
        commands=QUEUED,
        one_word=True,
        sbatch="reservation",
        variable="SBATCH_RESERVATION",
    )
    sbatch: dict[str, Any] = in_profile(dict, {})
    """Passed to sbatch as it is."""

    setup: tuple[str, ...] = in_profile(list, (), value=joined)
    """Lines of the batch script."""

    image: str | None = option(str, IMAGE, "Container image: reference or file.", one_word=True)
    container: str = option(str, IMAGE, f"auto, {', '.join(CONTAINERS)}.", "none")
    container_args: tuple[str, ...] = in_profile(list, (), value=joined)
    mounts: tuple[Mount, ...] = option(
        list,
        IMAGE,
        "SRC:DST[:ro]; may be repeated.",
        (),
        name="mount",
        key="mounts",
        value=_mounts,
    )
    env: dict[str, str] = option(
        list,
        RUN,
        "NAME=VALUE for the ranks; repeatable.",
        {},
        key_kind=dict,
        value=_variables,
    )
    secret_env: tuple[str, ...] = option(
        list,
        RUN,
        "NAME of a variable that goes to the ranks unseen; repeatable.",
        (),
        value=_names,
    )
    python: str = option(str, IMAGE, "Python of the ranks.", "python3")
    module: str = option(str, RUN, "What each rank runs ({}).", TRAIN_MODULE, key="")
    max_restarts: int = option(int, RUN, "Crashes and hangs forgiven ({}).", 3, least=0)
    max_node_failures: int = in_profile(int, 10)
    exclude_hours: int = option(
        int,
        RUN,
        "Hours that a node which failed is left out, 0: none ({}).",
        24,
        commands=QUEUED,
        least=0,
    )
    preflight: bool = option(
        bool,
        RUN,
        "Start the ranks without a look at the nodes before.",
        True,
        commands=QUEUED,
        name="no_preflight",
        flags=("--no-preflight",),
        key="preflight",
        value=_unless,
    )
    hang_timeout: int = option(int, RUN, "Seconds without a step: restart ({}).", 1800, least=1)
    signal_lead: int = in_profile(int, 120)


WITHOUT_FIELD = (
    Option(list, GRID, "FLAG=VALUE,VALUE,… ; repeatable.", ("sweep",), "vary"),
    Option(Path, GRID, "TOML of flag = [values].", ("sweep",), "grid", after="vary"),
    Option(int, SIZE, "CPU ranks over gloo, instead of --gpus.", ("run",), "procs", after="gpus"),
    Option(Path, WHERE, "Site defaults in TOML; flags win.", EVERY, "profile", after="secret_env"),
    Option(
        str, RUN, "Folder of all runs (./runs).", name="runs_dir", after="profile", key="runs_dir"
    ),
    Option(
        bool,
        RUN,
        "Continue the run of this name.",
        ("submit", "run"),
        "resume",
        after="hang_timeout",
    ),
    Option(bool, RUN, "Print the batch script, submit nothing.", QUEUED, "dry_run", after="resume"),
    Option(
        bool,
        RUN,
        "Print what the run would take, submit nothing.",
        ("submit",),
        "plan",
        after="dry_run",
    ),
    Option(
        str,
        RUN,
        "With --plan: the nodes' card (3090, 4090, a100, h100, h200, 910b).",
        ("submit",),
        "on",
        after="plan",
    ),
    Option(
        bool,
        RUN,
        "Follow to the end; return its exit status.",
        ("submit",),
        "wait",
        after="on",
    ),
    Option(bool, RUN, "Print JSON.", name="as_json", flags=("--json",), after="wait"),
    Option(str, commands=(), name="network_interface", key="network_interface", after="as_json"),
)
"""Options that say what a command is to do: nothing that a spec keeps."""


def rows() -> tuple[Option, ...]:
    """The whole table, in the order of ``--help``."""
    found = [_named(entry.metadata["option"], entry.name) for entry in fields(Options)]
    for row in WITHOUT_FIELD:
        names = ["", *(other.name for other in found)]
        found.insert(names.index(row.after), row)
    return tuple(found)


def _named(row: Option, field_name: str) -> Option:
    name = row.name or field_name
    key = name if row.key is None else row.key
    return replace(row, name=name, key=key, field_name=field_name)


OPTIONS = rows()


def profile_keys() -> dict[str, Any]:
    """Key of a profile → the type of its value."""
    return {row.key: row.key_kind or row.kind for row in OPTIONS if row.key}


def spec_values(
    given: Mapping[str, Any],
    profile: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Field of the spec → its value, for what was given, or else is in the profile.

    Args:
        environment: where a user's own defaults for sbatch are looked for, after the profile.

    Raises:
        ConfigError: a text that means no such value.
    """
    own = user_defaults(environment or {})
    defaults = {**own, **profile}
    values = {}
    for row in (row for row in OPTIONS if row.field_name):
        try:
            value = row.value(defaults.get(row.key or ""), given.get(row.name))
        except ConfigError as error:
            if given.get(row.name) is None and row.key in own and row.key not in profile:
                raise ConfigError(f"your variable {row.variable}: {error}") from None
            raise
        values[row.field_name] = value
    return {name: value for name, value in values.items() if value is not None}


def user_defaults(environment: Mapping[str, str]) -> dict[str, str]:
    """Key of a profile → the value of the variable that sbatch itself would take it from."""
    found = {row.key: environment.get(row.variable) for row in OPTIONS if row.variable}
    return {key: value for key, value in found.items() if key and value}


def sbatch_parameters(spec: Options) -> dict[str, Any]:
    """Parameter of sbatch → its value, None where the site decides."""
    return {row.sbatch: getattr(spec, row.field_name) for row in OPTIONS if row.sbatch}


def check_values(spec: Options) -> None:
    """Raises ConfigError for a value out of its limits, or one that is no word."""
    for row in OPTIONS:
        if row.field_name:
            row.check(getattr(spec, row.field_name))
