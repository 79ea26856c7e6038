"""Slurm of another Debian release: its packages in a chroot, with this machine's folders bound in.

A job finds the Python, the code and the run folders of this machine under their own names, and
the release's Slurm beside them. Every command enters in a mount namespace of its own, so nothing
stays mounted.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
from pathlib import Path

from .install import install_packages, require
from .options import DevClusterError

PACKAGES = (
    *("slurm-wlm", "slurmdbd", "slurm-wlm-mysql-plugin", "munge", "mariadb-server"),
    # What this machine's Python and torch are linked with.
    *("libssl3t64", "libffi8", "libsqlite3-0", "libreadline8t64", "libncursesw6", "liblzma5"),
    *("libbz2-1.0", "libuuid1", "zlib1g", "libstdc++6", "libgomp1", "procps", "iproute2"),
)
CONNECTOR = "/usr/lib/devcluster"
"""Inside: bookworm's libmariadb. With that of trixie and sid (Connector/C 3.4.9, November 2026)
slurmdbd dies of "maximum allowed number of columns (=0)" at its first question."""
_GET_CONNECTOR = f"""set -e; list=/etc/apt/sources.list.d/bookworm.list
mirror=$(awk '$1 == "deb" {{print $2; exit}}' /etc/apt/sources.list)
echo "deb $mirror bookworm main" > $list; apt-get update -qq -o Acquire::Check-Valid-Until=false
cd /var/tmp; apt-get download -qq libmariadb3/bookworm; rm $list; apt-get clean
dpkg -x libmariadb3_*.deb connector; rm libmariadb3_*.deb
mv connector/usr/lib/*-linux-gnu {CONNECTOR}; rm -r connector
"""
CLIENTS = ("sbatch", "scontrol", "squeue", "scancel", "sinfo", "srun", "sacct", "sacctmgr")
MARK = Path("/etc/devcluster-release")
"""Only inside: there Slurm's commands are at hand."""

_ENTER = """root=$1; shift; here=$PWD
while [ "$1" != -- ]; do mount --rbind "$1" "$root$1" || exit 126; shift; done; shift
exec chroot "$root" sh -c 'cd "$0" && exec "$@"' "$here" "$@"
"""


def cache() -> Path:
    """Where the chroots are kept: they take minutes and 0.8 GB each."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MINIMIND_SLURMS") or Path(base) / "minimind-slurms")


def make(release: str) -> Path:
    """The chroot of a release, made when it is not there.

    Raises:
        DevClusterError: not root, or debootstrap failed; the message names its log.
    """
    if os.getuid() != 0:
        raise DevClusterError("--release needs root: a chroot cannot be entered without")
    if Path(sys.base_prefix) == Path("/usr"):
        raise DevClusterError(
            f"--release {release} has another /usr, and this Python lives in it: make .venv with "
            "a Python of its own (uv, pyenv)"
        )
    root, log = cache() / release, cache() / f"{release}.log"
    if root.is_dir():
        # Whoever makes another one has the lock for minutes.
        return root
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.is_dir():
            return root
        install_packages(["debootstrap"])
        print(f"Making {root} from Debian's packages; this takes minutes.", flush=True)
        partial = root.with_suffix(".partial")
        words = ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
        with log.open("w") as output:
            done = subprocess.run(
                [require("debootstrap"), *words, release, str(partial)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            if done.returncode == 0:
                inside = [require("chroot"), str(partial), "sh", "-c", _GET_CONNECTOR]
                done = subprocess.run(inside, stdout=output, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise DevClusterError(f"debootstrap {release} failed: see {log}, remove {partial}")
        partial.rename(root)
    return root


def bound(folder: Path) -> list[Path]:
    """What of this machine is seen inside: all that is not the system's own."""
    data = ("dev", "proc", "sys", "tmp", "root", "home", "opt", "srv", "mnt", "usr/local")
    own = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parents[2], folder]
    found = [Path("/", name) for name in data if Path("/", name).is_dir()]
    found += [path for path in own if not any(path.is_relative_to(seen) for seen in found)]
    accounts = [Path("/etc", name) for name in ("passwd", "group", "hosts")]
    return [*found, *accounts]


def enter_command(root: Path, folder: Path) -> list[str]:
    """The words before a command that runs it in the release, in the same folder."""
    paths = bound(folder)
    for path in paths:
        inside = root / path.relative_to("/")
        if path.is_dir():
            inside.mkdir(parents=True, exist_ok=True)
        else:
            inside.touch()
    (root / MARK.relative_to("/")).touch()
    words = [require("unshare"), "--mount", "--propagation", "private", "--", "sh", "-c", _ENTER]
    return [*words, "sh", str(root), *map(str, paths), "--"]


def write_clients(root: Path, folder: Path) -> Path:
    """Makes Slurm's commands of the release for this machine; returns the folder for the PATH."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    enter = shlex.join(enter_command(root, folder))
    for name in CLIENTS:
        script = (
            f'#!/bin/sh\n[ ! -e {MARK} ] || exec /usr/bin/{name} "$@"\nexec {enter} {name} "$@"\n'
        )
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    return programs
