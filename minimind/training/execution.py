"""How a run computes: precision, compilation, attention. Chosen once, and kept by a resume."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch

from minimind.checkpoint.state import Execution, TrainState
from minimind.config import FLEX_HEAD_SIZE, TrainConfig
from minimind.distributed.device import (
    autocast_takes,
    block_attention_pays,
    compiling_pays,
    cpu_has_bfloat16,
    device_name,
    has_bfloat16,
    has_block_attention,
    overlooked,
)
from minimind.distributed.world import World
from minimind.errors import ConfigError

log = logging.getLogger(__name__)

CPU_COMPILE_FLOPS = 5e13
"""Planned FLOPs of one rank from which compiling pays on a CPU.

Compiling takes a quarter to half a minute the first time and takes a third off every step. Two
cores with bfloat16 do this much in three minutes without it, in two with it.
"""

MATMUL_ATTENTION_TOKENS = 1024
"""Longest row for which compiled attention by matrix products beats the fused kernel on a CPU.

In bfloat16: in float32 the fused kernel is the faster one. The scores grow with the square of the
row; docs/performance.md has both side by side.
"""

FLEX_TOKENS = 512
"""Shortest row for which compiled block attention beats the fused kernel on a GPU.

Its blocks are 128 tokens wide. Measured on an H100 (docs/performance.md): at 512 tokens it
makes the step 7 % faster, at 256 tokens, where it has nothing to skip, 45 % slower.
"""


def check_machine(config: TrainConfig, device: torch.device) -> None:
    """Find flags that this machine cannot follow before any data is read.

    Raises:
        ConfigError: ``--compile on`` where nothing can be compiled, or an attention that the
            device lacks.
    """
    missing = missing_for_compile(device.type)
    if config.compile == "on" and missing:
        raise ConfigError(f"--compile on needs {missing}; install it, or use --compile off")
    if config.attention == "flex_attention" and not has_block_attention(device.type):
        where = "a CPU" if device.type == "cpu" else f"{device.type} devices"
        raise ConfigError(
            f"--attention flex_attention cannot train on {where}; leave it out, or name another"
        )


def warn_of_idle_accelerator(config: TrainConfig, world: World) -> None:
    """Say that the machine has more than the CPU that it trains on, unless a CPU was asked for."""
    if world.is_main and not config.device and (line := overlooked()):
        log.warning("%s", line)


def choose_dtype(config: TrainConfig, world: World, saved: TrainState | None = None) -> str:
    """``--dtype``, but another one for bfloat16 on a device that would only emulate it.

    Emulated on a CPU, a bfloat16 matrix product takes longer than a float32 one: a quarter longer
    with AVX-512, fifty times as long with AVX2 (docs/performance.md). GPUs from before Ampere have
    tensor cores for float16 alone.
    """
    device = world.device
    if config.dtype != "bfloat16":
        return config.dtype
    if device.type == "cpu":
        if cpu_has_bfloat16():
            return config.dtype
        log.info("--dtype bfloat16: this CPU has no bfloat16 instructions, float32 is faster here")
        return "float32"
    if saved and saved.execution and _was_asked_alike(saved, config, device):
        return saved.execution.dtype
    if all(world.gather(has_bfloat16(device))):
        return config.dtype
    if all(world.gather(autocast_takes(device, torch.float16))):
        log.info(
            "--dtype bfloat16: not all of the GPUs (%s here) have it, so float16 with loss scaling",
            device_name(device),
        )
        return "float16"
    log.info(
        "--dtype bfloat16: torch has no mixed precision for %s, so float32", device_name(device)
    )
    return "float32"


def _was_asked_alike(saved: TrainState, config: TrainConfig, device: torch.device) -> bool:
    """Whether a checkpoint's run was left the same choice of precision on such a device."""
    same_kind = saved.execution is not None and saved.execution.device == device.type
    return same_kind and saved.config.get("dtype") == config.dtype


def choose_execution(
    config: TrainConfig,
    world: World,
    *,
    dtype: str,
    planned_flops: float,
    saved: TrainState | None,
) -> Execution:
    """Settle how to compute, alike on all ranks.

    What a checkpoint was made with holds for flags that leave the choice to us, so that a
    resumed run does not change its arithmetic.

    Args:
        dtype: what :func:`choose_dtype` said.
        planned_flops: of one rank over the whole run.
        saved: the checkpoint, or None for a fresh run.
    """
    device = world.device.type
    kept = saved.execution if saved is not None else None
    if kept is not None and kept.device != device:
        kept = None
    missing = missing_for_compile(device)
    if config.compile != "auto":
        compiles = config.compile == "on"
    else:
        wanted = kept.compile if kept else pays_to_compile(device, planned_flops)
        able = all(world.gather(missing is None))
        if wanted and not able:
            log.warning(
                "not compiling, which makes steps slower: %s is missing%s",
                missing or "something on another rank",
                "; the resumed run is not bit for bit as before" if kept else "",
            )
        compiles = wanted and able
    attention: str
    if config.attention != "auto":
        attention = config.attention
    elif kept and kept.compile == compiles:
        attention = kept.attention
    elif compiles and matrix_products_pay(device, dtype, config.max_seq_len):
        attention = "blockwise"
    elif compiles and flex_pays(world.device, dtype, config):
        attention = "flex_attention"
    else:
        attention = "sdpa"
    if saved and kept and kept.dtype != dtype and saved.config.get("dtype") == config.dtype:
        log.warning(
            "computing in %s after %s: the run goes on, but not bit for bit as before",
            dtype,
            kept.dtype,
        )
    return Execution(device, dtype, compiles, attention)


def pays_to_compile(device: str, planned_flops: float) -> bool:
    """Whether a run that has so much before it ends sooner with torch's compiler."""
    return compiling_pays(device) or (device == "cpu" and planned_flops >= CPU_COMPILE_FLOPS)


def matrix_products_pay(device: str, dtype: str, max_seq_len: int) -> bool:
    """Whether compiled attention by matrix products is a gain over the fused kernel."""
    return device == "cpu" and dtype == "bfloat16" and max_seq_len <= MATMUL_ATTENTION_TOKENS


def flex_pays(device: torch.device, dtype: str, config: TrainConfig) -> bool:
    """Whether compiled block attention, which skips what documents do not share, is a gain."""
    if dtype == "float32" or config.max_seq_len < FLEX_TOKENS:
        return False
    return config.head_size >= FLEX_HEAD_SIZE and block_attention_pays(device)


def missing_for_compile(device: str) -> str | None:
    """What torch.compile would not find on this machine, in words; None: it has all it needs."""
    if sys.platform != "linux":
        return "Linux"
    if device == "cpu":
        compilers, name = [os.environ.get("CXX", "g++")], "a C++ compiler (g++)"
    else:
        compilers, name = [os.environ.get("CC", ""), "gcc", "clang"], "a C compiler (gcc)"
    if not any(shutil.which(compiler) for compiler in compilers if compiler):
        return name
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        return f"Python's C headers ({header}; Debian: python3-dev)"
    return None
