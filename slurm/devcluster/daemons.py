"""Starts and stops munged, slurmctld and one slurmd a node, and leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from . import config, netns
from .install import require, slurm_version
from .options import DevClusterError, Options

MARK = "DEVCLUSTER_FOLDER"
"""Environment variable of every daemon we start, by which leftovers are found again."""

START_SECONDS = 120
"""For a daemon to start. It takes one, on a machine that does nothing else."""


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Polls ``condition``.

    Raises:
        DevClusterError: it did not come true in ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise DevClusterError(f"{what} within {seconds:.0f} s")
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """True while ``pid`` runs (a zombie does not)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


class Cluster:
    """The daemons and files of one dev cluster in ``folder``."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder = folder
        self.options = options

    @property
    def conf(self) -> Path:
        """What SLURM_CONF has to name."""
        return self.folder / "slurm.conf"

    @property
    def options_file(self) -> Path:
        """Where the options of the running cluster are kept."""
        return self.folder / "options.json"

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, pointed at the cluster, free of any outer job."""
        clean = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SLURM_", "SBATCH_", "SRUN_"))
        }
        return clean | {"SLURM_CONF": str(self.conf), MARK: str(self.folder)}

    def up(self) -> None:
        """Starts what does not run, and makes what runs follow changed options.

        Raises:
            DevClusterError: a daemon does not come up; the message names its log.
        """
        for name in ("munge", "state", "spool", "pids", "logs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        if self.options.netns:
            netns.create(self.options)
        changed = self._write_config()
        self._start_munged()
        if changed:
            self._stop(self._pid("slurmctld"))
        if not self._runs("slurmctld"):
            self._start(["slurmctld", "-f", str(self.conf)], "slurmctld")
        self._wait_for_controller()
        for name in self.options.node_names:
            self.start_node(name)
        if changed:
            self.scontrol("reconfigure")
        self._wait_for_nodes()
        self.options.save(self.options_file)

    def start_node(self, name: str) -> None:
        """Starts the slurmd of ``name`` unless it runs."""
        if self._runs(f"slurmd-{name}"):
            return
        prefix = netns.enter_command(name, self.folder / "hosts") if self.options.netns else []
        self._start(
            [*prefix, require("slurmd"), "-N", name, "-f", str(self.conf)], f"slurmd-{name}"
        )

    def node_pid(self, name: str) -> int | None:
        """The process id of ``name``'s slurmd, if it runs."""
        return self._pid(f"slurmd-{name}")

    def down(self) -> None:
        """Cancels all jobs, stops all daemons and what they started, removes the folder."""
        if self._runs("slurmctld"):
            subprocess.run(
                [require("scancel"), "--state=PENDING"], env=self.environment, capture_output=True
            )
            subprocess.run(
                [require("scancel"), "--signal=KILL", "--full", f"--user={os.getuid()}"],
                env=self.environment,
                capture_output=True,
            )
        for name in [f"slurmd-{node}" for node in self.options.node_names] + ["slurmctld"]:
            self._stop(self._pid(name))
        self._stop(self._pid("munged"))
        for pid in self.leftovers():
            self._stop(pid, hard=True)
        if self.options.netns:
            netns.remove(self.options)
        shutil.rmtree(self.folder, ignore_errors=True)

    def leftovers(self) -> list[int]:
        """Ids of processes that the cluster started: daemons, step managers and jobs' tasks."""
        conf = f"SLURM_CONF={self.conf}".encode()
        mark = f"{MARK}={self.folder}".encode()
        found = set(netns.processes(self.options)) if self.options.netns else set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
                program = os.path.basename(os.readlink(entry / "exe"))
            except OSError:
                continue
            daemon = mark in variables and program in {
                "slurmctld",
                "slurmd",
                "slurmstepd",
                "munged",
            }
            # A shell that only exported SLURM_CONF is the user's; a job's process has a job id.
            job = conf in variables and any(v.startswith(b"SLURM_JOB_ID=") for v in variables)
            if daemon or job:
                found.add(int(entry.name))
        found.discard(os.getpid())
        return sorted(pid for pid in found if alive(pid))

    def node_states(self) -> dict[str, str]:
        """Node name → state as sinfo prints it; empty when the controller does not answer."""
        answer = subprocess.run(
            [require("sinfo"), "--noheader", "--Node", "--format=%N %T"],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        return dict(line.split(None, 1) for line in answer.stdout.splitlines() if " " in line)

    def running(self) -> dict[str, bool]:
        """Daemon → whether it runs."""
        names = ["munged", "slurmctld", *(f"slurmd-{node}" for node in self.options.node_names)]
        return {name: self._runs(name) for name in names}

    def scontrol(self, *arguments: str) -> str:
        """Runs scontrol on this cluster and returns what it prints."""
        return subprocess.run(
            [require("scontrol"), *arguments],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def _write_config(self) -> bool:
        """Writes the config files; True when a running cluster has to follow a change."""
        host = socket.gethostname()
        user = pwd.getpwuid(os.getuid()).pw_name
        text = config.slurm_conf(
            self.options, self.folder, user=user, host=host, version=slurm_version()
        )
        before = self.conf.read_text() if self.conf.exists() else None
        self.conf.write_text(text)
        (self.folder / "gres.conf").write_text(config.gres_conf(self.options))
        (self.folder / "hosts").write_text(config.hosts_file(self.options, host))
        return before not in (None, text)

    def _start_munged(self) -> None:
        if self._runs("munged"):
            return
        munge = self.folder / "munge"
        munge.chmod(0o755)
        key = munge / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(secrets.token_bytes(128))
        command = [
            require("munged"),
            "--force",
            f"--key-file={key}",
            f"--socket={munge / 'munge.socket'}",
            f"--pid-file={self.folder / 'pids' / 'munged.pid'}",
            f"--log-file={self.folder / 'logs' / 'munged.log'}",
            f"--seed-file={munge / 'munge.seed'}",
        ]
        self._start(command, "munged")

    def _start(self, command: list[str], name: str) -> None:
        command = [require(command[0]), *command[1:]]
        log = self.folder / "logs" / f"{name}.start.log"
        with log.open("w") as output:
            done = subprocess.run(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if done.returncode != 0:
            said = log.read_text().strip().splitlines()
            raise DevClusterError(
                f"{name} does not start: {said[-1] if said else 'no message'} (see {log.parent})"
            )
        wait_until(
            lambda: self._runs(name), f"{name} did not start (see {log.parent})", START_SECONDS
        )

    def _pid(self, name: str) -> int | None:
        try:
            pid = int((self.folder / "pids" / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if alive(pid) else None

    def _runs(self, name: str) -> bool:
        return self._pid(name) is not None

    def _stop(self, pid: int | None, *, hard: bool = False) -> None:
        if pid is None:
            return
        try:
            os.kill(pid, signal.SIGKILL if hard else signal.SIGTERM)
            if not hard:
                deadline = time.monotonic() + 10
                while alive(pid) and time.monotonic() < deadline:
                    time.sleep(0.05)
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        wait_until(lambda: not alive(pid), f"process {pid} did not end", 10)

    def _wait_for_controller(self) -> None:
        def answers() -> bool:
            ping = subprocess.run(
                [require("scontrol"), "ping"], env=self.environment, capture_output=True, text=True
            )
            return "is UP" in ping.stdout

        wait_until(answers, f"slurmctld did not answer (see {self.folder}/logs)", 60)

    def _wait_for_nodes(self) -> None:
        def ready() -> bool:
            states = self.node_states()
            usable = ("idle", "mixed", "allocated", "completing")
            return len(states) == self.options.nodes and all(
                state.startswith(usable) and not state.endswith("*") for state in states.values()
            )

        wait_until(ready, f"not every node came up (see {self.folder}/logs)", 90)
