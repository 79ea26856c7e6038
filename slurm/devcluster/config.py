"""slurm.conf and gres.conf as text; nothing here touches the machine."""

from __future__ import annotations

import os
from pathlib import Path

from .options import DevClusterError, Options

PRETEND_DEVICES = [f"/dev/tty{i}" for i in range(1, 64)]
"""Device files that exist on any Linux: Slurm wants a file per GPU to set CUDA_VISIBLE_DEVICES."""

MEMORY = 4000
"""Of a node, in MiB, whatever this machine has."""
CGROUPS = Path("/sys/fs/cgroup")


def slurm_conf(
    options: Options, folder: Path, *, user: str, host: str, version: tuple[int, int]
) -> str:
    """The text of slurm.conf.

    ``user`` runs the daemons, ``host`` is this machine's hostname, ``version`` is Slurm's
    (major, minor): the switch for user signals at preemption moved in 23.02.
    """
    lines = [
        "ClusterName=devcluster",
        f"SlurmctldHost={host}({options.controller_address})",
        f"SlurmctldPort={options.base_port}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder}/munge/munge.socket,cred_expire={options.requeue_delay}",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool/%n",
        f"SlurmctldPidFile={folder}/pids/slurmctld.pid",
        f"SlurmdPidFile={folder}/pids/slurmd-%n.pid",
        f"SlurmctldLogFile={folder}/logs/slurmctld.log",
        f"SlurmdLogFile={folder}/logs/slurmd-%n.log",
        "SlurmctldDebug=info",
        *_containment(options),
        "MpiDefault=none",
        "MailProg=/bin/true",
        "PropagateResourceLimits=NONE",
        "SlurmdParameters=config_overrides",
        "SelectType=select/cons_tres",
        "SchedulerType=sched/backfill",
        f"SchedulerParameters={','.join(_scheduler(options, version))}",
        "ReturnToService=2",
        f"SlurmdTimeout={options.slurmd_timeout}",
        "SlurmctldTimeout=30",
        f"KillWait={options.kill_wait}",
        "InactiveLimit=0",
        "MinJobAge=3600",
        "JobRequeue=1",
        f"PreemptType=preempt/{'qos' if options.qos_preempt else 'partition_prio'}",
        f"PreemptMode={options.preempt_mode}",
        "JobCompType=jobcomp/none",
        *_accounting(options, folder),
        *_controller(options, version),
    ]
    if options.send_user_signal and version >= (23, 2):
        lines.append("PreemptParameters=send_user_signal")
    if options.stepmgr:
        lines.append("PrologFlags=contain")
    if options.gpus:
        lines.append(f"GresTypes={options.gres}")
    gres = f" Gres={options.gres}:{options.gpus}" if options.gpus else ""
    for number, name in enumerate(options.node_names, start=1):
        hostname = name if options.netns else host
        port = options.base_port + 1 + (0 if options.netns else number)
        lines.append(
            f"NodeName={name} NodeHostname={hostname} NodeAddr={options.node_address(name)}"
            f" Port={port} CPUs={options.cpus} RealMemory={MEMORY}{gres} State=UNKNOWN"
        )
    # Under preempt/qos the QOS says who is preempted, whatever the partition says.
    mode = "OFF" if options.qos_preempt else options.preempt_mode
    lines += [
        "PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1"
        f" PreemptMode={mode} GraceTime={options.grace_time}",
        "PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF",
    ]
    return "\n".join(lines) + "\n"


def _containment(options: Options) -> list[str]:
    """What keeps a job's processes together, and whether memory is one of its resources."""
    if not options.cgroup:
        kept = ["ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none"]
        return [*kept, "SelectTypeParameters=CR_CPU"]
    kept = ["ProctrackType=proctrack/cgroup", "TaskPlugin=task/cgroup"]
    return [*kept, "SelectTypeParameters=CR_CPU_Memory", f"DefMemPerNode={MEMORY // 2}"]


def _scheduler(options: Options, version: tuple[int, int]) -> list[str]:
    delay = [f"requeue_delay={options.requeue_delay}"] if version >= (25, 11) else []
    return ["bf_interval=5", "sched_interval=5", *delay]


def _controller(options: Options, version: tuple[int, int]) -> list[str]:
    """SlurmctldParameters, where this version has what is asked for.

    Raises:
        DevClusterError: it has not.
    """
    asked = {
        "enable_stepmgr": (options.stepmgr, "--stepmgr", (24, 5)),
        "enable_expedited_requeue": (options.expedite, "--expedite", (25, 11)),
    }
    for wanted, option, since in asked.values():
        if wanted and version < since:
            needed, here = (f"{major}.{minor:02}" for major, minor in (since, version))
            raise DevClusterError(f"{option} needs Slurm {needed}, and this is {here}: --release")
    names = [name for name, (wanted, _, _) in asked.items() if wanted]
    if options.send_user_signal and version < (23, 2):
        names.append("preempt_send_user_signal")
    return [f"SlurmctldParameters={','.join(names)}"] if names else []


def _accounting(options: Options, folder: Path) -> list[str]:
    if not options.accounting:
        return ["AccountingStorageType=accounting_storage/none"]
    enforced = ["AccountingStorageEnforce=limits,qos"] if options.qos_preempt else []
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={options.accounting_port}",
        # Questions to slurmdbd do not go by AuthInfo.
        f"AccountingStoragePass={folder}/munge/munge.socket",
        f"AccountingStorageTRES=gres/{options.gres}",
        "JobAcctGatherType=jobacct_gather/linux",
        *enforced,
    ]


def slurmdbd_conf(options: Options, folder: Path, *, user: str) -> str:
    """The text of slurmdbd.conf."""
    lines = [
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder}/munge/munge.socket",
        "DbdHost=localhost",
        f"DbdPort={options.accounting_port}",
        f"SlurmUser={user}",
        "StorageType=accounting_storage/mysql",
        "StorageHost=127.0.0.1",
        f"StoragePort={options.accounting_port - 1}",
        "StorageUser=slurm",
        f"LogFile={folder}/logs/slurmdbd.log",
        f"PidFile={folder}/pids/slurmdbd.pid",
    ]
    return "\n".join(lines) + "\n"


def require_cgroups() -> None:
    """Looks whether this machine has what ``cgroup_conf`` names.

    Raises:
        DevClusterError: it has not, or this user may not write there.
    """
    for controller in ("memory", "freezer"):
        if not os.access(CGROUPS / controller, os.W_OK):
            raise DevClusterError(
                f"--cgroup needs root and the controller {controller} of the first version of "
                f"cgroups at {CGROUPS / controller}"
            )


def cgroup_conf() -> str:
    """The text of cgroup.conf: ranks that take more memory than their job has are killed.

    Of the first version, as it can be mounted beside the second; without systemd.
    """
    return f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={CGROUPS}\nConstrainRAMSpace=yes\n"


def gres_conf(options: Options) -> str:
    """The text of gres.conf: ``options.gpus`` pretend devices on every node."""
    nodes = ",".join(options.node_names)
    devices = PRETEND_DEVICES[: options.gpus]
    name = options.gres
    return "".join(f"NodeName={nodes} Name={name} File={device}\n" for device in devices)


def hosts_file(options: Options, host: str) -> str:
    """An /etc/hosts for nodes that live in network namespaces of their own."""
    lines = ["127.0.0.1 localhost", f"{options.controller_address} {host}"]
    lines += [f"{options.node_address(name)} {name}" for name in options.node_names]
    return "\n".join(lines) + "\n"
