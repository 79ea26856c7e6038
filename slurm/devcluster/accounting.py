"""Real accounting: a MariaDB that listens here alone, slurmdbd, and who may use which QOS."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from .options import DevClusterError, Options

ACCOUNT = "lab"

Words = Callable[[str], list[str]]
"""The words that start a program."""


def make_database(folder: Path, words: Words, environment: dict[str, str]) -> None:
    """Makes an empty database in ``folder`` unless there is one.

    Raises:
        DevClusterError: it cannot be made.
    """
    if folder.is_dir():
        return
    done = subprocess.run(
        [*words("mariadb-install-db"), "--no-defaults", f"--datadir={folder}", *_user()],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DevClusterError(f"no database for --accounting: {said[-1] if said else 'no message'}")


def database_command(folder: Path, pid_file: Path, options: Options, words: Words) -> list[str]:
    """What starts MariaDB; whoever reaches its port may use it, and nobody from elsewhere does."""
    return [
        *words("mariadbd"),
        "--no-defaults",
        f"--datadir={folder}",
        f"--socket={folder}/socket",
        f"--pid-file={pid_file}",
        "--bind-address=127.0.0.1",
        f"--port={options.accounting_port - 1}",
        "--skip-grant-tables",
        # Slurm's wish; older ones have no such thing.
        "--loose-innodb-snapshot-isolation=OFF",
        *_user(),
    ]


def entries(options: Options, user: str) -> list[list[str]]:
    """What sacctmgr is asked to add: ``user`` with an account, and maybe a QOS that preempts."""
    account, member = ["account", ACCOUNT], ["user", user, f"account={ACCOUNT}"]
    if not options.qos_preempt:
        return [account, member]
    both = "qos=normal,high"
    return [
        ["qos", "high", "preempt=normal", "priority=1000"],
        [*account, both, "defaultqos=normal"],
        [*member, both, "defaultqos=normal"],
    ]


def _user() -> list[str]:
    return ["--user=root"] if os.getuid() == 0 else []
