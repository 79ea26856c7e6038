import subprocess
import sys
import time

from minimind.telemetry.startup import StartupClock

CHILD = """
import time
time.sleep(0.3)
from minimind.telemetry.startup import StartupClock
clock = StartupClock()
clock.lap("imports")
time.sleep(0.2)
clock.lap("data")
print(clock.seconds["imports"], clock.seconds["data"], clock.total)
"""


def test_counts_from_the_process_start_and_splits_what_follows():
    began = time.time()
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    imports, data, total = map(float, done.stdout.split())
    assert imports >= 0.29  # what came before the clock was made
    assert data >= 0.19  # of 0.2: the clock of the day may be set meanwhile
    assert total == imports + data
    assert total <= time.time() - began + 0.02


def test_says_each_part():
    clock = StartupClock()
    clock.seconds = {"imports": 3.14, "data": 0.04}
    assert str(clock) == "imports 3.1, data 0.0"
