"""This machine's measured peak: FLOP/s of dense matrix products, in fp32 and bf16.

A device without bfloat16 instructions is measured in fp32 alone: it would emulate bf16, a CPU at
minutes a product, and our trainer does not compute in it there.

Square products and the shapes of a training step's layers; the best rate over all shapes is
the peak that the other tables measure MFU against.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.common import Report, main, make_parser, number, say, table
from minimind.distributed.device import has_bfloat16, pick_device, synchronize

CPU_SQUARES, GPU_SQUARES = (512, 1024, 2048), (2048, 4096, 8192, 16384)
LAYERS = ((4096, 512, 1664), (4096, 1664, 512), (4096, 768, 2432), (4096, 512, 6400))
"""Tokens · in · out of SwiGLU layers and the output head."""


def shapes(kind: str) -> list[tuple[int, int, int]]:
    """Tokens · in · out of every product that is measured on a kind of device."""
    squares = [(size, size, size) for size in (CPU_SQUARES if kind == "cpu" else GPU_SQUARES)]
    tokens = 1 if kind == "cpu" else 16
    return squares + [(m * tokens, k, n) for m, k, n in LAYERS]


def precisions(device: torch.device) -> tuple[torch.dtype, ...]:
    """What ``device`` computes in hardware; the last is what training is measured against."""
    return (torch.float32, torch.bfloat16) if has_bfloat16(device) else (torch.float32,)


def rate(
    shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, seconds: float
) -> list[float]:
    """FLOP/s of ``[m, k] @ [k, n]``, one value for each of several repeats after a warm-up."""
    m, k, n = shape
    a = torch.randn(m, k, device=device).to(dtype)
    b = torch.randn(k, n, device=device).to(dtype)
    wait = partial(synchronize, device)
    once = _seconds(a, b, 3, wait) / 3
    count = max(1, round(seconds / 5 / once))
    return [2.0 * m * k * n * count / _seconds(a, b, count, wait) for _ in range(5)]


def _seconds(a: torch.Tensor, b: torch.Tensor, count: int, wait: Callable[[], None]) -> float:
    a @ b
    wait()
    start = time.perf_counter()
    for _ in range(count):
        a @ b
    wait()
    return time.perf_counter() - start


def best_rate(dtype: torch.dtype, device: torch.device, seconds: float = 0.5) -> float:
    """The peak: the best shape's median FLOP/s."""
    return max(statistics.median(rate(s, dtype, device, seconds)) for s in shapes(device.type))


def run() -> None:
    parser = make_parser("peak", __doc__, "--out docs/performance.md")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each shape and precision")
    parser.add_argument("--device", default="", help="as torch names it; default: what there is")
    args = parser.parse_args()
    device = pick_device(args.device)
    dtypes = precisions(device)
    found: dict[str, dict[str, list[float]]] = {}
    for shape in shapes(device.type):
        name = " × ".join(map(str, shape))
        say(name)
        found[name] = {str(t)[6:]: rate(shape, t, device, args.seconds) for t in dtypes}
    rows = []
    for name, rates in found.items():
        cells = []
        for values in rates.values():
            low, middle, high = min(values), statistics.median(values), max(values)
            cells.append(f"{number(middle / 1e9)} ({number(low / 1e9)}–{number(high / 1e9)})")
        rows.append([name, *cells])
    names = [str(t)[6:] for t in dtypes]
    best = {t: max(statistics.median(r[t]) for r in found.values()) for t in names}
    rows.append(["**peak**", *(f"**{number(best[t] / 1e9)}**" for t in best)])
    report = Report("peak", f"Dense matrix products on {device.type}, GFLOP/s: median (min–max).")
    report.add(table(["tokens × in × out", *names], rows))
    report.data = {"flops": found, "peak": best}
    report.publish(args)


if __name__ == "__main__":
    main(run)
