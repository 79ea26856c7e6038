"""``python -m tests.fuzz.guided --minutes 10``: each reader its share of the time.

Needs atheris (libFuzzer for Python), which ``make fuzz-guided`` installs where there is one for
this Python and machine.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MOST_MEGABYTES = 4096
SLOWEST_SECONDS = 20
ARTIFACTS = Path("build/fuzz")
MEMORY = Path("/dev/shm")
"""Where files cost no disk: each input is written anew."""


def main(argv: Sequence[str]) -> int:
    """Fuzz in processes of their own; 1 when a reader fell."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="in all")
    parser.add_argument("--reader", action="append", help="this one alone")
    parser.add_argument("--input", type=Path, help="read this file once: what a finding names")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed; make fuzz-guided installs it", file=sys.stderr)
        return 2
    if args.child is not None:
        fuzz(args.reader[0], args.child, args.input)
    if args.input:
        return run(args.reader[0], 0.0, args.input).returncode
    names = args.reader or names_of_readers()
    fallen = []
    print("| reader | inputs | places reached | inputs kept |\n|---|---|---|---|")
    for name in names:
        done = run(name, 60 * args.minutes / len(names), None)
        print(row(name, done.stderr), flush=True)
        if done.returncode:
            fallen.append(name)
            print(done.stderr[-6000:], file=sys.stderr)
    return 1 if fallen else 0


def names_of_readers() -> list[str]:
    """Asked of a process of its own: what is imported here cannot be watched any more."""
    code = (
        "from tests.fuzz.guided.readers import READERS; import json; print(json.dumps([*READERS]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return list(json.loads(found.stdout))


def run(name: str, seconds: float, file: Path | None) -> subprocess.CompletedProcess[str]:
    """Fuzz one reader in a process, which libFuzzer ends."""
    words = ["--reader", name, "--child", str(seconds), *(["--input", str(file)] if file else [])]
    command = [sys.executable, "-m", "tests.fuzz.guided", *words]
    # libFuzzer ends the process without letting it clean up.
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        return subprocess.run(
            command,
            env={**os.environ, "TMPDIR": scratch},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


def fuzz(name: str, seconds: float, file: Path | None) -> None:
    """Never returns."""
    import atheris

    with atheris.instrument_imports(include=["minimind", "launcher"]):
        readers = importlib.import_module("tests.fuzz.guided.readers")
    readers.signal_nobody()
    chosen = readers.READERS[name]
    corpus = Path(tempfile.mkdtemp(dir=readers.FOLDER))
    for number, valid in enumerate(chosen.valid()):
        (corpus / str(number)).write_bytes(valid)
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    limits = [
        f"-max_total_time={max(1, int(seconds))}",
        f"-max_len={chosen.longest}",
        f"-timeout={SLOWEST_SECONDS}",
        f"-rss_limit_mb={MOST_MEGABYTES}",
        f"-artifact_prefix={ARTIFACTS / name}-",
        "-print_final_stats=1",
    ]
    inputs = [str(file)] if file else [*limits, str(corpus)]
    atheris.Setup([sys.argv[0], *inputs], chosen.read)
    atheris.Fuzz()


def row(name: str, said: str) -> str:
    """A line of the table, from what libFuzzer said."""
    numbers = [
        found[-1] if (found := re.findall(pattern, said)) else "?"
        for pattern in (r"number_of_executed_units: (\d+)", r"cov: (\d+)", r"corp: (\d+)")
    ]
    return f"| {name.replace('_', ' ')} | " + " | ".join(f"{n}" for n in numbers) + " |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
