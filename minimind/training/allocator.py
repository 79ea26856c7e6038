"""The C library's memory allocator, set up for training on a CPU."""

from __future__ import annotations

import ctypes
import logging
import os
import platform

log = logging.getLogger(__name__)

# Parameters of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4

MIB = 1 << 20


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next tensors.

    By default glibc gives every block above 32 MiB back to the system when it is freed. A training
    step frees and asks for the same activations again and again, and the system hands them out
    anew page by page, filled with zeros, which can cost as much as the arithmetic on them. What the
    process holds stays at its peak instead of falling between steps.

    Does nothing without glibc, or where the user has tuned it (``MALLOC_…_`` variables).
    """
    if platform.libc_ver()[0] != "glibc" or any(
        name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ
    ):
        return
    mallopt = ctypes.CDLL(None).mallopt
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 128 * MIB}
    refused = [name for name, value in settings.items() if mallopt(name, value) != 1]
    if refused:
        log.debug("mallopt refused %s", refused)
