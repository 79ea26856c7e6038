"""The kinds of devices there are: which one a rank takes, and what depends on its kind."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from minimind.errors import ConfigError


def pick_device(wanted: str, local_rank: int, distributed: bool) -> torch.device:
    """Resolve ``--device``: CUDA when there is one, this rank's own when there are several.

    Raises:
        ConfigError: CUDA was asked for and is not there.
    """
    if wanted in ("", "cuda") or wanted.startswith("cuda:"):
        if torch.cuda.is_available():
            index = int(wanted[5:]) if wanted.startswith("cuda:") else 0
            if distributed:
                index = local_rank % torch.cuda.device_count()
            if index >= torch.cuda.device_count():
                raise ConfigError(
                    f"--device {wanted}: this machine has {torch.cuda.device_count()} GPU(s)"
                )
            return torch.device("cuda", index)
        if wanted:
            raise ConfigError(f"--device {wanted}: torch sees no GPU here; use --device cpu")
    return torch.device("cpu")


def use_device(device: torch.device) -> None:
    """Make it the one that this process's kernels and exchanges run on."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def process_group_backend(device: torch.device) -> str:
    """What ranks with such devices exchange tensors through."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (x86 or ARM)."""
    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def device_name(device: torch.device) -> str:
    """The model of the GPU, or of this machine's processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
