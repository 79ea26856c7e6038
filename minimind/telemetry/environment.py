"""What a run ran on: ``SAVE_DIR/environment.json``, for people who look at it later."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minimind import __version__
from minimind.distributed.device import device_name, toolkit_versions
from minimind.distributed.world import World
from minimind.system.durable import write_text_durably
from minimind.system.process import available_cores


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _version(package: str) -> str | None:
    """None: it is not installed, or does not say; training itself can do without."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def write_environment(path: Path, world: World, **facts: Any) -> None:
    """Replace the file with what this attempt runs on, and ``facts`` besides.

    Raises:
        OSError: it cannot be written.
    """
    found: dict[str, Any] = {
        "time": time.time(),
        **facts,
        "ranks": world.world_size,
        "device": device_name(world.device),
        "host": platform.node(),
        "cores": available_cores(),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "minimind": __version__,
        **toolkit_versions(),
    }
    content = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    write_text_durably(path, content)
