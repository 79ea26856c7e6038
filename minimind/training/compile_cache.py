"""Where compiled code is kept, so that a requeued job need not compile again."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from pathlib import Path

import torch

from minimind.data.tokenize.cache import cache_folder, user_cache
from minimind.distributed.device import device_name
from minimind.system.ownership import lets_others_rename, own_folder

log = logging.getLogger(__name__)

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def keep_compiled_code(cache_dir: str, device: torch.device) -> None:
    """Point torch.compile's cache into the cache folder, unless the user has pointed it already.

    torch's own default is a folder in /tmp, which another node does not have and many clusters
    empty after every job. Code in the cache is run, so the folder must be ours alone; it is one
    for each user, torch version and kind of processor.
    """
    # Imports torch's compiler, which takes as long as torch itself.
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # Some of torch's modules write their default into the variable when they are imported.
    if os.environ.get(VARIABLE) not in (None, "", default_cache_dir()):
        return
    home = _home(cache_folder(cache_dir))
    folder = home / f"torch-{torch.__version__}-{_processor(device)}"
    try:
        if not own_folder(home):
            log.warning("compiled code is not kept: others may write in %s", home)
            return
        folder.mkdir(exist_ok=True)
    except OSError as error:
        log.info("compiled code is not kept: %s: %s", folder, error.strerror)
        return
    os.environ[VARIABLE] = str(folder)


def _home(cache: Path) -> Path:
    """The user's own folder in a cache; in the user's own cache where others could replace it."""
    with contextlib.suppress(OSError):
        if lets_others_rename(cache.stat()):
            cache = user_cache()
    return cache / f"compiled-{os.getuid()}"


def _processor(device: torch.device) -> str:
    """A short name of the kind of processor that code is compiled for."""
    if device.type != "cpu":
        kind = device_name(device)
    else:
        # ATEN_CPU_CAPABILITY can have torch use less than there is: code for the one crashed when
        # it was run for the other.
        used = torch.backends.cpu.get_cpu_capability()
        kind = repr([used, *sorted(torch.cpu.get_capabilities().items())])
    return hashlib.sha256(kind.encode()).hexdigest()[:12]


def cost_of_compiling() -> str:
    """What the start pays, in words; code that the cache has is only loaded."""
    folder = os.environ.get(VARIABLE)
    if folder and Path(folder, "fxgraph").is_dir():
        return f"a few seconds with what {folder} has, half a minute or more for what it lacks"
    return "half a minute or more at this first start, a few seconds at the next"
