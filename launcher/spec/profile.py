"""Cluster profiles: a site's defaults in TOML. Flags win; unknown keys are errors."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from launcher.spec.devices import devices_of
from launcher.spec.options import DEFAULT_DEVICE, profile_keys
from minimind.errors import ConfigError
from minimind.system.toml import read_toml

KEYS = profile_keys()


def user_default() -> Path:
    """The profile that is read when ``--profile`` is not given, if it exists."""
    import platformdirs

    return Path(platformdirs.user_config_dir("minimind")) / "profile.toml"


def load_profile(path: Path | None) -> dict[str, Any]:
    """Reads ``path``, or the user's default, or nothing.

    Raises:
        ConfigError: no such file, bad TOML, an unknown key or a value of the wrong type.
    """
    if path is None:
        path = user_default()
        if not path.exists():
            return {}
    values = read_toml(path, "--profile")
    for key, value in values.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{path}: unknown key {key!r}{hint}")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise ConfigError(f"{path}: {key} has the wrong type, {type(value).__name__}")
        if isinstance(value, list) and not all(isinstance(entry, str) for entry in value):
            raise ConfigError(f"{path}: {key} must be a list of strings")
    try:
        devices_of(values.get("device", DEFAULT_DEVICE), values.get("device_options", {}))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    for name, value in values.get("sbatch", {}).items():
        # Each becomes a line of the batch script.
        if not isinstance(value, (str, int, float)) or not f"{name}{value}".isprintable():
            raise ConfigError(f"{path}: sbatch.{name} must be one line of text, a number or true")
    for name, value in values.get("env", {}).items():
        if not isinstance(value, str):
            raise ConfigError(f"{path}: env.{name} must be a string; write it in quotes")
    return values
