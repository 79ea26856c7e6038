"""Accelerators by their data sheets: what they can do, and what memory they have."""

from __future__ import annotations

import re
from dataclasses import dataclass

GIB = 1 << 30

# Dense peaks (no sparsity, float32 accumulation) in TFLOP/s: float32, TF32, float16, bfloat16.
# 0: the GPU has no such unit; its float32 rate is what it does then.
# Sources: NVIDIA's data sheets and architecture white papers of each GPU; of the Ascend see CARDS.
PEAKS: dict[str, tuple[float, float, float, float]] = {
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
    "ASCEND 910B": (75, 75, 313, 313),
}
_LESS_THAN_THE_WHOLE_GPU = re.compile(r"\bMIG\b|LAPTOP|MAX-Q|VGPU|GRID")


@dataclass(frozen=True)
class Card:
    """An accelerator that a plan can be made for, wherever the plan is made.

    Attributes:
        name: as in ``PEAKS``.
        memory: bytes.
    """

    name: str
    memory: int

    def peak(self, dtype: str) -> float:
        """FLOP/s in ``dtype``."""
        peak = data_sheet_peak(self.name, dtype)
        assert peak is not None
        return peak


CARDS = {
    "3090": Card("RTX 3090", 24 * GIB),
    "4090": Card("RTX 4090", 24 * GIB),
    "a100": Card("A100", 80 * GIB),
    "h100": Card("H100", 80 * GIB),
    "h200": Card("H200", 140 * GIB),
    "910b": Card("Ascend 910B", 64 * GIB),
}
"""What ``minimind plan --on`` takes.

Memory is the makers': NVIDIA's data sheets of the GeForce RTX 3090 and 4090 (24 GB), the A100 80GB,
the H100 SXM (80 GB) and the H200 (141 GB, of which drivers show 140 GiB). An A100 also comes with
40 GB. Huawei sells the 910B in servers only (Atlas 800T A2: 64 GB each, 313 TFLOP/s in the slower
of its two builds) and publishes no data sheet of the chip.
"""


def data_sheet_peak(name: str, dtype: str, tf32: bool = False) -> float | None:
    """FLOP/s of a data sheet by the name that the driver reports; None: not known.

    Args:
        dtype: "bfloat16", "float16" or "float32".
        tf32: whether float32 products may use TF32.
    """
    name = name.upper()
    if _LESS_THAN_THE_WHOLE_GPU.search(name):
        return None
    for known in sorted(PEAKS, key=len, reverse=True):
        if re.search(rf"(?<![A-Z0-9]){re.escape(known)}(?![A-Z0-9])", name):
            float32, tensor32, float16, bfloat16 = PEAKS[known]
            peaks = {
                "float32": tensor32 if tf32 else float32,
                "float16": float16,
                "bfloat16": bfloat16,
            }
            return (peaks[dtype] or float32) * 1e12
    return None
