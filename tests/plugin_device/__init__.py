"""A plug-in's device, built on the spot: what torch-npu and others are to torch."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType

import torch

KIND = "spare"

SOURCE = Path(__file__).with_name("backend.cpp")

GENERATOR = torch.Generator()
"""The device's own."""


def build(folder: Path, compiler: str) -> Path:
    """Compile the backend; the library."""
    torch_folder = Path(torch.__file__).parent
    library = folder / "backend.so"
    headers = ("include", "include/torch/csrc/api/include")
    command = [compiler, "-std=c++20", "-O0", "-shared", "-fPIC", str(SOURCE), "-o", str(library)]
    command += [f"-I{torch_folder / header}" for header in headers]
    command += [f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch_cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return library


def register(library: Path) -> None:
    """What importing a plug-in does to this process's torch; not to be undone."""
    torch.ops.load_library(str(library))
    torch.utils.rename_privateuse1_backend(KIND)
    torch._register_device_module(KIND, _module())


def _module() -> ModuleType:
    """``torch.spare``; without bfloat16, events, page-locked memory and memory figures."""
    module = ModuleType(f"torch.{KIND}")
    parts = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "_is_in_bad_fork": lambda: False,
        "manual_seed_all": GENERATOR.manual_seed,
        "get_rng_state": lambda device=None: GENERATOR.get_state(),
        "set_rng_state": lambda state, device=None: GENERATOR.set_state(state),
        "get_amp_supported_dtype": lambda: [torch.float16],
    }
    for name, part in parts.items():
        setattr(module, name, part)
    return module
