"""How many GPUs this machine shows, and what its driver says where they are fewer than expected.

Standard library only, and few modules of it: every node starts this before every run.
"""

from __future__ import annotations

import glob
import subprocess

SMI_SECONDS = 15.0
"""``nvidia-smi`` takes a second or two where the driver is not kept loaded."""
AMD = "/sys/class/kfd/kfd/topology/nodes/*/gpu_id"


def nvidia_smi() -> tuple[int, str] | None:
    """The GPUs that NVIDIA's driver lists, and its complaint, if any; None: there is none to ask.

    Raises:
        TimeoutError: it does not answer.
    """
    try:
        process = subprocess.Popen(
            ["nvidia-smi", "-L"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError:
        return None
    try:
        text = process.communicate(timeout=SMI_SECONDS)[0]
    except subprocess.TimeoutExpired:
        # Not waited for: a process that a broken driver holds does not even end when it is killed.
        process.kill()
        raise TimeoutError(f"nvidia-smi does not answer within {SMI_SECONDS:.0f} s") from None
    return listed(text), "" if process.returncode == 0 else _first_line(text, process.returncode)


def listed(text: str) -> int:
    """The devices in what ``nvidia-smi -L`` prints: a GPU, or the parts it is divided into."""
    parts: list[int] = []
    for line in text.splitlines():
        if line.startswith("GPU "):
            parts.append(0)
        elif parts and line.lstrip().startswith("MIG "):
            parts[-1] += 1
    return sum(max(count, 1) for count in parts)


def _first_line(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("GPU ", "MIG "))]
    return told[0] if told else f"nvidia-smi ended with status {code}"


def visible() -> tuple[int, str] | None:
    """The GPUs that this machine shows, and a complaint; None: it has no driver that we know.

    Raises:
        TimeoutError: the driver does not answer.
    """
    if (answer := nvidia_smi()) is not None:
        return answer
    others = (glob.glob("/dev/nvidia[0-9]*"), glob.glob("/dev/davinci[0-9]*"), _amd())
    return next(((len(found), "") for found in others if found), None)


def _amd() -> list[str]:
    """AMD's GPUs: a processor is a node of this list, too, without a GPU's number."""
    found = []
    for path in glob.glob(AMD):
        try:
            with open(path) as file:
                found += [path] if file.read().strip() not in ("", "0") else []
        except OSError:
            continue
    return found
