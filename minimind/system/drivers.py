"""The drivers of accelerators, by what they put into /dev: known without torch.

Training names a device that torch cannot use, the launcher says what a node has, and the image
looks here before it loads torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEVICE_FILES = Path("/dev")

LOCALLY = "https://pytorch.org/get-started/locally"


@dataclass(frozen=True)
class Driver:
    """One maker's driver."""

    device: str
    """What it drives, as a person calls it."""

    pattern: str
    """What it puts into /dev; AMD's has one file for all its devices."""

    remedy: str
    """What a torch lacks that cannot use them."""

    def files(self, folder: Path = DEVICE_FILES) -> list[Path]:
        """What it has put into ``folder``; empty: there is no such device."""
        return sorted(folder.glob(self.pattern))


DRIVERS = {
    "nvidia": Driver("NVIDIA GPU", "nvidia[0-9]*", f"torch's CUDA build ({LOCALLY})"),
    "amd": Driver("AMD GPU", "kfd", f"torch's ROCm build ({LOCALLY})"),
    "ascend": Driver(
        "Ascend NPU", "davinci[0-9]*", "torch-npu of torch's version (pip install torch-npu)"
    ),
}
"""Maker → its driver."""


def makers_here(folder: Path = DEVICE_FILES) -> list[str]:
    """The makers whose drivers have put devices into ``folder``."""
    return [maker for maker, driver in DRIVERS.items() if driver.files(folder)]
