"""Container runtimes of another Debian release: its packages in a root of their own.

A chroot is not enough: the kernel makes no user namespace for a process in one. So a process
that sleeps holds a mount namespace whose root is the release, and every program enters that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from tests.e2e.docker.engine import Engine, NoDocker, install, mirror

PROGRAMS = {"podman": "podman", "apptainer": "apptainer", "charliecloud": "ch-run"}
CLIENTS = ("podman", "apptainer", "ch-run", "ch-convert")
PACKAGES = (
    *("podman", "crun", "netavark", "fuse-overlayfs", "uidmap", "passt", "catatonit"),
    *("charliecloud", "squashfs-tools", "squashfuse", "ca-certificates", "procps"),
)
MORE_PACKAGES = {"trixie": (), "sid": ("apptainer",)}
"""What only some releases have."""

SETTINGS = {
    # This kernel may not offer the controller that counts processes.
    "etc/containers/containers.conf": "[containers]\npids_limit = 0\n",
}

_HOLD = """set -e; root=$1; client=$2; socket=$3
mount --bind "$root" "$root"
for path in dev proc sys tmp; do mount --rbind "/$path" "$root/$path"; done
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mkdir -p "$root/dev/mqueue"; mount -t mqueue mqueue "$root/dev/mqueue"
mount -t tmpfs tmpfs "$root/run"
touch "$root/usr/bin/docker"; mount --bind "$client" "$root/usr/bin/docker"
here=$root/run/docker.sock
if [ -S "$socket" ]; then touch "$here"; mount --bind "$socket" "$here"; fi
mkdir -p "$root/run/old" "$root/run/user"; cd "$root"; pivot_root . run/old; umount -l /run/old
echo ready; exec sleep infinity
"""


@dataclass(frozen=True)
class Root:
    """A release that is held; ``programs`` is a folder for the PATH."""

    release: str
    holder: int
    programs: Path

    def enter(self, *words: str) -> list[str]:
        """The command that runs ``words`` in there."""
        return ["nsenter", f"--mount=/proc/{self.holder}/ns/mnt", *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a program in there to its end."""
        return subprocess.run(self.enter(*words), capture_output=True, text=True, timeout=1200)

    def version(self, program: str) -> str:
        """What ``program`` says of itself."""
        done = self.run("env", "USER=root", f"/usr/bin/{program}", "--version")
        return (done.stdout or done.stderr).strip()


@contextmanager
def held(release: str, folder: Path, engine: Engine) -> Iterator[Root]:
    """The runtimes of ``release`` for as long as the test lasts.

    Raises:
        NoDocker: they cannot be installed here.
    """
    root = made(release)
    script = ["sh", "-c", _HOLD, "sh", str(root), engine.client, "/var/run/docker.sock"]
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", "--", *script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        assert holder.stdout is not None
        if (said := holder.stdout.readline().strip()) != "ready":
            raise NoDocker(f"no root of {release}: {said}")
        found = Root(release, holder.pid, folder / "bin")
        write_clients(found)
        yield found
    finally:
        holder.kill()
        holder.wait()


def write_clients(root: Root) -> None:
    """Programs of this machine's that become those of the release, in the same folder."""
    root.programs.mkdir()
    for name in CLIENTS:
        enter = " ".join(root.enter("sh", "-c", '\'cd "$0" && exec "$@"\''))
        script = f'#!/bin/sh\nexec {enter} "$PWD" /usr/bin/{name} "$@"\n'
        (root.programs / name).write_text(script)
        (root.programs / name).chmod(0o755)


def made(release: str) -> Path:
    """The root of a release, made from Debian's packages where it is not there.

    Raises:
        NoDocker: not root, or debootstrap failed.
    """
    if os.geteuid():
        raise NoDocker("only root can enter another root")
    root = user_cache_path("minimind-containers") / release
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{root}.lock"):
        if not root.is_dir():
            debootstrap(release, root)
    for name, text in SETTINGS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    unprivileged_apptainer(root / "etc/apptainer/apptainer.conf")
    return root


def debootstrap(release: str, root: Path) -> None:
    if not shutil.which("debootstrap"):
        install()
    partial = root.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    packages = ",".join((*PACKAGES, *MORE_PACKAGES[release]))
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", release, str(partial)]
    done = subprocess.run([*command, *mirror(release)], capture_output=True, text=True)
    if done.returncode:
        raise NoDocker(f"debootstrap: {done.stdout[-2000:]}{done.stderr[-1000:]}")
    os.replace(partial, root)


def unprivileged_apptainer(settings: Path) -> None:
    """Root of a virtual machine may lack a capability, and apptainer's default asks for all."""
    if settings.exists():
        key = "root default capabilities"
        settings.write_text(settings.read_text().replace(f"{key} = full", f"{key} = no"))
