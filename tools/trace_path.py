"""How many of our files one must open to follow the two main ways, counted in real runs.

    python -m tools.trace_path [--root TREE]

Way one is "jsonl → loss": a tiny ``python minimind/train_pretrain.py``, from the command line to
the first loss, with nothing tokenised yet; ``minimind pretrain`` goes through one file more, the
one that looks up the command. Way two is "submit → rank": a tiny ``launcher submit`` on this
machine, from the command line to the start of the training program in the rank.

A file is on a way if one of its functions is on the call stack when a landmark is reached, in
whatever process: the caller, a thread, a tokenising process, the supervisor, the rank. What is
called and has returned by then is a leaf: the reader of the way need not open it. For comparison
the files are counted, too, in which any function ran at all.

Every Python process of a run loads a hook (``sitecustomize``, by way of PYTHONPATH) that watches
its calls and writes what it saw to a folder. A landmark is a function of any of our files, so
the tool works as long as its name stays, and on other trees as well. Needs Python 3.11.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("minimind", "launcher")


@dataclass(frozen=True)
class Landmark:
    """A point of a way: what happens there, and the functions whose first call it is.

    Functions are named ``FILE.QUALNAME``, as in ``rows.read_chunks``; one of them is enough.
    """

    what: str
    functions: tuple[str, ...]


JSONL_TO_LOSS = (
    Landmark("the text file is opened for reading", ("rows.read_chunks", "reader.read_chunks")),
    Landmark("a chunk is encoded, in a process of its own", ("encoder.ChunkEncoder.encode",)),
    Landmark(
        "tokens are written to the store",
        (
            "build.StoreWriter.add_docs",
            "store_writer.StoreWriter.add_docs",
            "writer.StoreWriter.add_docs",
        ),
    ),
    Landmark("documents are laid out in rows", ("packing.pack_bestfit",)),
    Landmark("a micro-batch is built", ("packing.RowPlan.build",)),
    Landmark("the loss is computed", ("language_model.LanguageModel.forward",)),
)
SUBMIT_TO_RANK = (
    Landmark(
        "the JobSpec is complete", ("job_spec.JobSpec.__post_init__", "spec.JobSpec.__post_init__")
    ),
    Landmark("the run folder is prepared", ("submission.prepare",)),
    Landmark("the launcher hands the run over", ("local.start_local", "submission._submit_local")),
    Landmark("the local executor takes it", ("local.local_main", "submission._local_main")),
    Landmark(
        "an attempt of the supervisor begins",
        ("supervisor.Supervisor._attempt", "local.LocalSupervisor._attempt"),
    ),
    Landmark(
        "the rank's process is started",
        ("local_ranks.LocalRanks.__init__", "local.LocalRanks.__init__"),
    ),
    Landmark("the training starts in the rank", ("runpy.run_module",)),
)

NO_TRAINING = "no_training"
"""A training program that ends at once; it lies beside the hook."""

HOOK = '''
import json, os, subprocess, sys, threading, time

FOLDER = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(FOLDER, "trace.json")) as file:
    CONFIG = json.load(file)
FILES, FUNCTIONS = set(CONFIG["files"]), set(CONFIG["functions"])
FUNCTION = 1  # inspect.CO_OPTIMIZED: no body of a module or class
seen, ours, ran = {}, {}, set()
records = open(os.path.join(FOLDER, f"calls.{os.getpid()}.{os.urandom(4).hex()}"), "w")


def our_file(path):
    """The path within a tree of ours, also where the launcher has copied it; else None."""
    if path not in ours:
        parts = path.split(os.sep)
        within = ("/".join(parts[i:]) for i, part in enumerate(parts) if part in CONFIG["packages"])
        ours[path] = next((name for name in within if name in FILES), None)
    return ours[path]


def watch(frame, event, argument):
    code = frame.f_code
    if event != "call" or id(code) in seen:
        return
    seen[id(code)] = code
    file = our_file(code.co_filename)
    if file and file not in ran and code.co_flags & FUNCTION:
        ran.add(file)
        write({"ran": file})
    stem = code.co_filename.split(os.sep)[-1].removesuffix(".py").strip("<>").split()[-1]
    name = f"{stem}.{code.co_qualname}"
    if name in FUNCTIONS and (file or stem == "runpy"):
        stack = []
        while frame is not None:
            stack.append(our_file(frame.f_code.co_filename))
            frame = frame.f_back
        files = [file for file in reversed(stack) if file]
        write({"reached": name, "at": time.time_ns(), "stack": files})


def write(record):
    records.write(json.dumps(record) + "\\n")
    records.flush()


def start(process, args, *rest, real=subprocess.Popen.__init__, **options):
    """An isolated Python loads no sitecustomize: it gets this file before its own program."""
    if isinstance(args, list) and "-I" in args and "-c" in args:
        program, own = args.index("-c") + 1, {"__file__": __file__}
        load = f"exec(open({__file__!r}).read(), {own!r})\\n"
        args = [*args[:program], load + args[program], *args[program + 1 :]]
    real(process, args, *rest, **options)


subprocess.Popen.__init__ = start
threading.setprofile(watch)
sys.setprofile(watch)
'''


class Way(NamedTuple):
    """What a traced run went through."""

    stacks: list[tuple[Landmark, list[str]]]
    """For each landmark the files on the call stack, the outermost first."""
    ran: set[str]
    """All files in which a function ran."""

    @property
    def files(self) -> list[str]:
        """The files of all stacks, in the order in which the way reaches them."""
        return list(dict.fromkeys(file for _, stack in self.stacks for file in stack))


def traced(
    command: Sequence[str], landmarks: Sequence[Landmark], root: Path, packages: Sequence[str]
) -> Way:
    """Run a command in ``root`` and return which way it took.

    Raises:
        SystemExit: it failed, or did not come past a landmark.
    """
    files = [
        str(path.relative_to(root))
        for package in packages
        for path in (root / package).rglob("*.py")
    ]
    functions = [name for landmark in landmarks for name in landmark.functions]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(HOOK)
        config = {"files": files, "functions": functions, "packages": list(packages)}
        (folder / "trace.json").write_text(json.dumps(config))
        (folder / f"{NO_TRAINING}.py").write_text("")
        search = [str(folder), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            command,
            cwd=root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
            capture_output=True,
            text=True,
        )
        records = [
            json.loads(line)
            for path in folder.glob("calls.*")
            for line in path.read_text().splitlines()
        ]
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    stacks = [(landmark, _stack(landmark, records)) for landmark in landmarks]
    return Way(stacks, {record["ran"] for record in records if "ran" in record})


def _stack(landmark: Landmark, records: Sequence[dict[str, Any]]) -> list[str]:
    """The stack with which a landmark was reached first, in whatever process."""
    reached = [record for record in records if record.get("reached") in landmark.functions]
    if not reached:
        raise SystemExit(
            f"the run did not come past {' or '.join(landmark.functions)} ({landmark.what}): "
            f"name the function in {Path(__file__).name}"
        )
    return min(reached, key=lambda record: record["at"])["stack"]


def jsonl_to_loss(root: Path) -> Way:
    """Trace a pretraining of one step, with an empty cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = (json.dumps({"text": f"document {i}: " + "some words " * i}) for i in range(64))
        (folder / "text.jsonl").write_text("\n".join(rows))
        flags = {
            "data_path": folder / "text.jsonl",
            "cache_dir": folder / "cache",
            "save_dir": folder / "out",
            "checkpoint_dir": folder / "checkpoints",
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "max_seq_len": 32,
            "batch_size": 2,
            "device": "cpu",
            "compile": "off",
            "max_steps": 1,
            "num_workers": 0,
            "accumulation_steps": 1,
        }
        words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, str(root / "minimind" / "train_pretrain.py"), *words]
        return traced(command, JSONL_TO_LOSS, root, PACKAGES)


def submit_to_rank(root: Path) -> Way:
    """Trace a submission on this machine whose training program ends at once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # What the console script runs.
        program = "import sys; from launcher.cli import main; sys.exit(main())"
        command = [
            *(sys.executable, "-c", program, "submit", "--name", "traced", "--cluster", "local"),
            *("--gpus", "1", "--runs-dir", str(folder / "runs")),
            *("--module", NO_TRAINING, "--wait"),
        ]
        return traced(command, SUBMIT_TO_RANK, root, PACKAGES)


def print_way(title: str, way: Way) -> None:
    """List the files of a way, each where it is first met."""
    print(f"{title}: {len(way.files)} files on the way, {len(way.ran)} in which anything ran")
    shown: set[str] = set()
    for landmark, stack in way.stacks:
        print(f"  {landmark.what}")
        for file in dict.fromkeys(stack):
            print(f"    {file}" + (" (again)" if file in shown else ""))
            shown.add(file)


def main(argv: Sequence[str] | None = None) -> int:
    """Trace both ways and print them."""
    parser = argparse.ArgumentParser(prog="python -m tools.trace_path", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to trace")
    root = parser.parse_args(argv).root.resolve()
    print_way("jsonl → loss", jsonl_to_loss(root))
    print_way("submit → rank", submit_to_rank(root))
    return 0


if __name__ == "__main__":
    sys.exit(main())
