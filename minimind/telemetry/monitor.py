"""Memory, GPU load and temperature of the machine that a rank runs on."""

from __future__ import annotations

import contextlib
from typing import Any

import psutil
import torch

from minimind.distributed.device import device_name, management_ids, memory_left, memory_used
from minimind.system.memory import cgroup_memory

GB = 1e9


class Monitor:
    """Readings for the log. What cannot be read is left out; nothing here raises.

    GPU load and temperature come from NVML, which numbers GPUs without regard to
    ``CUDA_VISIBLE_DEVICES``: the GPU is therefore looked up by its UUID, or its PCI address.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._process = psutil.Process()
        self._nvml: Any = None
        self._handle: Any = None
        with contextlib.suppress(Exception):
            if ids := management_ids(self._device):
                self._nvml, self._handle = _find_gpu(*ids)

    def sample(self) -> dict[str, float]:
        """What there is of these: ``host_memory_gb`` (resident, this process),
        ``gpu_memory_gb`` and ``gpu_memory_peak_gb`` (allocated now; most reserved so far),
        ``gpu_utilization`` (percent of the time), ``gpu_temperature`` (°C). 1 GB = 1e9 bytes.
        """
        values: dict[str, float] = {}
        with contextlib.suppress(Exception):
            values["host_memory_gb"] = self._process.memory_info().rss / GB
        with contextlib.suppress(Exception):
            if used := memory_used(self._device):
                values["gpu_memory_gb"], values["gpu_memory_peak_gb"] = (n / GB for n in used)
        if self._handle is not None:
            nvml, handle = self._nvml, self._handle
            with contextlib.suppress(Exception):
                values["gpu_utilization"] = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
            with contextlib.suppress(Exception):
                sensor = nvml.NVML_TEMPERATURE_GPU
                values["gpu_temperature"] = float(nvml.nvmlDeviceGetTemperature(handle, sensor))
        return values


def _find_gpu(uuid: str, address: str) -> tuple[Any, Any]:
    """NVML and its handle of the GPU with this UUID, or else at this PCI address."""
    import pynvml

    pynvml.nvmlInit()
    with contextlib.suppress(Exception):
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)
    return pynvml, pynvml.nvmlDeviceGetHandleByPciBusId(address)


def describe_memory(device: torch.device | str) -> str:
    """How much memory there is and how much is free, for an out-of-memory message.

    The host's figure is the container's or job's limit (cgroup) where that is smaller.
    """
    device = torch.device(device)
    parts = []
    with contextlib.suppress(Exception):
        if left := memory_left(device):
            free, total, held = left
            parts.append(
                f"{device_name(device)}: {free / GB:.1f} GB free of {total / GB:.1f} GB, "
                f"{held / GB:.1f} GB held by this process"
            )
    with contextlib.suppress(Exception):
        memory = psutil.virtual_memory()
        total, free = memory.total, memory.available
        limit, used = cgroup_memory()
        note = ""
        if limit is not None and limit < total:
            total, free = limit, min(free, max(limit - used, 0))
            note = " (cgroup limit)"
        parts.append(f"host: {free / GB:.1f} GB free of {total / GB:.1f} GB{note}")
    return "; ".join(parts) or "memory unknown"
