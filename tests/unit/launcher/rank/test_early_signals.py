"""Stop signals that come while torch is still being imported."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

RANK = """
import signal, sys, time
from launcher.rank.early_signals import hold_early_signals
hold_early_signals()
print("imports", flush=True)
sys.stdin.readline()
print("lives", flush=True)
for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
    signal.signal(number, lambda number, frame: sys.exit(75))
signal.signal(signal.SIGUSR1, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.SIG_DFL)
# Never away for long, as a training is: a signal right before a wait is seen only after it.
while True:
    time.sleep(0.1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP])
def test_an_early_stop_signal_waits_for_the_trainings_handler(number: signal.Signals) -> None:
    rank = subprocess.Popen(
        [sys.executable, "-c", RANK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert rank.stdin is not None
        assert rank.stdout is not None
        assert rank.stdout.readline() == "imports\n"
        rank.send_signal(number)
        rank.stdin.write("\n")
        rank.stdin.flush()
        assert rank.stdout.readline() == "lives\n"
        assert rank.wait(30) == 75
    finally:
        rank.kill()
