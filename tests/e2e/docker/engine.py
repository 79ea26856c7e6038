"""A Docker engine for the tests: the one that runs, or one of our own for as long as they last."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from tests.e2e.lab import INSTALLING

PACKAGES = ("docker.io", "debootstrap", "iptables")
BASE_PACKAGES = "python3-venv,python3-pip,ca-certificates"
BASE_TAG = "minimind-test-base"


class NoDocker(Exception):
    """There is no Docker engine here, and none can be started."""


@dataclass(frozen=True)
class Engine:
    """A Docker engine that answers; ``environment`` leads clients to it."""

    client: str
    environment: dict[str, str]

    def run(self, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Runs the docker client to its end, whatever that is."""
        return subprocess.run(
            [self.client, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def ok(self, *words: str, timeout: float = 300) -> str:
        """Runs the docker client, expects status 0, returns standard output."""
        done = self.run(*words, timeout=timeout)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def containers(self, label: str) -> list[str]:
        """All containers that carry ``label``, running or not."""
        return self.ok("ps", "--all", "--quiet", "--filter", f"label={label}").split()


@contextmanager
def docker_engine(folder: Path) -> Iterator[Engine]:
    """The engine that this user can reach, else a dockerd of our own with its files in ``folder``.

    Raises:
        NoDocker: neither is possible; the message says why.
    """
    client = shutil.which("docker")
    if client and answers(running := Engine(client, dict(os.environ))):
        yield running
        return
    if os.geteuid():
        raise NoDocker("no Docker engine answers, and only root can start one")
    if not shutil.which("dockerd"):
        install()
    socket = folder / "docker.sock"
    log = folder / "dockerd.log"
    environment = {**os.environ, "DOCKER_HOST": f"unix://{socket}"}
    with log.open("w") as output:
        daemon = subprocess.Popen(
            # Without a bridge it leaves the network of this machine, and other engines', alone.
            [
                *("dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false"),
                *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
                *("--pidfile", str(folder / "dockerd.pid"), "--host", environment["DOCKER_HOST"]),
            ],
            stdout=output,
            stderr=output,
        )
    # The client that came with the daemon: one elsewhere on the path may be of another age.
    engine = Engine(client_beside_daemon(), environment)
    try:
        deadline = time.monotonic() + 60
        while not answers(engine):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise NoDocker(f"dockerd does not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield engine
    finally:
        daemon.terminate()
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()


def answers(engine: Engine) -> bool:
    """True when the daemon behind ``engine`` is up."""
    return engine.run("version", "--format", "{{.Server.Version}}").returncode == 0


def client_beside_daemon() -> str:
    """The docker client of the same package as dockerd."""
    for path in ("/usr/bin/docker", shutil.which("docker")):
        if path and os.access(path, os.X_OK):
            return path
    raise NoDocker("dockerd is here, but no docker client")


def install(*packages: str) -> None:
    """Installs packages of the distribution, Docker if none is named.

    Raises:
        NoDocker: that is not possible here.
    """
    if not shutil.which("apt-get"):
        raise NoDocker("not installed, and this is no Debian or Ubuntu")
    fetch = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"]
    with INSTALLING:
        for command in (["apt-get", "update", "--quiet"], [*fetch, *(packages or PACKAGES)]):
            done = subprocess.run(
                command,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise NoDocker(f"{' '.join(command)}: {done.stderr[-1000:]}")


def import_base(engine: Engine) -> str:
    """A Debian base image made without a registry."""
    tag = f"{BASE_TAG}:{_suite()}"
    engine.ok("import", str(base_archive()), tag, timeout=600)
    return tag


def _suite() -> str:
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "bookworm")


def base_archive() -> Path:
    """The base's root file system as a tar file, which is kept between test runs."""
    suite = _suite()
    archive = user_cache_path("minimind-tests") / f"base-{suite}-1.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{archive}.lock"):
        if not archive.exists():
            make_base(suite, archive)
    return archive


def make_base(suite: str, archive: Path) -> None:
    """Writes a root file system of ``suite`` with Python as a tar file."""
    if not shutil.which("debootstrap"):
        install()
    root = archive.with_suffix(".root")
    partial = archive.with_suffix(".partial")
    shutil.rmtree(root, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", suite, str(root)]
    done = subprocess.run([*command, *mirror(suite)], capture_output=True, text=True)
    if done.returncode:
        raise NoDocker(f"debootstrap: {done.stdout[-2000:]}{done.stderr[-1000:]}")
    subprocess.run(["tar", "-C", str(root), "-cf", str(partial), "."], check=True)
    os.replace(partial, archive)
    shutil.rmtree(root, ignore_errors=True)


def mirror(suite: str) -> list[str]:
    """The mirror that this machine's apt uses for ``suite``; none: debootstrap's own default."""
    wanted = ["--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]
    listing = subprocess.run(["apt-get", "indextargets", *wanted], capture_output=True, text=True)
    for line in listing.stdout.splitlines():
        codename, component, address = line.split(" ", 2)
        if (codename, component) == (suite, "main"):
            return [address]
    return []
