"""What all benchmarks share: the machine, alternating runs, medians, tables, processes."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minimind.errors import MiniMindError
from minimind.system.process import available_cores

REPOSITORY = Path(__file__).resolve().parent.parent
PEER_PACKAGES = REPOSITORY / "build" / "peers"
"""Where ``make bench`` puts what only the peers need."""

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "accelerate", "datasets")
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "bf16")


class BenchmarkError(MiniMindError):
    """A program under measurement failed, or left nothing to measure."""


@dataclass(frozen=True)
class Spread:
    """A median with the smallest and largest of its runs: the figure and its noise."""

    median: float
    low: float
    high: float
    runs: int

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Raises BenchmarkError where there is no value."""
        if not values:
            raise BenchmarkError("no run gave a value")
        return Spread(statistics.median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        if self.runs == 1:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)}–{number(self.high)})"


def number(value: float) -> str:
    """Three significant digits at least, thousands separated: 0.0123, 1.23, 12.3, 1,234."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1 or size == 0:
        return f"{value:.2f}"
    return f"{value:.3g}"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; every column but the first is aligned to the right."""

    def cell(value: Any) -> str:
        text = number(value) if isinstance(value, float) else str(value)
        return text.replace("|", "\\|").replace("\n", " ")

    lines = [[cell(value) for value in row] for row in rows]
    for line in lines:
        if len(line) != len(columns):
            raise ValueError(f"{len(line)} values for {len(columns)} columns: {line}")
    rule = [":--", *["--:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(columns), rule, *lines])


def verdict(value: float, target: float, *, at_most: bool = False, unit: str = "×") -> str:
    """How a figure stands to its target, a miss named as one."""
    met = value <= target if at_most else value >= target
    sign = "≤" if at_most else "≥"
    return (
        f"{number(value)}{unit} ({sign} {number(target)}{unit}: {'met' if met else '**missed**'})"
    )


def alternate(
    names: Sequence[str], measure: Callable[[str], Mapping[str, Any]], repeats: int
) -> dict[str, list[Mapping[str, Any]]]:
    """Measure A B C, A B C, …: what drifts on the machine meets all of them alike."""
    results: dict[str, list[Mapping[str, Any]]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names:
            say(f"run {repeat + 1} of {repeats}: {name}")
            results[name].append(measure(name))
    return results


def spread(runs: Sequence[Mapping[str, Any]], key: str) -> Spread:
    return Spread.of([float(run[key]) for run in runs])


def say(text: str) -> None:
    """Progress for whoever waits; results go to stdout."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def environment(threads: int | None = None, *, peers: bool = False, **more: str) -> dict[str, str]:
    """This process's environment for a program under measurement.

    Args:
        threads: how many cores the program may compute on (None: as the user's shell says).
        peers: with the packages that only the peers need.
    """
    result = {**os.environ, "PYTHONUNBUFFERED": "1"}
    result.pop("MINIMIND_EVENTS", None)
    result.update(more)
    paths = [str(REPOSITORY), *([str(PEER_PACKAGES)] if peers else [])]
    result["PYTHONPATH"] = os.pathsep.join(paths)
    if threads is not None:
        result["OMP_NUM_THREADS"] = str(threads)
    return result


def trainer_command(flags: Mapping[str, Any], extra: str = "") -> list[str]:
    """Our trainer as users run it. A flag of True is a bare one; ``extra`` is as in a shell."""
    words = [sys.executable, "-m", "minimind.train_pretrain"]
    for name, value in flags.items():
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, (list, tuple)):
            words += [f"--{name}", *map(str, value)]
        else:
            words += [f"--{name}", str(value)]
    return words + shlex.split(extra)


def run_process(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    quiet: bool = True,
) -> tuple[str, float]:
    """Run a program to its end; return what it printed and its seconds on the wall.

    Args:
        quiet: keep its stderr with its output; else it goes on to ours.

    Raises:
        BenchmarkError: it did not end with 0; with its last lines.
    """
    start = time.perf_counter()
    done = subprocess.run(
        command,
        env=dict(env or environment()),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if quiet else None,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise BenchmarkError(f"{shlex.join(command)}\nended with {done.returncode}:\n{tail}")
    return done.stdout, seconds


RESULT = "BENCHMARK_RESULT "
"""A program under measurement prints one line that starts so and goes on in JSON."""


def print_result(result: Mapping[str, Any]) -> None:
    print(RESULT + json.dumps(result), flush=True)


def read_result(output: str) -> dict[str, Any]:
    """The JSON of a program's last result line. Raises BenchmarkError where there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith(RESULT):
            return json.loads(line[len(RESULT) :])
    tail = "\n".join(output.splitlines()[-15:])
    raise BenchmarkError(f"the program printed no result:\n{tail}")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def machine() -> dict[str, str]:
    """The hardware and the versions, as far as they decide a figure."""
    import psutil
    import torch

    from minimind.distributed.device import device_name, pick_device, toolkit_versions

    cpu, features = _cpu()
    facts = {
        "CPU": f"{cpu}, {available_cores()} cores"
        + (f" ({', '.join(features)})" if features else ""),
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "GPU": "none",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }
    device = pick_device()
    if device.type != "cpu":
        name = f"{torch.accelerator.device_count()} × {device_name(device)}"
        versions = (f"{of.upper()} {version}" for of, version in toolkit_versions().items())
        facts["GPU"] = ", ".join([name, *versions])
    facts["versions"] = ", ".join(
        f"{name} {version}" for name in PACKAGES if (version := _version(name))
    )
    facts["commit"] = _commit(REPOSITORY)
    return facts


def _cpu() -> tuple[str, list[str]]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), []
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    name = fields.get("model name", platform.machine())
    return name, [feature for feature in CPU_FEATURES if feature in flags]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        found = list(importlib.metadata.distributions(name=package, path=[str(PEER_PACKAGES)]))
        return found[0].version if found else ""


def _commit(folder: Path) -> str:
    """The commit that is checked out in ``folder``, and whether its files differ from it."""
    git = ["git", "-C", str(folder)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with changes" if changed else commit


@dataclass
class Report:
    """What one benchmark found: for people as Markdown, for programs as JSON."""

    name: str
    title: str
    blocks: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def add(self, text: str) -> None:
        """A paragraph or a table."""
        self.blocks.append(text)

    def markdown(self) -> str:
        facts = "\n".join(f"- {name}: {value}" for name, value in machine().items())
        command = f"python -m benchmarks.{self.name} {shlex.join(sys.argv[1:])}".strip()
        date = time.strftime("%Y-%m-%d")
        head = [self.title.strip(), f"```sh\n{command}\n```", f"- date: {date}\n{facts}"]
        return "\n\n".join([*head, *self.blocks]) + "\n"

    def publish(self, args: argparse.Namespace) -> None:
        """Print it, and write it where ``--out`` and ``--json`` say."""
        text = self.markdown()
        print(text)
        if args.out:
            write_section(Path(args.out), self.name, text)
        if args.json:
            content = {"benchmark": self.name, "arguments": sys.argv[1:], "machine": machine()}
            path = Path(args.json)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**content, **self.data}, indent=2) + "\n")


def write_section(path: Path, name: str, text: str) -> None:
    """Put ``text`` between the file's ``<!-- NAME -->`` and ``<!-- /NAME -->``.

    A file without these marks gets them at its end; an absent one is made.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    section = f"{begin}\n{text.strip()}\n{end}"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    before, found, rest = old.partition(begin)
    if found and end in rest:
        new = before + section + rest.partition(end)[2]
    else:
        new = f"{old.rstrip()}\n\n{section}\n".lstrip()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(new, encoding="utf-8")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults in the help, and examples as they are typed."""


def make_parser(name: str, description: str | None, example: str) -> argparse.ArgumentParser:
    """A parser with what every benchmark has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        epilog=f"Example: python -m benchmarks.{name} {example}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--out", default="", metavar="FILE.md", help="also write the result into this file"
    )
    parser.add_argument("--json", default="", metavar="FILE", help="also write it as JSON")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="runs of each")
    parser.add_argument(
        "--work_dir",
        default="",
        metavar="DIR",
        help="where runs, data and caches go (default: a temporary folder, removed at the end)",
    )
    return parser


@contextmanager
def work_folder(given: str) -> Iterator[Path]:
    """``--work_dir``, kept; or a temporary folder."""
    if given:
        path = Path(given).resolve()
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="minimind-bench-") as name:
        yield Path(name)


def main(benchmark: Callable[[], None]) -> None:
    """Run a benchmark; what its user can change is one line, not a traceback."""
    try:
        benchmark()
    except MiniMindError as error:
        sys.exit(f"error: {error}")
