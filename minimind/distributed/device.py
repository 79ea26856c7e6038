"""The kinds of devices there are: which one a rank takes, and all that depends on its kind.

CUDA (and ROCm, which torch calls so too) has names of its own in torch. Every other accelerator,
``mps``, ``xpu`` or one that a plug-in registers such as ``npu``, is asked through
``torch.accelerator`` and its module ``torch.<kind>``; what one of them lacks has a safe answer.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from minimind.errors import ConfigError
from minimind.system.drivers import DEVICE_FILES, DRIVERS

log = logging.getLogger(__name__)

CPU, CUDA, MPS, XPU = "cpu", "cuda", "mps", "xpu"

EXCHANGES = {CUDA: "nccl", XPU: "xccl", "npu": "hccl"}
"""Kind → what its ranks exchange tensors through; other plug-ins enter theirs in torch's table."""

FLEX_CAPABILITY = (8, 0)
"""CUDA compute capability from which compiled block attention is taken (Ampere): it needs
bfloat16 or float16 tensor cores and the shared memory that its kernels are laid out for."""


def pick_device(wanted: str = "", local_rank: int = 0, distributed: bool = False) -> torch.device:
    """Resolve ``--device``: the accelerator if there is one, this rank's own if there are several.

    Raises:
        ConfigError: torch does not know it, or it is not there.
    """
    kind, _, number = wanted.partition(":")
    if not kind:
        found = torch.accelerator.current_accelerator(check_available=True)
        kind = found.type if found is not None else CPU
    count = _device_count(kind)
    if not count:
        raise ConfigError(_absent(wanted, kind))
    index = local_rank % count if distributed else int(number or 0)
    if index >= count:
        raise ConfigError(f"--device {wanted}: {_how_many(kind, count)}")
    return torch.device(kind) if kind == CPU else torch.device(kind, index)


def _device_count(kind: str) -> int:
    """How many devices of a kind torch can use here; 0: none, or torch does not know the kind."""
    if kind == CPU:
        return 1
    accelerator = torch.accelerator.current_accelerator()
    if kind != CUDA and (accelerator is None or accelerator.type != kind):
        return 0
    module = torch.get_device_module(kind)
    return int(module.device_count()) if module.is_available() else 0


def _absent(wanted: str, kind: str) -> str:
    """The message for a device that is not there."""
    if kind == CUDA:
        return f"--device {wanted}: torch sees no GPU here; use --device cpu"
    found = torch.accelerator.current_accelerator(check_available=True)
    usable = CPU if found is None else f"{found.type} or {CPU}"
    try:
        torch.device(kind)
    except RuntimeError:
        return (
            f"--device {wanted}: this torch knows no {kind} (does it need a plug-in, such as "
            f"torch-npu?); use --device {usable}"
        )
    return f"--device {wanted}: torch sees no {kind} device here; use --device {usable}"


def _how_many(kind: str, count: int) -> str:
    if kind == CUDA:
        return f"this machine has {count} GPU(s)"
    return f"this machine has {count} device(s) of the kind {kind}"


def overlooked() -> str | None:
    """An accelerator of this machine that this torch was not built for, and what to install.

    Only for a torch that knows no accelerator at all: any other says itself why it has none.
    """
    if torch.accelerator.current_accelerator() is not None:
        return None
    for driver in DRIVERS.values():
        if files := driver.files(DEVICE_FILES):
            return (
                f"training on the CPU: torch {torch.__version__} cannot use this machine's "
                f"{driver.device} ({files[0]}); install {driver.remedy}, or say --device cpu"
            )
    return None


def use_device(device: torch.device) -> None:
    """Make it the one that this process's kernels and exchanges run on."""
    if device.type == CUDA:
        torch.cuda.set_device(device)
    elif device.type != CPU:
        torch.accelerator.set_device_index(device)


def process_group_backend(device: torch.device) -> str:
    """What ranks with such devices exchange tensors through.

    Raises:
        ConfigError: torch has nothing for them.
    """
    if device.type == CPU:
        return "gloo"
    known = {**torch.distributed.Backend.default_device_backend_map, **EXCHANGES}
    exchange = known.get(device.type)
    if exchange is None or device.type == MPS:  # gloo has no operations on Apple's GPUs
        raise ConfigError(
            f"several ranks: torch has no exchange between {device.type} devices; start one rank, "
            "or use --device cpu"
        )
    return f"cpu:gloo,{device.type}:{exchange}"


def ddp_device_ids(device: torch.device) -> list[int | None] | None:
    """What DistributedDataParallel is given for a model on such a device."""
    return None if device.type == CPU else [device.index]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == CUDA:
        torch.cuda.synchronize(device)
    elif device.type != CPU:
        torch.accelerator.synchronize(device)


def finish_copies() -> None:
    """Wait for the copies into page-locked memory that this process's device was asked for."""
    torch.accelerator.synchronize()


def page_locks(device: torch.device) -> bool:
    """Whether copies between the host and such a device are faster from page-locked memory."""
    if device.type in (CPU, MPS):  # Apple's GPUs work in the host's memory.
        return False
    return device.type == CUDA or _has_page_locked_memory()


@functools.cache
def _has_page_locked_memory() -> bool:
    return _answer(lambda: torch.empty(1, pin_memory=True)) is not None


def timing_events(device: torch.device) -> tuple[Any, Any] | None:
    """Two events that time what a device does between them; None: a clock has to do."""
    if device.type == CUDA:
        return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    if device.type == CPU or not _has_timing_events(device):
        return None
    return torch.Event(device, enable_timing=True), torch.Event(device, enable_timing=True)


@functools.cache
def _has_timing_events(device: torch.device) -> bool:
    def time_nothing() -> float:
        begin, end = (torch.Event(device, enable_timing=True) for _ in range(2))
        begin.record()
        end.record()
        synchronize(device)
        return begin.elapsed_time(end)

    return _answer(time_nothing) is not None


def kernel_times(kind: str) -> str | None:
    """The profiler's activity that times a kind's kernels; None: it times operators alone."""
    return kind.upper() if kind in (CUDA, XPU) else None


def sum_dtype(device: torch.device) -> torch.dtype:
    """The precision of sums over many steps: float64 where the device has it."""
    return torch.float32 if device.type == MPS else torch.float64


def memory_used(device: torch.device) -> tuple[int, int] | None:
    """Bytes of the device allocated now, and most reserved so far; None: it does not say."""
    if device.type == CPU:
        return None
    if device.type == CUDA:
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_reserved(device)
    if device.type == MPS:
        return torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
    return _answer(
        lambda: (
            torch.accelerator.memory_allocated(device),
            torch.accelerator.max_memory_reserved(device),
        )
    )


def memory_left(device: torch.device) -> tuple[int, int, int] | None:
    """Bytes of the device free, in all, and held by this process; None: it does not say."""
    if device.type == CPU:
        return None
    if device.type == CUDA:
        return *torch.cuda.mem_get_info(device), torch.cuda.memory_reserved(device)
    if device.type == MPS:
        held, total = torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
        return max(0, total - held), total, held
    return _answer(
        lambda: (
            *torch.accelerator.get_memory_info(device),
            torch.accelerator.memory_reserved(device),
        )
    )


def measures_peaks(device: torch.device) -> bool:
    """Whether a device tells how much memory a step took at its peak."""
    return device.type not in (CPU, MPS) and memory_left(device) is not None


def peak_memory_of(work: Callable[[], object], device: torch.device) -> int:
    """Bytes of the device allocated at the peak of ``work``; see :func:`measures_peaks`."""
    memory: Any = torch.cuda if device.type == CUDA else torch.accelerator
    memory.reset_peak_memory_stats(device)
    work()
    return int(memory.max_memory_allocated(device))


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of the device's generator under its kind's name; {}: it has none of its own."""
    if device.type == CPU:
        return {}
    module = torch.get_device_module(device.type)
    if not hasattr(module, "get_rng_state"):
        _warn_of_random_state(device.type)
        return {}
    state = module.get_rng_state() if device.type == MPS else module.get_rng_state(device)
    return {device.type: state}


def set_random_state(states: dict[str, Any], device: torch.device) -> None:
    """Put back what :func:`random_state` returned, if ``states`` has one of this kind."""
    state = states.get(device.type)
    if device.type == CPU or state is None:
        return
    module = torch.get_device_module(device.type)
    if device.type == MPS:
        module.set_rng_state(state)
    else:
        module.set_rng_state(state, device)


@functools.cache
def _warn_of_random_state(kind: str) -> None:
    log.warning("torch.%s does not give its random state: it is not in checkpoints", kind)


@contextlib.contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Random numbers that the body draws are drawn again after it, on the CPU and the device."""
    states = random_state(device)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        set_random_state(states, device)


def make_deterministic() -> None:
    """Have every kernel give the same bits each time, on any device that can."""
    # cuBLAS reads this when its handle is made, so it must be set before the first GPU call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def autocast_takes(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch can compute in mixed precision with ``dtype`` there."""
    if not torch.amp.is_autocast_available(device.type):
        return False
    if device.type != torch._C._get_privateuse1_backend_name():
        return True
    module = torch.get_device_module(device.type)
    return dtype in getattr(module, "get_amp_supported_dtype", list)()


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices in hardware, and autocast has them."""
    if device.type == CPU:
        return cpu_has_bfloat16()
    if device.type == CUDA:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == MPS:
        return torch.backends.mps.is_macos_or_newer(14, 0)
    has = getattr(torch.get_device_module(device.type), "is_bf16_supported", lambda: True)
    return autocast_takes(device, torch.bfloat16) and bool(has())


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (x86 or ARM)."""
    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def multiplies_in_tf32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether float32 matrix products are rounded to TF32 there."""
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return device.type == CUDA and dtype == torch.float32 and tf32


def compiling_pays(kind: str) -> bool:
    """Whether ``--compile auto`` takes torch.compile on an accelerator: where that was measured."""
    return kind == CUDA


def has_block_attention(kind: str) -> bool:
    """Whether torch's flex_attention can train on such a device."""
    return kind in (CUDA, XPU)


def block_attention_pays(device: torch.device) -> bool:
    """Whether flex_attention beats the fused kernel there: where its kernels were measured."""
    if device.type != CUDA or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= FLEX_CAPABILITY


def device_name(device: torch.device) -> str:
    """The model of the accelerator, or of this machine's processor."""
    if device.type == MPS:
        return torch.backends.mps.get_name()
    if device.type != CPU:
        module = torch.get_device_module(device.type)
        named = getattr(module, "get_device_name", None)
        return str(named(device)) if named else device.type
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def management_ids(device: torch.device) -> tuple[str, str] | None:
    """An NVIDIA GPU's UUID and PCI address, by which NVML knows it; None: it is no such GPU."""
    if device.type != CUDA or torch.version.hip is not None:
        return None
    found: Any = torch.cuda.get_device_properties(device)
    uuid = getattr(found, "uuid", "")
    address = f"{found.pci_domain_id:08x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}.0"
    return f"GPU-{uuid}", address


def toolkit_versions() -> dict[str, str]:
    """What torch was built for: the versions of CUDA, ROCm or Intel's compiler."""
    built = {CUDA: torch.version.cuda, "hip": torch.version.hip, XPU: torch.version.xpu}
    return {name: version for name, version in built.items() if version}


def _answer(ask: Callable[[], Any]) -> Any:
    """What an accelerator says; None where its backend lacks the question."""
    try:
        return ask()
    except (RuntimeError, AttributeError, ValueError, AssertionError) as error:
        log.debug("the device does not say: %s", error)
        return None
