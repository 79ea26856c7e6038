"""Reads TOML that a person wrote, or says in one line what is wrong with it.

Standard library only, so that the launcher reads its profiles the same way.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from minimind.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1 << 20
"""No settings are longer; ``/dev/zero`` and a corpus given by mistake are."""


def read_toml(path: str | Path, option: str) -> dict[str, Any]:
    """The table in ``path``; ``option`` is the flag that named it, for the message.

    Raises:
        ConfigError: the file cannot be read, is longer than :data:`MAX_BYTES`, or no TOML.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{option} {path}: {reason}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{option} {path}: longer than {MAX_BYTES} bytes; no settings are")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise ConfigError(f"{option} {path}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # bad TOML, bad UTF-8, a number of more digits than Python reads
        raise ConfigError(f"{option} {path}: not valid TOML: {error}") from None
