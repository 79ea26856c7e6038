"""Makes sure that Slurm's and munge's programs are there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from .options import DevClusterError

PROGRAMS = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "scontrol": "slurm-wlm",
    "munged": "munge",
}
ACCOUNTING_PROGRAMS = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server"}
NETNS_PROGRAMS = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux"}


def find(program: str) -> str | None:
    """The path of ``program``, also where daemons live and a user's PATH does not look."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")


def require(program: str) -> str:
    """The path of ``program``.

    Raises:
        DevClusterError: it is not installed.
    """
    path = find(program)
    if path is None:
        raise DevClusterError(f"{program} is not installed: run `up` as root, or install it")
    return path


def missing_packages(*, netns: bool, accounting: bool = False) -> list[str]:
    """The Debian packages of the programs that are not there."""
    wanted = PROGRAMS | (NETNS_PROGRAMS if netns else {})
    wanted |= ACCOUNTING_PROGRAMS if accounting else {}
    return sorted({package for program, package in wanted.items() if find(program) is None})


def install(*, netns: bool, accounting: bool = False) -> None:
    """Installs what is missing through apt when root.

    Raises:
        DevClusterError: not root, no apt, or apt failed; the message says what to install.
    """
    install_packages(missing_packages(netns=netns, accounting=accounting))


def install_packages(packages: list[str]) -> None:
    """Installs Debian packages; ``install`` says what may go wrong."""
    if not packages:
        return
    command = f"apt-get install {' '.join(packages)}"
    if os.getuid() != 0:
        raise DevClusterError(f"missing programs; as root: {command}")
    if shutil.which("apt-get") is None:
        raise DevClusterError(f"missing packages {' '.join(packages)}, and no apt-get to get them")
    policy = Path("/usr/sbin/policy-rc.d")
    made_policy = not policy.exists()
    if made_policy:
        # The packages' own services would start with no config; the cluster runs its own daemons.
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        options = ["-y", "-qq", "--no-install-recommends"]
        for arguments in (["update", "-qq"], ["install", *options, *packages]):
            subprocess.run(
                ["apt-get", *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
            )
    except subprocess.CalledProcessError as error:
        raise DevClusterError(f"apt-get failed ({error.returncode}); try: {command}") from error
    finally:
        if made_policy:
            policy.unlink()


def slurm_version(slurmctld: list[str]) -> tuple[int, int]:
    """(major, minor) of the Slurm that the words ``slurmctld`` start, e.g. ``(22, 5)``."""
    output = subprocess.run([*slurmctld, "-V"], check=True, capture_output=True, text=True).stdout
    match = re.search(r"(\d+)\.(\d+)", output)
    if match is None:
        raise DevClusterError(f"cannot read a version from `slurmctld -V`: {output!r}")
    return int(match[1]), int(match[2])
