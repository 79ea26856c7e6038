#!/usr/bin/env bash
# torchrun 2.13.0: the signal that Slurm's --signal=USR1 sends ends torchrun, and not its ranks.
#
# Guessed: torchrun hands signals on to its ranks, or takes them along when it ends.
# True: SIGUSR1 and SIGUSR2 are not among those that it handles by default. torchrun dies at once
#   (128 + 10), its ranks get nothing, are handed to process 1, and train on: the job looks ended,
#   its next attempt starts, and both write to one checkpoint folder. With --signals-to-handle
#   SIGTERM,SIGINT,SIGUSR1 the ranks do get SIGUSR1 itself; torchrun then ends with 1.
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
import time

got = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: got.append(signal.Signals(number).name))
log = open(f"log.{os.environ['RANK']}", "w", buffering=1)
log.write("ready\n")
parent, end = os.getppid(), time.monotonic() + 300
while os.getppid() == parent and not got and time.monotonic() < end:
    time.sleep(0.05)
time.sleep(1)
orphan = os.getppid() != parent
log.write(f"trains on, {'an orphan' if orphan else 'with its parent'}, after {got or 'no signal'}\n")
PYTHON

try() { # WHAT STATUS RANK_SAYS FLAGS…: sends SIGUSR1 to torchrun
    local what=$1 expected=$2 words=$3 status=0
    shift 3
    rm -f log.*
    venv/bin/torchrun --standalone --nproc-per-node 2 "$@" rank.py > output.txt 2>&1 &
    local torchrun=$!
    until grep -qs ready log.0 && grep -qs ready log.1; do
        kill -0 "$torchrun" 2> /dev/null || break
        sleep 0.1
    done
    kill -s USR1 "$torchrun"
    wait "$torchrun" 2> /dev/null || status=$?
    for _ in $(seq 100); do
        grep -qs trains log.0 && grep -qs trains log.1 && break
        sleep 0.1
    done
    echo "$what: torchrun ends with $status; rank 0 $(grep -h trains log.0)"
    [ "$status" = "$expected" ] || { echo "changed: it was $expected"; exit 1; }
    [ "$(cat log.[01] | grep -c "$words")" = 2 ] || { echo "changed: ranks said: $words"; exit 1; }
}

try "by default" 138 "an orphan, after no signal"
try "handled" 1 "after \['SIGUSR1'\]" --signals-to-handle SIGTERM,SIGINT,SIGUSR1
echo "as it was: SIGUSR1 to torchrun 2.13.0 leaves orphans unless it is told to handle it"

# Seen on 2026-11-29:
#   by default: torchrun ends with 138; rank 0 trains on, an orphan, after no signal
#   handled: torchrun ends with 1; rank 0 trains on, with its parent, after ['SIGUSR1']
