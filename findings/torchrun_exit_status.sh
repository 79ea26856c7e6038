#!/usr/bin/env bash
# torchrun 2.13.0: its exit status says nothing about how its ranks ended.
#
# Guessed: ranks that take SIGTERM, save and leave with 75 ("run me again"), or with 0, make
#   torchrun leave with that status; and a rank that leaves with 75 of its own accord does, too.
# True: torchrun ends with 1 and a traceback in every one of these cases, also when all ranks
#   returned 0 after the signal. A scheduler's script that asks torchrun's status whether to run
#   the job again takes every orderly stop for a crash. And the first rank to leave with 75 makes
#   torchrun send SIGTERM to the others at once, in the middle of whatever they are saving.
#
# Needs Python 3.11 and a network; uses a temporary folder. Fails when the behaviour changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6

cat > rank.py <<'PYTHON'
import os
import signal
import sys
import time

rank = os.environ["RANK"]
got = []
signal.signal(signal.SIGTERM, lambda number, frame: got.append(signal.Signals(number).name))
log = open(f"log.{rank}", "w", buffering=1)
log.write("ready\n")
end = time.monotonic() + float(os.environ["SECONDS_TO_LIVE"])
while time.monotonic() < end and not got:
    time.sleep(0.05)
time.sleep(1 + 2 * int(rank))  # the save; rank 1's takes longer
log.write(f"saved, after {got or 'no signal'}\n")
sys.exit(int(os.environ["CODE"]))
PYTHON

try() { # WHAT SIGNAL CODE SECONDS: expects torchrun to end with 1
    rm -f log.*
    CODE=$3 SECONDS_TO_LIVE=$4 venv/bin/torchrun --standalone --nproc-per-node 2 rank.py \
        > output.txt 2>&1 &
    local torchrun=$! status=0
    until grep -qs ready log.0 && grep -qs ready log.1; do
        kill -0 "$torchrun" 2> /dev/null || break
        sleep 0.1
    done
    [ "$2" = none ] || kill -s "$2" "$torchrun"
    wait "$torchrun" || status=$?
    echo "$1: torchrun ends with $status; $(grep -h saved log.0); $(grep -h saved log.1)"
    [ "$status" = 1 ] || { echo "changed: it was 1"; exit 1; }
}

try "SIGTERM, ranks leave with 75" TERM 75 600
try "SIGTERM, ranks leave with 0" TERM 0 600
try "no signal, ranks leave with 75" none 75 3
grep -q "SIGTERM" log.1 || { echo "changed: rank 1 was not told to stop by rank 0's end"; exit 1; }
echo "as it was: torchrun 2.13.0 ends with 1 however its ranks end"

# Seen on 2026-11-29:
#   SIGTERM, ranks leave with 75: torchrun ends with 1; saved, after ['SIGTERM']; saved, after ['SIGTERM']
#   SIGTERM, ranks leave with 0: torchrun ends with 1; saved, after ['SIGTERM']; saved, after ['SIGTERM']
#   no signal, ranks leave with 75: torchrun ends with 1; saved, after no signal; saved, after ['SIGTERM']
