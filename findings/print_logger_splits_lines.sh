#!/usr/bin/env bash
# structlog 25.4.0 on unbuffered Python: processes that log lines to one pipe tear each other's lines apart.
#
# Guessed: a printed line is one write, so that lines of several ranks on one pipe stay whole: each is shorter than what
#   a pipe takes at once, and PrintLogger flushes after each.
# True: with PYTHONUNBUFFERED, which images set, or python -u, which torchrun passes, print() writes its text and the end
#   of the line apart, and another process's line may come between. WriteLogger writes both at once. So what our nodes
#   report to one pipe, as JSON, is one write of a whole line.
#
# Needs Python 3.11 and a network; uses a temporary folder. Fails when the behaviour changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check structlog==25.4.0

cat > log.py <<'PYTHON'
import json
import sys

import structlog

logger = getattr(structlog, sys.argv[1])()
for number in range(int(sys.argv[2])):
    logger.info(json.dumps({"number": number, "rank": "of many"}))
PYTHON

venv/bin/python - <<'PYTHON' || { echo "changed: a line is written otherwise"; exit 1; }
import json
import os
import socket
import subprocess
import sys

found = {}
for name in ("PrintLogger", "WriteLogger"):
    for unbuffered in ("", "1"):
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:  # a datagram holds what one write has
            subprocess.run([sys.executable, "log.py", name, "1"], env=environment, stdout=theirs, check=True)
            ours.settimeout(0.5)
            writes = []
            try:
                while True:
                    writes.append(ours.recv(4096).decode())
            except TimeoutError:
                pass
        found[name, bool(unbuffered)] = writes
        print(f"{name}, unbuffered {bool(unbuffered)}: one line in {len(writes)} write(s)")

environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
for name in ("PrintLogger", "WriteLogger"):
    both = f"{sys.executable} log.py {name} 20000 & {sys.executable} log.py {name} 20000 & wait"
    lines = subprocess.run(["sh", "-c", both], env=environment, capture_output=True, text=True).stdout.splitlines()
    torn = sum(1 for line in lines if not (line.startswith("{") and line.endswith("}") and line.count("{") == 1))
    print(f"{name}, unbuffered, two processes of 20,000 lines: {'some lines are torn' if torn else 'all lines are whole'}")
assert {key: len(writes) for key, writes in found.items()} == {
    ("PrintLogger", False): 1,
    ("PrintLogger", True): 2,
    ("WriteLogger", False): 1,
    ("WriteLogger", True): 1,
}
PYTHON

# Seen on 2026-11-30, Python 3.11.7:
# PrintLogger, unbuffered False: one line in 1 write(s)
# PrintLogger, unbuffered True: one line in 2 write(s)
# WriteLogger, unbuffered False: one line in 1 write(s)
# WriteLogger, unbuffered True: one line in 1 write(s)
# PrintLogger, unbuffered, two processes of 20,000 lines: some lines are torn
# WriteLogger, unbuffered, two processes of 20,000 lines: all lines are whole
