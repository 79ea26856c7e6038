"""How many FLOPs a token costs, how many a device can do: the two halves of MFU.

MFU (model FLOPs utilisation) = tokens per second · ``flops_per_token`` / ``peak_flops``
(Chowdhery et al. 2022, PaLM, appendix B).
"""

from __future__ import annotations

import functools
import re
import time
from typing import Any

import torch

from minimind.distributed.device import synchronize


def flops_per_token(config: Any, seq_len: int) -> float:
    """FLOPs of the forward and backward pass for one token in a row of ``seq_len`` tokens.

    6·(N + V·H) + 6·L·T·A, where N are the parameters that the token meets outside of the
    embedding, V·H the output head, L layers, T tokens and A = query heads · head size.

    The first term is Kaplan et al. 2020 (section 2.1): a weight costs one multiplication and
    one addition forward, and twice that backward. The second is PaLM's attention term
    12·L·T·A (Chowdhery et al. 2022, appendix B), halved because a causal token attends to
    half of the row on average. Of an expert layer only the router and the
    ``num_experts_per_tok`` experts that the token visits are counted. Recomputed activations
    do not count, and neither does attention saved at document borders of a packed row.

    Args:
        config: a ``MiniMindConfig``, or anything with its fields.
    """
    hidden = config.hidden_size
    head_dim = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    attention_width = config.num_attention_heads * head_dim
    kv_width = config.num_key_value_heads * head_dim

    attention = 2 * hidden * attention_width + 2 * hidden * kv_width + 2 * head_dim
    if config.use_moe:
        visited = config.num_experts_per_tok * 3 * hidden * config.moe_intermediate_size
        feed_forward = visited + hidden * config.num_experts
    else:
        feed_forward = 3 * hidden * config.intermediate_size
    layers = config.num_hidden_layers
    weights = layers * (attention + feed_forward + 2 * hidden) + hidden
    head = config.vocab_size * hidden
    return float(6 * (weights + head) + 6 * layers * seq_len * attention_width)


# Dense peaks (no sparsity, float32 accumulation) in TFLOP/s: float32, TF32, float16, bfloat16.
# 0: the GPU has no such unit; its float32 rate is what it does then.
# Sources: NVIDIA's data sheets and architecture white papers of each GPU.
_PEAKS: dict[str, tuple[float, float, float, float]] = {
    "GB200": (80, 1250, 2500, 2500),
    "B200": (75, 1125, 2250, 2250),
    "B100": (60, 875, 1750, 1750),
    "GH200": (67, 494.7, 989.4, 989.4),
    "H200 NVL": (60, 417.5, 835.5, 835.5),
    "H200": (67, 494.7, 989.4, 989.4),
    "H100 NVL": (60, 417.5, 835.5, 835.5),
    "H100 PCIE": (51.2, 378, 756, 756),
    "H100": (66.9, 494.7, 989.4, 989.4),
    "H800 PCIE": (51.2, 378, 756, 756),
    "H800": (66.9, 494.7, 989.4, 989.4),
    "H20": (44, 74, 148, 148),
    "A100": (19.5, 156, 312, 312),
    "A800": (19.5, 156, 312, 312),
    "A40": (37.4, 74.8, 149.7, 149.7),
    "A30": (10.3, 82, 165, 165),
    "A10G": (31.5, 35, 70, 70),
    "A10": (31.2, 62.5, 125, 125),
    "L40S": (91.6, 183, 362, 362),
    "L40": (90.5, 90.5, 181, 181),
    "L4": (30.3, 60, 121, 121),
    "V100-PCIE": (14, 0, 112, 0),
    "V100": (15.7, 0, 125, 0),
    "T4": (8.1, 0, 65, 0),
    "RTX A6000": (38.7, 77.4, 154.8, 154.8),
    "RTX 6000 ADA": (91.1, 182.1, 364.2, 364.2),
    "RTX 5090": (104.8, 104.8, 209.5, 209.5),
    "RTX 5080": (56.3, 56.3, 112.6, 112.6),
    "RTX 5070 TI": (43.9, 43.9, 87.9, 87.9),
    "RTX 5070": (30.9, 30.9, 61.7, 61.7),
    "RTX 4090": (82.6, 82.6, 165.2, 165.2),
    "RTX 4080 SUPER": (52.2, 52.2, 104.4, 104.4),
    "RTX 4080": (48.7, 48.7, 97.5, 97.5),
    "RTX 4070 TI SUPER": (44.1, 44.1, 88.2, 88.2),
    "RTX 4070 TI": (40.1, 40.1, 80.2, 80.2),
    "RTX 4070 SUPER": (35.5, 35.5, 71, 71),
    "RTX 4070": (29.1, 29.1, 58.3, 58.3),
    "RTX 4060 TI": (22.1, 22.1, 44.1, 44.1),
    "RTX 4060": (15.1, 15.1, 30.2, 30.2),
    "RTX 3090 TI": (40, 40, 80, 80),
    "RTX 3090": (35.6, 35.6, 71.2, 71.2),
    "RTX 3080 TI": (34.1, 34.1, 68.2, 68.2),
    "RTX 3080": (29.8, 29.8, 59.5, 59.5),
    "RTX 3070": (20.3, 20.3, 40.6, 40.6),
    "RTX 3060 TI": (16.2, 16.2, 32.4, 32.4),
    "RTX 3060": (12.7, 12.7, 25.5, 25.5),
}
_LESS_THAN_THE_WHOLE_GPU = re.compile(r"\bMIG\b|LAPTOP|MAX-Q|VGPU|GRID")


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
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        tf32 = dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
        peak = data_sheet_peak(name, dtype, tf32)
        unit = "TF32" if tf32 else _name_of(dtype)
        if peak is not None:
            return peak, f"{name}, dense {unit} peak of its data sheet"
        return _measured(device, dtype, 0), f"{name}, {unit} matrix product measured"
    threads = torch.get_num_threads()
    where = f"{device.type} with {threads} thread{'s' if threads != 1 else ''}"
    return _measured(device, dtype, threads), f"{where}, {_name_of(dtype)} matrix product measured"


def data_sheet_peak(gpu_name: str, dtype: torch.dtype, tf32: bool = False) -> float | None:
    """FLOP/s of a GPU's data sheet by the name that CUDA reports; None: not known."""
    name = gpu_name.upper()
    if _LESS_THAN_THE_WHOLE_GPU.search(name):
        return None
    for known in sorted(_PEAKS, key=len, reverse=True):
        if re.search(rf"(?<![A-Z0-9]){re.escape(known)}(?![A-Z0-9])", name):
            float32, tensor32, float16, bfloat16 = _PEAKS[known]
            peaks = {
                torch.float32: tensor32 if tf32 else float32,
                torch.float16: float16,
                torch.bfloat16: bfloat16,
            }
            return (peaks[dtype] or float32) * 1e12
    return None


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@functools.cache
def _measured(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """FLOP/s of the fastest of several square matrix products, sized to take 0.2 s in all.

    ``threads`` only tells one measurement from another.
    """
    budget = 0.2
    sizes = [512, 1024, 2048, 4096, 8192] if device.type == "cuda" else [384, 768, 1536]
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
