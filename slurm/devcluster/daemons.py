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

from . import accounting, config, netns, release
from .install import require, slurm_version
from .options import DevClusterError, Options

MARK = "DEVCLUSTER_FOLDER"
"""Environment variable of every daemon we start, by which leftovers are found again."""

DAEMONS = ("slurmctld", "slurmd", "slurmstepd", "slurmdbd", "mariadbd", "munged")
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
        own = {"SLURM_CONF": str(self.conf), MARK: str(self.folder)}
        return clean | own | {"PATH": f"{clean.get('PATH', '')}:/usr/sbin:/sbin"}

    def words(self, program: str) -> list[str]:
        """The words that start a program of the cluster's release."""
        if self.options.release == "host":
            return [require(program)]
        return [*release.enter_command(release.make(self.options.release), self.folder), program]

    def up(self) -> None:
        """Starts what does not run, and makes what runs follow changed options.

        Raises:
            DevClusterError: a daemon does not come up; the message names its log.
        """
        for name in ("munge", "state", "spool", "pids", "logs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        if self.options.release != "host":
            release.write_clients(release.make(self.options.release), self.folder)
        if self.options.netns:
            netns.create(self.options)
        if self.options.cgroup:
            config.require_cgroups()
        changed = self._write_config()
        self._start_munged()
        if self.options.accounting:
            self._start_accounting()
        if changed:
            self._stop(self._pid("slurmctld"))
        if not self._runs("slurmctld"):
            self._start([*self.words("slurmctld"), "-f", str(self.conf)], "slurmctld")
        self._wait_for_controller()
        if self.options.accounting:
            for entry in accounting.entries(self.options, self._user):
                # One that is there already is a complaint.
                self._ask("sacctmgr", "--immediate", "add", *entry)
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
        command = [*prefix, *self.words("slurmd"), "-N", name, "-f", str(self.conf)]
        self._start(command, f"slurmd-{name}")

    def node_pid(self, name: str) -> int | None:
        """The process id of ``name``'s slurmd, if it runs."""
        return self._pid(f"slurmd-{name}")

    def down(self) -> None:
        """Cancels all jobs, stops all daemons and what they started, removes the folder."""
        if self._runs("slurmctld"):
            self._ask("scancel", "--state=PENDING")
            self._ask("scancel", "--signal=KILL", "--full", f"--user={os.getuid()}")
        for name in [f"slurmd-{node}" for node in self.options.node_names] + ["slurmctld"]:
            self._stop(self._pid(name))
        for name in ("slurmdbd", "mariadbd", "munged"):
            self._stop(self._pid(name))
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
            # Debian's Slurm has the names of its programs from /etc/alternatives.
            daemon = mark in variables and program.removesuffix("-wlm") in DAEMONS
            # A shell that only exported SLURM_CONF is the user's; a job's process has a job id.
            job = conf in variables and any(v.startswith(b"SLURM_JOB_ID=") for v in variables)
            if daemon or job:
                found.add(int(entry.name))
        found.discard(os.getpid())
        return sorted(pid for pid in found if alive(pid))

    def node_states(self) -> dict[str, str]:
        """Node name → state as sinfo prints it; empty when the controller does not answer."""
        answer = self._ask("sinfo", "--noheader", "--Node", "--format=%N %T")
        return dict(line.split(None, 1) for line in answer.stdout.splitlines() if " " in line)

    def running(self) -> dict[str, bool]:
        """Daemon → whether it runs."""
        extra = ["mariadbd", "slurmdbd"] if self.options.accounting else []
        names = [
            "munged",
            *extra,
            "slurmctld",
            *(f"slurmd-{node}" for node in self.options.node_names),
        ]
        return {name: self._runs(name) for name in names}

    def scontrol(self, *arguments: str) -> str:
        """Runs scontrol on this cluster and returns what it prints."""
        done = self._ask("scontrol", *arguments)
        done.check_returncode()
        return done.stdout

    def _ask(self, client: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.words(client), *arguments], env=self.environment, capture_output=True, text=True
        )

    @property
    def _user(self) -> str:
        return pwd.getpwuid(os.getuid()).pw_name

    def _start_accounting(self) -> None:
        database = self.folder / "database"
        accounting.make_database(database, self.words, self.environment)
        if not self._runs("mariadbd"):
            pid_file = self.folder / "pids" / "mariadbd.pid"
            words = accounting.database_command(database, pid_file, self.options, self.words)
            self._start_in_background(words, "mariadbd")
        conf = self.folder / "slurmdbd.conf"
        conf.touch(mode=0o600)
        conf.write_text(config.slurmdbd_conf(self.options, self.folder, user=self._user))
        if not self._runs("slurmdbd"):
            connector = f"LD_LIBRARY_PATH={release.CONNECTOR}"
            self._start([*self.words("env"), connector, "slurmdbd"], "slurmdbd")
        self._wait_for(lambda: self._ask("sacctmgr", "show", "cluster"), "slurmdbd")

    def _wait_for(self, ask: Callable[[], subprocess.CompletedProcess[str]], daemon: str) -> None:
        logs = self.folder / "logs"
        wait_until(lambda: ask().returncode == 0, f"{daemon} did not answer (see {logs})", 60)

    def _write_config(self) -> bool:
        """Writes the config files; True when a running cluster has to follow a change."""
        host = socket.gethostname()
        version = slurm_version(self.words("slurmctld"))
        text = config.slurm_conf(
            self.options, self.folder, user=self._user, host=host, version=version
        )
        before = self.conf.read_text() if self.conf.exists() else None
        self.conf.write_text(text)
        if self.options.cgroup:
            (self.folder / "cgroup.conf").write_text(config.cgroup_conf())
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
            *self.words("munged"),
            "--force",
            f"--key-file={key}",
            f"--socket={munge / 'munge.socket'}",
            f"--pid-file={self.folder / 'pids' / 'munged.pid'}",
            f"--log-file={self.folder / 'logs' / 'munged.log'}",
            f"--seed-file={munge / 'munge.seed'}",
        ]
        self._start(command, "munged")

    def _start_in_background(self, command: list[str], name: str) -> None:
        """Starts a program that does not become a daemon by itself."""
        log = self.folder / "logs" / f"{name}.start.log"
        with log.open("w") as output:
            subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: self._runs(name), f"{name} did not start (see {log})", START_SECONDS)

    def _start(self, command: list[str], name: str) -> None:
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
            return "is UP" in self._ask("scontrol", "ping").stdout

        wait_until(answers, f"slurmctld did not answer (see {self.folder}/logs)", 60)

    def _wait_for_nodes(self) -> None:
        def ready() -> bool:
            states = self.node_states()
            usable = ("idle", "mixed", "allocated", "completing")
            return len(states) == self.options.nodes and all(
                state.startswith(usable) and not state.endswith("*") for state in states.values()
            )

        wait_until(ready, f"not every node came up (see {self.folder}/logs)", 90)
