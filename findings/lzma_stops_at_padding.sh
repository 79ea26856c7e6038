#!/usr/bin/env bash
# Python 3.11's lzma: an .xz file that other programs call whole ends early, without a word.
#
# Guessed: lzma.open reads all of a file that is valid, as python-xz 0.7.0 and "xz" do.
# True: zeros between two streams, which the format allows as padding, end the file: the second stream is
#   lost without a word. So is whatever follows a stream, of bz2 too, where gzip raises an error.
#
# Needs Python 3.11 and a network; uses a temporary folder. Fails when the behaviour changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check python-xz==0.7.0

venv/bin/python - <<'PYTHON' || { echo "changed: the rest was lost without an error"; exit 1; }
import bz2
import lzma

import xz

with open("padded.xz", "wb") as file:
    file.write(lzma.compress(b"one\n") + bytes(4) + lzma.compress(b"two\n"))
print("python-xz reads:", xz.open("padded.xz").read())
print("lzma reads:", lzma.open("padded.xz").read())
assert xz.open("padded.xz").read() == b"one\ntwo\n" and lzma.open("padded.xz").read() == b"one\n"
for module in (lzma, bz2):
    with open("rubbish", "wb") as file:
        file.write(module.compress(b"one\n") + b"rubbish, or half of the next download")
    found = module.open("rubbish").read()
    print(f"{module.__name__} with rubbish behind it reads: {found!r}")
    assert found == b"one\n"
PYTHON
echo "as it was: lzma and bz2 end quietly at what they do not know"

# Seen on 2026-11-30:
#   python-xz reads: b'one\ntwo\n'
#   lzma reads: b'one\n'
#   lzma with rubbish behind it reads: b'one\n'
#   bz2 with rubbish behind it reads: b'one\n'
#   as it was: lzma and bz2 end quietly at what they do not know
