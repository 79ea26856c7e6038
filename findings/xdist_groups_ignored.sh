#!/usr/bin/env bash
# pytest-xdist 3.8.0 with pytest 9.2.0: --dist loadgroup runs a group's tests wherever it likes.
#
# Guessed: tests with the mark xdist_group("one") run in one process, in which a fixture of the
#   session is made once; so an image that takes minutes to build is built once.
# True: no test is kept with another, and nothing says so. xdist adds the group's name to a test by
#   setting item._nodeid, which pytest 9.2 no longer reads: a test's name comes from its id there.
#   With pytest 9.0.2 the same file runs in one process. --dist loadfile needs no marks, and works.
#
# Needs Python 3.10 or newer and a network; uses a temporary folder. Fails when the behaviour changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > test_group.py <<'PYTHON'
import os
import time

import pytest

pytestmark = pytest.mark.xdist_group("one")


@pytest.mark.parametrize("number", range(8))
def test_of_the_group(number):
    with open("processes", "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
    time.sleep(0.5)
PYTHON

processes() { # PYTEST DIST: how many processes ran the group's tests
    rm -rf venv processes
    python3 -m venv venv
    venv/bin/python -m pip install --quiet --disable-pip-version-check "pytest==$1" pytest-xdist==3.8.0
    venv/bin/python -m pytest -q -p no:cacheprovider -n 2 --dist "$2" > output.txt || { cat output.txt; exit 1; }
    grep -q "8 passed" output.txt
    sort -u processes | wc -l
}

expect() { # PYTEST DIST PROCESSES
    local found
    found=$(processes "$1" "$2")
    echo "pytest $1, --dist $2: the group ran in $found of 2 processes"
    [ "$found" = "$3" ] || { echo "changed: it was $3"; exit 1; }
}

expect 9.0.2 loadgroup 1
expect 9.2.0 loadgroup 2
expect 9.2.0 loadfile 1
echo "as it was: pytest 9.2.0 and pytest-xdist 3.8.0 know no groups"

# Seen on 2026-11-29:
#   pytest 9.0.2, --dist loadgroup: the group ran in 1 of 2 processes
#   pytest 9.2.0, --dist loadgroup: the group ran in 2 of 2 processes
#   pytest 9.2.0, --dist loadfile: the group ran in 1 of 2 processes
