"""What a job measures about the nodes it runs on: ``python -m launcher.probe`` on every rank.

Runs inside the job, in the image where there is one. Uses torch only where it is there: GPUs and
the all-reduce need it, the rest does not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from minimind.rundir import env
from minimind.system.drivers import makers_here
from minimind.system.durable import write_text_durably

DISK_BYTES = 64 << 20
REDUCE_BYTES = 16 << 20
REDUCE_ROUNDS = 5
RENDEZVOUS_SECONDS = 120


def probe(folder: Path, *, cpu: bool) -> dict[str, Any]:
    """Measures this rank's node. Bandwidths are in MB/s (1e6 bytes), times in seconds."""
    found: dict[str, Any] = {
        "host": socket.gethostname(),
        "rank": int(os.environ.get(env.RANK, os.environ.get("SLURM_PROCID", "0"))),
        "clock": time.time(),
        "shared_memory_bytes": shared_memory_bytes(),
        "disk_write_mb_s": disk_speed(folder),
        "temporary_write_mb_s": disk_speed(Path(tempfile.gettempdir())),
        "makers": makers_here(),
        **torch_devices(),
    }
    if found["torch"] is None:
        return found
    return {**found, **all_reduce(cpu=cpu)}


def torch_devices() -> dict[str, Any]:
    """torch's version, None where there is none, and the accelerators that it can use here."""
    try:
        import torch

        from minimind.distributed.device import device_name
    except ImportError:
        return {"torch": None, "gpus": []}
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return {"torch": torch.__version__, "gpus": []}
    each = range(torch.accelerator.device_count())
    names = [device_name(torch.device(found.type, index)) for index in each]
    return {"torch": torch.__version__, "gpus": names}


def shared_memory_bytes() -> int:
    """Size of /dev/shm, where loader workers and NCCL pass data on; 0 without one."""
    return shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0


def disk_speed(folder: Path) -> float:
    """Sequential write of 64 MiB with fsync, MB/s."""
    block = os.urandom(1 << 20)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        start = time.monotonic()
        for _ in range(DISK_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return DISK_BYTES / 1e6 / (time.monotonic() - start)


def all_reduce(*, cpu: bool) -> dict[str, Any]:
    """Bandwidth of an all-reduce over all ranks, as algorithm bandwidth: bytes ÷ time."""
    import datetime

    import torch
    import torch.distributed as dist

    from minimind.distributed import device as devices

    world, rank = int(os.environ.get(env.WORLD_SIZE, "1")), int(os.environ.get(env.RANK, "0"))
    if world == 1:
        return {"world_size": 1}
    local_rank = int(os.environ.get(env.LOCAL_RANK, "0"))
    device = devices.pick_device("cpu" if cpu else "", local_rank, distributed=True)
    backend = devices.process_group_backend(device)
    devices.use_device(device)
    limit = datetime.timedelta(seconds=RENDEZVOUS_SECONDS)
    dist.init_process_group(backend, timeout=limit)
    data = torch.full((REDUCE_BYTES // 4,), float(rank), device=device)
    dist.all_reduce(data)
    right = bool(data[0].item() == world * (world - 1) / 2)
    start = time.monotonic()
    for _ in range(REDUCE_ROUNDS):
        dist.all_reduce(data)
    devices.synchronize(device)
    speed = REDUCE_ROUNDS * REDUCE_BYTES / 1e6 / (time.monotonic() - start)
    # All clocks are read right after a barrier: what they differ by is skew, not start-up.
    dist.barrier()
    clock = time.time()
    dist.destroy_process_group()
    return {
        "world_size": world,
        # Of "cpu:gloo,cuda:nccl" the one that the data went through.
        "backend": backend.rpartition(":")[2],
        "all_reduce_mb_s": speed,
        "all_reduce_right": right,
        "clock": clock,
    }


def main(argv: list[str]) -> int:
    """Takes the training's flags as far as they matter; writes ``SAVE_DIR/probe-RANK.json``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--save_dir", type=Path, required=True)
    parser.add_argument("--device", default="")
    options, _ = parser.parse_known_args(argv)
    folder: Path = options.save_dir
    folder.mkdir(parents=True, exist_ok=True)
    found = probe(folder, cpu=options.device == "cpu")
    write_text_durably(folder / f"probe-{found['rank']}.json", json.dumps(found))
    return 0
