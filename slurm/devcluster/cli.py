"""The command line: ``up``, ``down``, ``status``, ``install``."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path

from .daemons import Cluster
from .install import install
from .options import PREEMPT_MODES, RELEASES, DevClusterError, Options, default_folder


def build_parser() -> argparse.ArgumentParser:
    """The parser of all sub-commands."""
    parser = argparse.ArgumentParser(prog="devcluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the cluster, or change a running one")
    defaults = Options()
    add = up.add_argument
    add("--nodes", type=int, default=defaults.nodes, help="number of nodes (%(default)s)")
    add("--gpus", type=int, default=defaults.gpus, help="pretend GPUs a node (%(default)s)")
    add("--gres", default=defaults.gres, help="what Slurm calls those, as npu (%(default)s)")
    add("--cpus", type=int, default=defaults.cpus, help="claimed CPUs a node (%(default)s)")
    add(
        "--grace-time",
        type=int,
        default=defaults.grace_time,
        help="GraceTime of the partition low, s (%(default)s)",
    )
    add(
        "--kill-wait",
        type=int,
        default=defaults.kill_wait,
        help="seconds from SIGTERM to SIGKILL (%(default)s)",
    )
    add("--preempt-mode", choices=PREEMPT_MODES, default=defaults.preempt_mode)
    add(
        "--send-user-signal",
        action="store_true",
        help="at preemption send the job's --signal instead of SIGTERM",
    )
    add(
        "--slurmd-timeout",
        type=int,
        default=defaults.slurmd_timeout,
        help="seconds until a silent node counts as down (%(default)s)",
    )
    add(
        "--requeue-delay",
        type=int,
        default=defaults.requeue_delay,
        help="seconds a requeued job waits, set through cred_expire (%(default)s)",
    )
    add("--base-port", type=int, default=defaults.base_port)
    add(
        "--netns",
        action="store_true",
        help="every node in its own network namespace, with address and hostname (root)",
    )
    add("--subnet", default=defaults.subnet, help="first three bytes of --netns's addresses")
    add(
        "--release",
        choices=RELEASES,
        default=defaults.release,
        help="Slurm of this machine, or a Debian release's in a chroot (root; %(default)s)",
    )
    add("--accounting", action="store_true", help="slurmdbd and MariaDB: a real sacct")
    add("--stepmgr", action="store_true", help="jobs manage their steps themselves (24.05)")
    add(
        "--qos-preempt",
        action="store_true",
        help="the QOS high preempts normal, in every partition (with --accounting)",
    )
    add("--expedite", action="store_true", help="allow --requeue=expedite (25.11)")
    add(
        "--cgroup",
        action="store_true",
        help="proctrack and task by cgroup: ranks that take too much memory are killed (root)",
    )
    add("--no-install", action="store_true", help="do not install Slurm; fail if it is missing")
    commands.add_parser("down", help="stop the cluster and remove all of it")
    commands.add_parser("status", help="say what runs; exit status 1 when the cluster is not whole")
    only_install = commands.add_parser("install", help="install slurm-wlm and munge (root)")
    only_install.add_argument("--netns", action="store_true", help="what --netns needs, too")
    for command in commands.choices.values():
        command.add_argument("--folder", type=Path, default=default_folder(), help="(%(default)s)")
    return parser


def _up(arguments: argparse.Namespace) -> int:
    names = [field.name for field in dataclasses.fields(Options)]
    options = Options(**{name: getattr(arguments, name) for name in names})
    if not arguments.no_install and options.release == "host":
        install(netns=options.netns, accounting=options.accounting)
    cluster = Cluster(arguments.folder, options)
    if cluster.options_file.exists():
        before = Options.load(cluster.options_file)
        fixed = (
            *("nodes", "gpus", "gres", "cpus", "netns", "subnet", "base_port"),
            *("release", "accounting", "stepmgr", "qos_preempt", "cgroup"),
        )
        if any(getattr(before, name) != getattr(options, name) for name in fixed):
            Cluster(arguments.folder, before).down()
    try:
        cluster.up()
    except DevClusterError:
        print(f"The logs are in {arguments.folder}/logs", file=sys.stderr)
        raise
    print(
        f"Slurm runs: {options.nodes} nodes, {options.gpus} pretend {options.gres.upper()}s each."
    )
    print("Use it in this shell with:")
    print(f"  export SLURM_CONF={shlex.quote(str(cluster.conf))}")
    if options.release != "host":
        print(f"  export PATH={shlex.quote(str(cluster.folder / 'bin'))}:$PATH")
    return 0


def _stored(arguments: argparse.Namespace) -> Cluster | None:
    options_file = arguments.folder / "options.json"
    if options_file.exists():
        return Cluster(arguments.folder, Options.load(options_file))
    if arguments.folder.exists():
        return Cluster(arguments.folder, Options())
    return None


def _down(arguments: argparse.Namespace) -> int:
    cluster = _stored(arguments)
    if cluster is None:
        print("No cluster runs.")
        return 0
    cluster.down()
    print("The cluster is stopped and its folder is gone.")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    cluster = _stored(arguments)
    if cluster is None:
        print("No cluster runs.")
        return 1
    daemons = cluster.running()
    for name, runs in daemons.items():
        print(f"{name:12} {'runs' if runs else 'does not run'}")
    states = cluster.node_states() if daemons["slurmctld"] else {}
    for node, state in states.items():
        print(f"{node:12} {state}")
    print(f"SLURM_CONF={shlex.quote(str(cluster.conf))}")
    return 0 if all(daemons.values()) else 1


def main(argv: list[str] | None = None) -> int:
    """Runs one sub-command and returns its exit status; a user's mistake is 2."""
    arguments = build_parser().parse_args(argv)
    arguments.folder = Path(os.path.abspath(arguments.folder))
    try:
        if arguments.command == "install":
            install(netns=arguments.netns)
            return 0
        return {"up": _up, "down": _down, "status": _status}[arguments.command](arguments)
    except DevClusterError as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 2
