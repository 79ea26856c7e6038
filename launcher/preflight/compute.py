"""Whether a node's GPUs compute, and the nodes add up numbers together: a program once a node.

``python -m launcher.preflight.compute NODES`` runs as the ranks do, in their container and with
their torch, since a driver that lists a GPU need not be able to use it. Each line of its output is
JSON: the first one as soon as this node's own part is done, since the rest waits for the others.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from typing import Any

SIDE = 512
"""Of a matrix of ones: each entry of its square is this number, exactly."""
REDUCE_SECONDS = 30
"""For the nodes to meet and to add up a number."""


def devices(kind: str) -> list[Any]:
    """The devices of a kind that torch sees here, of the accelerator's where it is empty."""
    import torch

    if kind == "cpu":
        return [torch.device("cpu")]
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return []
    return [torch.device(found.type, index) for index in range(torch.accelerator.device_count())]


def computes(device: Any) -> str:
    """What is wrong with a device; "" where it computes."""
    import torch

    try:
        ones = torch.ones(SIDE, SIDE, device=device)
        right = bool((ones @ ones == SIDE).all())
    except RuntimeError as error:
        return f"{device}: {first_line(error)}"
    return "" if right else f"{device} computes wrong numbers"


def reduces(device: Any, rank: int, world: int) -> str:
    """What is wrong with the sum over all nodes; "" where it is right."""
    import torch
    import torch.distributed as dist

    limit = timedelta(seconds=REDUCE_SECONDS)
    try:
        backend = dist.get_default_backend_for_device(device)
        dist.init_process_group(backend, timeout=limit, rank=rank, world_size=world)
        value = torch.ones(1, device=device)
        dist.all_reduce(value)
        right = value.item() == world
        dist.destroy_process_group()
    except (RuntimeError, ValueError) as error:
        return first_line(error)
    return "" if right else "the sum over all nodes is wrong"


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def say(report: dict[str, Any]) -> None:
    """In one write: another node's line may come at any moment, to the same pipe."""
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> None:
    """``NODES [KIND]``: the nodes with commas between, in Slurm's order; the kind of device."""
    nodes, kind = argv[0].split(","), argv[1] if len(argv) > 1 else ""
    rank = int(os.environ["SLURM_PROCID"])
    here = devices(kind)
    bad = [said for device in here if (said := computes(device))]
    report: dict[str, Any] = {
        # A container need not have Slurm's name of the node.
        "node": os.environ.get("SLURMD_NODENAME") or nodes[rank],
        "computing": len(here) - len(bad),
        "computes": "; ".join(bad) if here else "torch sees no GPU",
    }
    say(report)
    if here and not bad:
        alone = len(nodes) == 1
        report["reduces"] = "" if alone else reduces(here[0], rank, len(nodes))
        say(report)


if __name__ == "__main__":
    main(sys.argv[1:])
