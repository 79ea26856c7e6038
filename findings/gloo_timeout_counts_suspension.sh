#!/usr/bin/env bash
# gloo in torch 2.13.0: the timeout of a collective runs on while its ranks are stopped.
#
# Guessed: ranks that are all suspended and continued together (docker pause, Slurm's gang
#   scheduling, SIGSTOP) take up their all_reduce where it was; nobody waited for anybody longer
#   than before.
# True: the time of the suspension counts. A rank that was stopped while it waited finds its
#   timeout over as it goes on, raises "Timed out waiting" before its peer could send a byte, and
#   closes the connections, so the run crashes. Any suspension longer than the group's timeout
#   (30 minutes by default) does it.
#
# Needs Python 3.11 and a network; uses a temporary folder. Fails when the behaviour changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6

cat > rank.py <<'PYTHON'
import datetime
import os
import sys
import time

import torch
import torch.distributed as dist

rank = int(sys.argv[1])
dist.init_process_group(
    "gloo",
    init_method=f"file://{os.getcwd()}/meet",
    rank=rank,
    world_size=2,
    timeout=datetime.timedelta(seconds=6),
)
end = time.monotonic() + 30
print("ready", flush=True)
while time.monotonic() < end:
    time.sleep(0.2 * rank)  # rank 0 waits in the collective nearly all the time
    dist.all_reduce(torch.ones(1000))
    stop = torch.tensor([float(time.monotonic() >= end)])
    dist.all_reduce(stop)
    if stop.item():
        break
print("done", flush=True)
PYTHON

for rank in 0 1; do
    OMP_NUM_THREADS=1 venv/bin/python rank.py "$rank" > "log.$rank" 2>&1 &
    pids[rank]=$!
done
until grep -qs ready log.0 && grep -qs ready log.1; do sleep 0.1; done
sleep 1
kill -STOP "${pids[@]}"
sleep 10
kill -CONT "${pids[@]}"
status=0
wait "${pids[0]}" || status=$?
kill -KILL "${pids[1]}" 2> /dev/null || true
echo "rank 0 ends with $status: $(grep -h -o 'Timed out waiting.*' log.0 | head -1)"
if [ "$status" = 0 ] || ! grep -q "Timed out waiting" log.0; then
    echo "changed: it went on"
    exit 1
fi
echo "as it was: the timeout counts the time in which both ranks were stopped"

# Seen on 2026-11-30:
# rank 0 ends with 1: Timed out waiting 6000ms for recv operation to complete
# as it was: the timeout counts the time in which both ranks were stopped
