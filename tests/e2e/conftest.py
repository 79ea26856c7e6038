"""One real Slurm for all end-to-end tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import INSTALLING, REPOSITORY, SITE, USER, Lab, make_lab
from tests.look.browser import Page, browser, find_chromium
from tests.needs import lacks

sys.path.insert(0, str(REPOSITORY / "slurm"))

CLUSTER = ("--nodes", "2", "--gpus", "8", "--slurmd-timeout", "10", "--requeue-delay", "5", *SITE)


def slurm_or_skip(*, netns: bool = False) -> None:
    """Installs Slurm where that is possible; in CI its absence is a failure."""
    from devcluster.install import install, missing_packages
    from devcluster.options import DevClusterError

    if "--release" in SITE:
        return
    if not missing_packages(netns=netns):
        return
    try:
        with INSTALLING:
            install(netns=netns)
    except DevClusterError as error:
        lacks(f"no Slurm: {error}")


def base_port() -> str:
    """Ports of its own for every process of a session on this machine.

    A parent's number tells sessions apart, a worker's its processes.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    session = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    return str(17000 + (session % 120 * 4 + worker % 4) * 20)


@pytest.fixture(scope="session")
def slurm_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    slurm_or_skip()
    folder = tmp_path_factory.mktemp("lab")
    # munged wants folders above its socket that others cannot write, but everyone can enter.
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(0o755)
    lab = make_lab(folder, *CLUSTER, "--base-port", base_port())
    yield lab
    lab.devcluster("down")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def slurm(slurm_lab: Lab) -> Iterator[Lab]:
    """The shared cluster with its default settings and no jobs."""
    slurm_lab.devcluster("up")
    yield slurm_lab
    for user in {str(os.getuid()), USER} - {""}:
        slurm_lab.command("scancel", f"--user={user}")
        slurm_lab.command("scancel", "--signal=KILL", "--full", f"--user={user}")


def apt_install(*packages: str) -> None:
    """What is installed where that is possible; who needs it looks whether it is there."""
    with INSTALLING:
        subprocess.run(["apt-get", "update", "--quiet"], capture_output=True)
        command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"]
        subprocess.run([*command, *packages], capture_output=True)


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Page]:
    """Installed where that is possible; in CI its absence is a failure."""
    if find_chromium() is None and shutil.which("apt-get"):
        apt_install("chromium")
    program = find_chromium()
    if program is None:
        lacks("no chromium")
    with browser(program, tmp_path / "profile") as page:
        yield page
