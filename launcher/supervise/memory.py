"""Ranks that Slurm has killed because their job had no memory left, by what it writes.

It does so where the site keeps memory by cgroups (``task/cgroup`` with ``ConstrainRAMSpace``). The
other ranks see one leave, and say so at length; its own log just ends. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SAID = re.compile(
    r"^(?:srun: error: (?P<node>\S+): tasks? [\d,\- ]+: Out Of Memory"
    # Where a process that a rank has started was killed, the rank itself ends otherwise, if at all.
    r"|slurmstepd(?:-(?P<own>\S+))?: error: Detected \d+ oom[-_ ]kill event.*)$",
    re.MULTILINE | re.IGNORECASE,
)


def killed_for_memory(texts: Iterable[str]) -> re.Match[str] | None:
    """The line in which Slurm says so, of what srun has written or of ranks' logs."""
    return next((match for text in texts if (match := _SAID.search(text))), None)


def described(said: re.Match[str]) -> str:
    """What there is to say of an attempt of which :func:`killed_for_memory` has found this."""
    node = said["node"] or said["own"]
    where = f" on {node}" if node else ""
    return (
        f"out of memory{where}: raise --mem, or lower what ranks take (--batch_size, --num_workers)"
    )
