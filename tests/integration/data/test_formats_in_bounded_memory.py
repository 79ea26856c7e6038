"""A file of any format is read in memory that does not grow with it: the kernel gives no more."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import zstandard

from benchmarks.formats import WRITERS

MEGABYTES = 64
LIMIT_MEGABYTES = 60
"""Over what the imports take: less than a file."""

# Arrow's own allocators reserve addresses by the gigabyte, and each thread of the C library's.
ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "ARROW_IO_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
}

PRESS = {
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}

PROGRAM = """\
import json, resource, sys
from pathlib import Path
import pyarrow, pyarrow.compute, pyarrow.dataset, pyarrow.parquet
from minimind.data.rows import BadRow, read_texts
size = next(int(line.split()[1]) for line in open("/proc/self/status") if line[:7] == "VmSize:")
resource.setrlimit(resource.RLIMIT_AS, [(size << 10) + (int(sys.argv[1]) << 20)] * 2)
for name in sys.argv[2:]:
    found = {"rows": 0, "bytes": 0}
    for row in read_texts(Path(name)):
        if isinstance(row, BadRow):
            assert "open" in name and row.line == 2, row
            continue
        found["rows"] += 1
        found["bytes"] += len(row)
    print(json.dumps({**found, "name": name}), flush=True)
"""

TEXT = 'It was a quiet morning in the harbour, and nobody looked at \\ the "sea".\n' * 30


def texts(megabytes: int = MEGABYTES) -> Iterator[str]:
    for number in range((megabytes << 20) // len(TEXT)):
        yield f"{number} {TEXT}"


def jsonl(megabytes: int) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts(megabytes)).encode()


def one_row_group(path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    options = {"row_group_size": 1 << 30, "compression": "none", "use_dictionary": False}
    pq.write_table(pa.table({"text": list(texts())}), path, **options)
    return path


def open_quote(path: Path) -> Path:
    """A csv whose first row has a quote that nobody closes, and none behind it."""
    line = TEXT[:70].replace('"', "").replace(",", "").strip()
    with open(path, "w") as file:
        file.write('id,text\n0,"begin\n')
        file.writelines(f"{n},{line}\n" for n in range((16 << 20) // len(line)))
    return path


def test_every_format_within_a_limit(tmp_path: Path) -> None:
    # The open quote comes first: it takes most, and the others leave gaps in the heap.
    files = [open_quote(tmp_path / "open.csv"), tmp_path / "plain.jsonl"]
    files[1].write_bytes(jsonl(MEGABYTES))
    files.append(one_row_group(tmp_path / "one.parquet"))
    for suffix, write in WRITERS.values():
        files.append(tmp_path / f"a{suffix}")
        write(files[-1], texts())
    megabyte = jsonl(1)
    for suffix, press in PRESS.items():
        files.append(tmp_path / f"a.jsonl{suffix}")
        files[-1].write_bytes(press(megabyte) * MEGABYTES)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(LIMIT_MEGABYTES), *map(str, files)],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = sum(map(len, texts()))
    assert [Path(each["name"]).name for each in found] == [file.name for file in files]
    for each in found:
        assert each["bytes"] >= 0.95 * ((16 << 20) if "open" in each["name"] else wanted), each
