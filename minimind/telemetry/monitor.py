"""Memory, GPU load and temperature of the machine that a rank runs on."""

from __future__ import annotations

import contextlib
from typing import Any

import psutil
import torch

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
        if self._device.type == "cuda":
            with contextlib.suppress(Exception):
                self._nvml, self._handle = _find_gpu(self._device)

    def sample(self) -> dict[str, float]:
        """What there is of these: ``host_memory_gb`` (resident, this process),
        ``gpu_memory_gb`` and ``gpu_memory_peak_gb`` (allocated now; most reserved so far),
        ``gpu_utilization`` (percent of the time), ``gpu_temperature`` (°C). 1 GB = 1e9 bytes.
        """
        values: dict[str, float] = {}
        with contextlib.suppress(Exception):
            values["host_memory_gb"] = self._process.memory_info().rss / GB
        if self._device.type == "cuda":
            with contextlib.suppress(Exception):
                values["gpu_memory_gb"] = torch.cuda.memory_allocated(self._device) / GB
                peak = torch.cuda.max_memory_reserved(self._device)
                values["gpu_memory_peak_gb"] = peak / GB
        if self._handle is not None:
            nvml, handle = self._nvml, self._handle
            with contextlib.suppress(Exception):
                values["gpu_utilization"] = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
            with contextlib.suppress(Exception):
                sensor = nvml.NVML_TEMPERATURE_GPU
                values["gpu_temperature"] = float(nvml.nvmlDeviceGetTemperature(handle, sensor))
        return values


def _find_gpu(device: torch.device) -> tuple[Any, Any]:
    """NVML and its handle of the GPU that CUDA calls ``device``."""
    import pynvml

    properties: Any = torch.cuda.get_device_properties(device)
    pynvml.nvmlInit()
    with contextlib.suppress(Exception):
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
    domain, bus = properties.pci_domain_id, properties.pci_bus_id
    address = f"{domain:08x}:{bus:02x}:{properties.pci_device_id:02x}.0"
    return pynvml, pynvml.nvmlDeviceGetHandleByPciBusId(address)


def describe_memory(device: torch.device | str) -> str:
    """How much memory there is and how much is free, for an out-of-memory message.

    The host's figure is the container's or job's limit (cgroup) where that is smaller.
    """
    device = torch.device(device)
    parts = []
    if device.type == "cuda":
        with contextlib.suppress(Exception):
            free, total = torch.cuda.mem_get_info(device)
            name = torch.cuda.get_device_name(device)
            reserved = torch.cuda.memory_reserved(device)
            parts.append(
                f"{name}: {free / GB:.1f} GB free of {total / GB:.1f} GB, "
                f"{reserved / GB:.1f} GB held by this process"
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
