"""The image's entrypoint: a word to say what, and ``minimind``'s or ``launcher``'s own flags.

Runs under tini as PID 1 and becomes the program that it names, so that signals and the exit code
have no one in between.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from minimind.cli import COMMANDS
from minimind.errors import EXIT_NOT_FOUND
from minimind.rundir import env
from minimind.system.drivers import DRIVERS
from minimind.system.ownership import own_folder

DEVICE_FILES = (*(f"/dev/{driver.pattern}" for driver in DRIVERS.values()), "/dev/dxg")
"""Device nodes of accelerators; the last is that of WSL 2."""

RANK_VARIABLES = (env.RANK, "SLURM_STEP_ID", "SUBMITIT_LOCAL_GLOBALID")
"""Any of these says that somebody else starts the ranks."""

CACHE = "/runs/.cache/minimind"

CODE_CACHES = {
    "TORCHINDUCTOR_CACHE_DIR": "/runs/.cache/torchinductor",
    "TRITON_CACHE_DIR": "/runs/.cache/triton",
}
"""What lies there is run: each must be this user's alone."""

USAGE = """\
usage: docker run [DOCKER OPTIONS] IMAGE COMMAND [FLAGS]

{commands}
  launcher   submit to a cluster, follow runs (launcher --help tells more)
  bash       a shell; any other program of the image works, too

pretrain starts one rank per visible GPU, or on the CPU --procs N ranks (default: 1).
Data is looked for under /data, runs are kept under /runs, the working folder:

  docker run --rm --gpus all -u $(id -u):$(id -g) -v $PWD/data:/data -v $PWD/runs:/runs \\
      --shm-size 1g --stop-timeout 60 IMAGE pretrain --data_path /data/corpus.jsonl

`docker stop` makes a checkpoint and exits with 75: the same command and --from_resume 1 go on."""


def usage() -> str:
    lines = [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    return USAGE.format(commands="\n".join(lines))


def main(argv: Sequence[str]) -> int:
    words = list(argv)
    if not words or words[0] in ("help", "-h", "--help"):
        print(usage())
        return 0
    os.environ.update(writable_places(os.environ))
    if words[0] == "pretrain":
        return pretrain(words[1:])
    if words[0] in COMMANDS:
        words.insert(0, "minimind")
    return become(words)


def become(words: list[str]) -> int:
    """Replace this process by a program of the image."""
    try:
        os.execvp(words[0], words)
    except OSError as error:
        print(f"{words[0]}: {error.strerror}; no argument prints help", file=sys.stderr)
        return EXIT_NOT_FOUND


def pretrain(flags: Sequence[str]) -> int:
    """One rank per GPU, unless the flags or the environment say how many there are."""
    settled = flag_value(flags, "procs") is not None or any(n in os.environ for n in RANK_VARIABLES)
    asks_help = any(word in ("-h", "--help") for word in flags)
    procs = 1 if settled or asks_help else ranks_wanted(flags)
    return become(["minimind", "pretrain", *flags, *(["--procs", str(procs)] if procs > 1 else [])])


def ranks_wanted(flags: Sequence[str]) -> int:
    """The number of GPUs to use, at least 1; says so when there is none."""
    device = flag_value(flags, "device")
    if device == "cpu" or ":" in (device or ""):
        return 1
    gpus = visible_gpus()
    if not gpus and device is None:
        print("no GPU visible: training on CPU", flush=True)
    return max(1, gpus)


def visible_gpus() -> int:
    """GPUs, or other accelerators, that torch can use.

    Loads torch, in a process of its own, only if there are any.
    """
    if not any(glob.glob(pattern) for pattern in DEVICE_FILES):
        return 0
    code = "import torch; print(torch.accelerator.device_count())"
    answer = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    # A plug-in, which torch loads by itself, may print lines of its own.
    last = answer.stdout.split()[-1:]
    return int(last[0]) if answer.returncode == 0 and last and last[0].isdecimal() else 0


def flag_value(flags: Sequence[str], name: str) -> str | None:
    """The last value that ``flags`` give to ``--name``."""
    found = None
    for index, word in enumerate(flags):
        if word.startswith(f"--{name}="):
            found = word.partition("=")[2]
        elif word == f"--{name}" and index + 1 < len(flags):
            found = flags[index + 1]
    return found


def writable_places(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that lead libraries to folders where this user can write.

    With a read-only root the home folder is not one. Tokenised data and compiled kernels go
    beside the runs: they are large, made slowly, and worth keeping for the next start.
    """
    places = {}
    if not writable(environment.get("HOME", "/")):
        places["HOME"] = tempfile.mkdtemp(prefix="home-")
    if writable("/runs"):
        places[env.CACHE] = environment.get(env.CACHE, CACHE)
        unset = {name: path for name, path in CODE_CACHES.items() if name not in environment}
        places |= {name: path for name, path in unset.items() if private(path)}
    return places


def private(folder: str) -> bool:
    try:
        return own_folder(Path(folder))
    except OSError:
        return False


def writable(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
