"""How many accelerators this machine shows, and what their driver says where it complains.

Standard library only, and few modules of it: every node starts this before every run.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

LIST_SECONDS = 15.0
"""``nvidia-smi`` takes a second or two where the driver is not kept loaded."""


@dataclass(frozen=True)
class Shown:
    """What a driver shows. ``parts``: what Slurm gives, where a device is divided.

    ``complaint``: "" where it has none.
    """

    devices: int
    parts: int
    complaint: str = ""


def visible(commands: Sequence[str], pattern: str) -> Shown | None:
    """What the first of ``commands`` shows that can.

    None: none of them is here, or none says anything that we can read.

    Args:
        pattern: a line for a device, whose group is the device's number.

    Raises:
        TimeoutError: the driver does not answer.
    """
    broken: Shown | None = None
    for command in commands:
        answer = _ask(command)
        if answer is None:
            continue
        text, code = answer
        complaint = _complaint(command, text, code, pattern) if code else ""
        parts = listed(text, pattern)
        shown = Shown(len(parts), sum(max(count, 1) for count in parts.values()), complaint)
        if complaint:
            broken = broken or shown
        elif shown.devices:
            return shown
    return broken


def _ask(command: str) -> tuple[str, int] | None:
    words = shlex.split(command)
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError:
        return None
    try:
        return process.communicate(timeout=LIST_SECONDS)[0], process.returncode
    except subprocess.TimeoutExpired:
        # Not waited for: a process that a broken driver holds does not even end when it is killed.
        process.kill()
        late = f"{words[0]} does not answer within {LIST_SECONDS:.0f} s"
        raise TimeoutError(late) from None


def listed(text: str, pattern: str) -> dict[str, int]:
    """Device → into how many parts it is divided, by what such a command prints; 0: it is whole."""
    parts: dict[str, int] = {}
    newest = ""
    for line in text.splitlines():
        if match := re.search(pattern, line):
            newest = match[1]
            parts.setdefault(newest, 0)
        elif parts and line.lstrip().startswith("MIG "):
            parts[newest] += 1
    return parts


def _complaint(command: str, text: str, code: int, pattern: str) -> str:
    lines = (line.strip() for line in text.splitlines() if not re.search(pattern, line))
    return next(filter(None, lines), f"{command} ended with status {code}")
