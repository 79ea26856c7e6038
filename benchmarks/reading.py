"""Memory of reading text: the peak over what the imports take, in every format of a large file.

A fresh process reads all rows of a file, one after the other, and keeps none: what it needs is what
a process of the build needs for a file. The file has --gb of jsonl, made from real text, or the
same text in another format; files are made one at a time and removed again.
"""

from __future__ import annotations

import gzip
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import (
    Report,
    environment,
    main,
    make_parser,
    print_result,
    read_result,
    run_process,
    say,
    table,
    verdict,
    work_folder,
)
from benchmarks.corpus import benchmark_corpus
from benchmarks.data import enlarge
from benchmarks.formats import WRITERS, texts_of

TARGET = 64.0
"""MB: docs/data.md promises about a megabyte of rows, a record batch or a page, and a window."""


def gzipped(path: Path) -> Any:
    return gzip.open(path, "wb", compresslevel=1)


def zstd(path: Path) -> Any:
    import zstandard

    return zstandard.open(path, "wb")


COMPRESSED: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "jsonl.gz": (".jsonl.gz", gzipped),
    "jsonl.zst": (".jsonl.zst", zstd),
}
FORMATS = ("jsonl", *COMPRESSED, *(name for name in WRITERS if name != "txt"))


def made(jsonl: Path, name: str) -> Path:
    """The same text in another format, beside ``jsonl``."""
    if name == "jsonl":
        return jsonl
    if name in WRITERS:
        suffix, write = WRITERS[name]
        path = jsonl.with_suffix(suffix)
        write(path, texts_of(jsonl))
        return path
    suffix, opened = COMPRESSED[name]
    path = jsonl.with_suffix(suffix)
    with open(jsonl, "rb") as source, opened(path) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return path


def read(path: Path) -> None:
    """Child process: read all rows of a file."""
    import pyarrow.dataset
    import pyarrow.parquet  # noqa: F401

    from minimind.data.chunks import BadRow
    from minimind.data.rows import read_texts

    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    start = time.perf_counter()
    rows = n_bytes = 0
    for text in read_texts(path):
        assert not isinstance(text, BadRow), text
        rows += 1
        n_bytes += len(text.encode())
    seconds = time.perf_counter() - start
    peak = status("VmHWM") - before
    print_result({"rows": rows, "bytes": n_bytes, "seconds": seconds, "peak_mb": peak})


def status(name: str) -> float:
    """A line of this process's status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def run() -> None:
    parser = make_parser("reading", __doc__, "--gb 2 --out docs/performance.md")
    parser.add_argument("--gb", type=float, default=2.0, help="size of the jsonl file")
    parser.add_argument("--formats", nargs="*", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--child", default="", help="(what this program calls itself with)")
    args = parser.parse_args()
    if args.child:
        read(Path(args.child))
    else:
        measure(args)


def measure(args: Any) -> None:
    report = Report("reading", __doc__ or "")
    rows: list[list[Any]] = []
    with work_folder(args.work_dir) as work:
        sample, _ = benchmark_corpus(work)
        jsonl = work / f"reading{args.gb:g}gb.jsonl"
        if not jsonl.exists():
            say(f"writing {args.gb:g} GB of text")
            enlarge(sample, jsonl, int(args.gb * 1e9))
        for name in args.formats:
            say(f"reading it as {name}")
            path = made(jsonl, name)
            command = [sys.executable, "-m", "benchmarks.reading", "--child", str(path)]
            found = read_result(run_process(command, env=environment())[0])
            size = path.stat().st_size
            if path != jsonl:
                path.unlink()
            report.data[name] = {**found, "size": size}
            speed = found["bytes"] / 1e6 / found["seconds"]
            rows.append([name, size / 1e9, f"{found['rows']:,}", speed, found["peak_mb"]])
    report.add(table(["format", "GB on disk", "rows", "MB/s of text", "peak MB"], rows))
    most = max(row[-1] for row in rows)
    report.add(f"- most of all: {verdict(most, TARGET, at_most=True, unit=' MB')}")
    report.publish(args)


if __name__ == "__main__":
    main(run)
