"""What an option may say, and what it means. Every fault is one line that names the option."""

from __future__ import annotations

import os
import re
import reprlib
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from minimind.errors import ConfigError
from minimind.system.text import is_utf8

LARGEST = 2**31 - 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESERVED_PREFIXES = ("SLURM", "SBATCH_", "SRUN_", "SUBMITIT_", "LAUNCHER_")
"""Variables that Slurm and the launcher set themselves; a user's value would break the job."""


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


def check_limit(option: str, value: int | None, least: int) -> None:
    """Raises ConfigError for a number below ``least``, or so large that Slurm has none for it."""
    if value is not None and value < least:
        raise ConfigError(f"{option} {value}: must be {least} or more")
    if value is not None and value > LARGEST:
        raise ConfigError(f"{option} {reprlib.repr(value)}: must be {LARGEST} or less")


def check_variable(name: str, option: str) -> None:
    """Raises ConfigError unless ``name`` can be an environment variable that is the user's own."""
    if not VARIABLE.fullmatch(name):
        raise ConfigError(f"{option} {name!r}: not the name of an environment variable")
    if name.startswith(RESERVED_PREFIXES):
        raise ConfigError(f"{option} {name}: Slurm and the launcher set this one themselves")


def check_word(option: str, value: str | None) -> None:
    """Raises ConfigError unless ``value`` can be one word of a command that Slurm runs."""
    if value is None:
        return
    if not value or value.startswith("-") or any(ord(c) < 33 or ord(c) == 127 for c in value):
        raise ConfigError(f"{option} {value!r}: cannot be empty, hold spaces or begin with a dash")


def check_utf8(value: Any) -> None:
    """Raises ConfigError for a text that no file in UTF-8 can hold, such as a name in Latin-1."""
    if isinstance(value, str):
        if not is_utf8(value):
            raise ConfigError(f"{value!r} is not valid UTF-8; rename the file or folder")
    elif isinstance(value, dict):
        check_utf8([*value, *value.values()])
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_utf8(item)


def check_writable(folder: Path) -> None:
    """Raises ConfigError unless ``folder`` exists or can be made, and can be written."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigError(f"{folder}: {existing} is not a folder; choose another --runs-dir")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: no permission to write there; choose another --runs-dir")


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


def typed(name: str, hint: Any, value: Any) -> Any:
    """``value``, as JSON has it, as the type that a field of the spec has.

    Raises:
        ConfigError: it is of another type.
    """
    members = get_args(hint) or (hint,)
    if get_origin(hint) is tuple and isinstance(value, list):
        if is_dataclass(members[0]):
            return tuple(_record(members[0], item) for item in value)
        value = tuple(value)
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


def _record(kind: Any, value: Any) -> Any:
    hints = get_type_hints(kind)
    if not isinstance(value, dict) or {k: type(v) for k, v in value.items()} != hints:
        raise ConfigError(f"no job spec: a {kind.__name__.lower()} is {reprlib.repr(value)}")
    return kind(**value)
