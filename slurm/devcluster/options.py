"""What can be chosen about a dev cluster, and where it keeps its files."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

PREEMPT_MODES = ("REQUEUE", "CANCEL")
RELEASES = ("host", "trixie", "sid")
"""This machine's own packages, or a Debian release's: 24.11 in trixie, 26.05 in sid."""


class DevClusterError(Exception):
    """Something the user can put right; the message says how."""


def default_folder() -> Path:
    """The folder of the cluster that belongs to this user."""
    return Path(tempfile.gettempdir()) / f"devcluster-{os.getuid()}"


@dataclass(frozen=True)
class Options:
    """One cluster. Times are in seconds."""

    nodes: int = 2
    gpus: int = 8
    cpus: int = 16
    grace_time: int = 0
    kill_wait: int = 30
    preempt_mode: str = "REQUEUE"
    send_user_signal: bool = False
    slurmd_timeout: int = 20
    requeue_delay: int = 15
    base_port: int = 17000
    netns: bool = False
    subnet: str = "10.77.0"
    release: str = "host"
    accounting: bool = False
    stepmgr: bool = False
    qos_preempt: bool = False
    expedite: bool = False
    cgroup: bool = False
    gres: str = "gpu"
    """What the pretend devices are called."""

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= 64:
            raise DevClusterError(f"--nodes {self.nodes}: choose 1 to 64")
        if not 0 <= self.gpus <= 63:
            raise DevClusterError(f"--gpus {self.gpus}: choose 0 to 63")
        if not self.gres.isidentifier():
            raise DevClusterError(f"--gres {self.gres}: choose a name of letters and digits")
        if not 1 <= self.cpus <= 1024:
            raise DevClusterError(f"--cpus {self.cpus}: choose 1 to 1024")
        if self.preempt_mode not in PREEMPT_MODES:
            raise DevClusterError(
                f"--preempt-mode {self.preempt_mode}: choose one of {', '.join(PREEMPT_MODES)}"
            )
        if self.release not in RELEASES:
            raise DevClusterError(f"--release {self.release}: choose one of {', '.join(RELEASES)}")
        if self.qos_preempt and not self.accounting:
            raise DevClusterError("--qos-preempt needs --accounting: that is where a QOS is kept")
        if self.requeue_delay < 5:
            # Slurm takes a smaller cred_expire for none, and waits its default of two minutes.
            raise DevClusterError(f"--requeue-delay {self.requeue_delay}: choose 5 or more")
        for name in ("grace_time", "kill_wait", "slurmd_timeout"):
            if getattr(self, name) < 0:
                raise DevClusterError(f"--{name.replace('_', '-')} cannot be negative")

    @property
    def node_names(self) -> list[str]:
        """``["n1", "n2", …]``"""
        return [f"n{i}" for i in range(1, self.nodes + 1)]

    def node_address(self, name: str) -> str:
        """The address that ``name``'s slurmd listens on."""
        return f"{self.subnet}.{10 + int(name[1:])}" if self.netns else "127.0.0.1"

    @property
    def controller_address(self) -> str:
        """The address that slurmctld listens on."""
        return f"{self.subnet}.1" if self.netns else "127.0.0.1"

    @property
    def accounting_port(self) -> int:
        """Where slurmdbd listens; its database has the port below."""
        return self.base_port - 1

    def save(self, path: Path) -> None:
        """Writes the options as JSON, for ``status`` and the next ``up``."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Options:
        """Reads what ``save`` wrote; unknown keys of another version are left out."""
        known = {field.name for field in fields(cls)}
        stored = json.loads(path.read_text())
        return cls(**{key: value for key, value in stored.items() if key in known})
