import ctypes
import platform
import subprocess
import sys

import pytest

from minimind.training.allocator import keep_freed_memory

# In a process of its own: what mallopt sets stays.
PROBE = """
import resource
from minimind.training.allocator import keep_freed_memory
import torch

def page_faults():
    # The allocator settles: alignment leaves it pieces a little too small for the next tensor.
    for _ in range(20):
        torch.ones(1 << 24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(page_faults())
keep_freed_memory()
print(page_faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets up glibc's allocator")
def test_freed_tensors_are_used_again_without_asking_the_system():
    command = [sys.executable, "-c", PROBE]
    quiet = {"PATH": "", "OMP_NUM_THREADS": "1"}
    probe = subprocess.run(command, env=quiet, capture_output=True, text=True, check=True)
    before, after = map(int, probe.stdout.split())
    assert before > 1000
    assert after < 100


@pytest.mark.parametrize("variable", ["MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_the_user_s_own_settings_stand(monkeypatch, variable):
    def no_library(name):
        raise AssertionError("mallopt was to be called")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    monkeypatch.setenv(variable, "1048576")
    keep_freed_memory()
