"""A library to preload into a process under test: it records, delays and interrupts file calls."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.needs import lacks

SOURCE = Path(__file__).with_name("shim.c")


def library() -> Path:
    """Compile the library, once for each content of its source.

    Without a C compiler the test is skipped; in CI that is a failure.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        lacks("no C compiler")
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"minimind-shim-{os.getuid()}-{digest}.so"
    if not target.exists():
        fresh = target.with_suffix(f".{os.getpid()}")
        options = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(
            [compiler, *options, "-o", str(fresh), str(SOURCE), "-ldl", "-pthread"], check=True
        )
        os.replace(fresh, target)
    return target


def preload() -> dict[str, str]:
    """The variable that loads the library."""
    return {"LD_PRELOAD": str(library())}


def recording(root: Path, record: Path) -> dict[str, str]:
    """Write down every change of a file under ``root``."""
    return {"SHIM_ROOT": str(root), "SHIM_RECORD": str(record)}


def striking(
    root: Path, call: str, count: int, when: str, number: signal.Signals, only: str = ""
) -> dict[str, str]:
    """Signal the process itself before or after its ``count``-th ``call`` under ``root``.

    Args:
        only: words that its command line must have.
    """
    strike = f"{call}:{count}:{when}:{int(number)}"
    return {"SHIM_ROOT": str(root), "SHIM_STRIKE": strike, "SHIM_ONLY": only}


def slow_fsync(root: Path, seconds: float) -> dict[str, str]:
    """Make every fsync under ``root`` take longer."""
    return {"SHIM_ROOT": str(root), "SHIM_DELAY": str(int(seconds * 1e6))}
