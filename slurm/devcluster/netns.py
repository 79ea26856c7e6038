"""Network namespaces: every node gets its own address and hostname on one bridge."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .install import require
from .options import DevClusterError, Options

BRIDGE = "devcluster0"


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([require("ip"), *arguments], check=check, capture_output=True, text=True)


def namespace(node: str) -> str:
    """The name of ``node``'s network namespace."""
    return f"devcluster-{node}"


def create(options: Options) -> None:
    """Makes the bridge and one namespace a node; what is there already is kept.

    Raises:
        DevClusterError: not root, or the kernel has no namespaces or bridges.
    """
    if os.getuid() != 0:
        raise DevClusterError("--netns needs root: network namespaces cannot be made without")
    try:
        if _ip("link", "show", BRIDGE, check=False).returncode != 0:
            _ip("link", "add", BRIDGE, "type", "bridge")
            _ip("address", "add", f"{options.controller_address}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        for name in options.node_names:
            _create_node(options, name)
    except subprocess.CalledProcessError as error:
        raise DevClusterError(
            f"cannot make the network of --netns: {error.stderr.strip()}"
        ) from error


def _create_node(options: Options, name: str) -> None:
    space = namespace(name)
    if Path("/run/netns", space).exists():
        return
    outside = f"dc-{name}"
    _ip("netns", "add", space)
    _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
    _ip("link", "set", outside, "master", BRIDGE)
    _ip("link", "set", outside, "up")
    _ip("-n", space, "address", "add", f"{options.node_address(name)}/24", "dev", "eth0")
    _ip("-n", space, "link", "set", "eth0", "up")
    _ip("-n", space, "link", "set", "lo", "up")


def enter_command(name: str, hosts: Path) -> list[str]:
    """The words before a command that runs it inside ``name``: its net, hostname and hosts file."""
    script = 'hostname "$1"; mount --bind "$2" /etc/hosts; shift 2; exec "$@"'
    return [
        require("nsenter"),
        f"--net=/run/netns/{namespace(name)}",
        require("unshare"),
        "--uts",
        "--mount",
        "--",
        "sh",
        "-c",
        script,
        "sh",
        name,
        str(hosts),
    ]


def processes(options: Options) -> list[int]:
    """The ids of all processes inside the nodes' namespaces."""
    found: list[int] = []
    for name in options.node_names:
        if Path("/run/netns", namespace(name)).exists():
            found += [int(word) for word in _ip("netns", "pids", namespace(name)).stdout.split()]
    return found


def remove(options: Options) -> None:
    """Takes down what ``create`` made; what is gone already is no error."""
    if shutil.which("ip") is None:
        return
    for name in options.node_names:
        if Path("/run/netns", namespace(name)).exists():
            _ip("netns", "delete", namespace(name), check=False)
        _ip("link", "delete", f"dc-{name}", check=False)
    _ip("link", "delete", BRIDGE, check=False)
