"""How many FLOP/s a device can do: with what a token costs, the two halves of MFU.

MFU (model FLOPs utilisation) = tokens per second · ``flops_per_token`` / ``peak_flops``
(Chowdhery et al. 2022, PaLM, appendix B).
"""

from __future__ import annotations

import functools
import time

import torch

from minimind.distributed.device import device_name, multiplies_in_tf32, synchronize
from minimind.planning.cards import data_sheet_peak


def peak_flops(device: torch.device | str, dtype: torch.dtype | str) -> tuple[float, str]:
    """The FLOP/s that ``device`` can do in ``dtype``, and one line that says where that is from.

    NVIDIA GPUs that the table knows by name get the dense peak of the data sheet. For float32
    that is the TF32 rate when matrix products may use TF32 at the time of the call, else the
    plain float32 rate. Other GPUs, parts of a GPU (MIG) and CPUs get the best rate of a short
    matrix product, measured once a process for each device, dtype and number of threads; on
    CPUs with the threads that torch has now.

    Args:
        dtype: ``torch.bfloat16``, ``torch.float16`` or ``torch.float32``, or its name.
    """
    device = torch.device(device)
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    assert isinstance(dtype, torch.dtype)
    if device.type != "cpu":
        name = device_name(device)
        tf32 = multiplies_in_tf32(device, dtype)
        peak = data_sheet_peak(name, _name_of(dtype), tf32)
        unit = "TF32" if tf32 else _name_of(dtype)
        if peak is not None:
            return peak, f"{name}, dense {unit} peak of its data sheet"
        return _measured(device, dtype, 0), f"{name}, {unit} matrix product measured"
    threads = torch.get_num_threads()
    where = f"{device.type} with {threads} thread{'s' if threads != 1 else ''}"
    return _measured(device, dtype, threads), f"{where}, {_name_of(dtype)} matrix product measured"


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@functools.cache
def _measured(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """FLOP/s of the fastest of several square matrix products, sized to take 0.2 s in all.

    ``threads`` only tells one measurement from another.
    """
    budget = 0.2
    sizes = [384, 768, 1536] if device.type == "cpu" else [512, 1024, 2048, 4096, 8192]
    rate = 0.0
    start = time.perf_counter()
    for size in sizes:
        flops = 2.0 * size**3
        if rate and flops / rate > budget / 8:
            break
        a = torch.randn(size, size, device=device).to(dtype)
        a @ a
        for _ in range(4):
            synchronize(device)
            before = time.perf_counter()
            a @ a
            synchronize(device)
            rate = max(rate, flops / (time.perf_counter() - before))
        if time.perf_counter() - start > budget:
            break
    return rate
