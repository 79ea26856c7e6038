"""The packages that only some formats need."""

from __future__ import annotations

import importlib
from typing import Any

from minimind.errors import ConfigError

INSTALL = "pip install 'minimind-cluster[export]'"


def require_package(name: str) -> Any:
    """Import a package of the extra ``export``.

    Raises:
        ConfigError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"this needs the package {name}, which is absent: {INSTALL}") from None
