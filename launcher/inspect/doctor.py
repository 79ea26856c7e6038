"""``doctor``: reads the site, tries the run folder, and says in plain words what is safe."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.containers.runtimes import programs
from launcher.inspect.control import cancel_run
from launcher.inspect.probe import disk_speed
from launcher.slurm import client as slurm
from launcher.slurm import states
from launcher.slurm.client import Partition
from launcher.slurm.environment import describe_defaults
from launcher.slurm.parse import leading_number
from launcher.spec.devices import MAKERS, Devices
from launcher.spec.run_folder import RunFolder
from launcher.submit.resolve import job_spec, runs_dir_flag, runs_folder
from launcher.submit.submission import submit
from launcher.supervise.host import count_devices
from minimind.system.drivers import DRIVERS, makers_here
from minimind.system.durable import sync_file
from minimind.system.terminal import note

GOOD, WARN, BAD = "ok", "warn", "bad"
LOCAL_FILESYSTEMS = ("ext4", "ext3", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "vfat")
CHECKPOINT_BYTES = 1_250_000_000
"""The 104 M model in full precision: weights and two AdamW moments, 12 bytes a parameter."""
SIGNAL_TO_SAVE_SECONDS = 3.0
"""Until all ranks have agreed on the stopping step and the save begins."""
CLOCK_SKEW_SECONDS = 1.0
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``ok``, ``warn`` or ``bad``, in plain words."""

    level: str
    subject: str
    text: str


def examine(runs_dir: Path, devices: Devices) -> list[Finding]:
    """Everything that can be told from this machine; ``devices``: those of the site's nodes."""
    found = [*examine_devices(), *examine_runtimes(), *examine_folder(runs_dir)]
    if not slurm.available():
        return [Finding(WARN, "slurm", "no sbatch here: runs start on this machine"), *found]
    config = slurm.show_config()
    site = slurm.read_site()
    if not config or site is None:
        return [Finding(BAD, "slurm", "the controller does not answer (scontrol ping)"), *found]
    speed = disk_speed(runs_dir)
    found += [Finding(GOOD, "defaults", line) for line in describe_defaults(os.environ)]
    found += examine_config(config)
    for partition in site.partitions.values():
        found.append(examine_partition(partition, config, speed, devices))
    return found


def examine_config(config: dict[str, str]) -> list[Finding]:
    """What slurm.conf means for a run."""
    found = []
    if config.get("JobRequeue", "1") == "1":
        found.append(Finding(GOOD, "requeue", "jobs may be requeued (JobRequeue=1)"))
    else:
        text = "JobRequeue=0: the launcher asks with --requeue; ask your site if it is refused"
        found.append(Finding(WARN, "requeue", text))
    waits = f"a requeued job waits about {_requeue_delay(config)} s"
    if slurm.expedites(config):
        waits = "the launcher asks for expedited requeues: a job that stops starts again at once"
    found.append(Finding(GOOD, "requeue delay", waits))
    if "send_user_signal" in config.get("SlurmctldParameters", "") + config.get(
        "PreemptParameters", ""
    ):
        text = "at preemption the job's --signal (USR2) comes instead of SIGTERM: both are handled"
        found.append(Finding(GOOD, "send_user_signal", text))
    if config.get("AccountingStorageType", "(null)").endswith(("none", "(null)")):
        text = "no accounting: the launcher's own event log is the record"
        found.append(Finding(GOOD, "accounting", text))
    else:
        found.append(Finding(GOOD, "accounting", config.get("AccountingStorageType", "")))
    return found


def examine_partition(
    partition: Partition, config: dict[str, str], speed: float, devices: Devices
) -> Finding:
    """Whether a checkpoint fits into the time that a preempted job has left here."""
    subject = f"partition {partition.name}"
    limit = "no time limit" if partition.max_minutes is None else f"{partition.max_minutes} min"
    each = f"{partition.devices(devices.gres)} {devices.unit}s a node"
    size = f"{partition.nodes} nodes, {each}, {limit}"
    kill_wait = leading_number(config.get("KillWait", ""), 30)
    notice = max(partition.grace_time, kill_wait)
    needed = SIGNAL_TO_SAVE_SECONDS + CHECKPOINT_BYTES / 1e6 / speed
    warning = f"{notice} s from warning to SIGKILL, saving 1.25 GB takes about {needed:.0f} s"
    words = preemption_words(partition.preempt_mode, config)
    level = GOOD if needed <= notice / 2 else WARN if needed <= notice else BAD
    advice = {
        GOOD: "safe",
        WARN: "tight: a larger model may lose steps",
        BAD: "NOT safe: lower --save_interval, steps since the last save are lost",
    }[level]
    return Finding(level, subject, f"{size}; {words}: {warning} — {advice}")


def preemption_words(mode: str, config: dict[str, str]) -> str:
    """What can happen to a job here; ``mode``: the partition's PreemptMode, a list with commas."""
    kind = config.get("PreemptType", "")
    if kind.endswith(("none", "(null)")):
        return "jobs here are not preempted; time limits"
    if kind == "preempt/qos":
        return (
            f"preemptible by jobs of another QOS ({config.get('PreemptMode', '')}; `sacctmgr show "
            "qos` says which, and its GraceTime; the launcher requeues by itself where Slurm does "
            "not)"
        )
    asked = set(mode.split(",")) - {"", "OFF", "PRIORITY", "WITHIN"}
    if not asked:
        return "jobs here are not preempted; time limits"
    if asked <= {"SUSPEND", "GANG"}:
        return f"preemption by {mode}: ranks stand still, nothing is lost"
    return f"preemptible ({mode}; the launcher requeues by itself where Slurm does not)"


def _requeue_delay(config: dict[str, str]) -> int:
    # Since 25.11, and then it counts.
    for entry in config.get("SchedulerParameters", "").split(","):
        if entry.startswith("requeue_delay="):
            return leading_number(entry.partition("=")[2], 120)
    for entry in config.get("AuthInfo", "").split(","):
        if entry.startswith("cred_expire="):
            return leading_number(entry.partition("=")[2], 120) + 1
    return 121


def examine_runtimes() -> list[Finding]:
    """The container runtimes of this machine."""
    found = [name for name in programs() if shutil.which(name)]
    if slurm.available():
        answer = slurm.run("srun", "--help")
        if "--container-image" in answer.stdout:
            found.append("pyxis")
    text = ", ".join(found) if found else "none: jobs run with the Python of the host"
    return [Finding(GOOD, "containers", text)]


def examine_devices() -> list[Finding]:
    """The accelerators of this machine, whoever has made them, and whether torch can use them."""
    makers = makers_here()
    if not makers:
        return [Finding(GOOD, "devices", "no accelerator on this machine")]
    counts = {DRIVERS[maker].device: count_devices(MAKERS[maker]) for maker in makers}
    has = ", ".join(f"{count} × {name}" if count else name for name, count in counts.items())
    answer = ask_torch()
    version, names = answer["torch"], answer["gpus"]
    if names:
        return [Finding(GOOD, "devices", f"{has}; torch {version} uses {len(names)}")]
    level = GOOD if version is None else WARN
    return [Finding(level, "devices", f"{has}; {unused(makers, version)}")]


def ask_torch() -> dict[str, Any]:
    """What this Python's torch says, in a process of its own: the launcher loads no torch."""
    code = "import json; from launcher.inspect.probe import torch_devices as ask; "
    words = [sys.executable, "-c", code + "print(json.dumps(ask()))"]
    answer = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        return dict(json.loads(answer.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        return {"torch": None, "gpus": []}


def unused(makers: list[str], version: str | None) -> str:
    """Why the devices of ``makers`` lie idle, and what to install."""
    if version is None:
        return "no torch in this Python"
    needed = " or ".join(DRIVERS[maker].remedy for maker in makers)
    return f"torch {version} cannot use it: install {needed}"


def examine_folder(runs_dir: Path) -> list[Finding]:
    """Whether rename, fsync and locks work where runs live, and whether nodes can share it."""
    found = []
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=runs_dir, prefix=".doctor-") as name:
            folder = Path(name)
            found += [_check("rename", folder, _rename), _check("fsync", folder, _fsync)]
            found.append(_check("lock", folder, _lock))
    except OSError as error:
        return [Finding(BAD, "run folder", f"{runs_dir}: {error.strerror}")]
    kind = filesystem(runs_dir)
    if kind in LOCAL_FILESYSTEMS and slurm.available():
        text = f"{runs_dir} is on {kind}: other nodes may not see it; `doctor --nodes N` finds out"
        found.append(Finding(WARN, "run folder", text))
    else:
        found.append(Finding(GOOD, "run folder", f"{runs_dir} ({kind})"))
    free = shutil.disk_usage(runs_dir).free
    level = GOOD if free > 10 * CHECKPOINT_BYTES else WARN
    found.append(Finding(level, "disk", f"{free / 1e9:.0f} GB free"))
    return found


def _check(what: str, folder: Path, attempt: Any) -> Finding:
    try:
        attempt(folder)
    except OSError as error:
        return Finding(BAD, what, f"does not work in the run folder: {error.strerror}")
    return Finding(GOOD, what, "works in the run folder")


def _rename(folder: Path) -> None:
    (folder / "a").write_text("new")
    (folder / "b").write_text("old")
    os.replace(folder / "a", folder / "b")
    if (folder / "b").read_text() != "new":
        raise OSError(5, "rename does not replace a file")


def _fsync(folder: Path) -> None:
    # A folder like a file: sync_folder would take a file system that cannot sync one.
    for path in (folder / "b", folder):
        sync_file(path)


def _lock(folder: Path) -> None:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def filesystem(path: Path) -> str:
    """The type of the filesystem that ``path`` lies on, as the kernel's mount table has it."""
    target, best, kind = path.resolve(), -1, "unknown"
    for line in Path("/proc/mounts").read_text(errors="replace").splitlines():
        _, mounted, found, *_ = line.split(" ")
        folder = Path(mounted.replace("\\040", " "))
        if target.is_relative_to(folder) and len(folder.parts) > best:
            best, kind = len(folder.parts), found
    return kind


def examine_as_job(
    size: dict[str, Any], profile: dict[str, Any], *, cpu: bool, timeout: int
) -> list[Finding]:
    """Submits a job that measures its nodes, waits for it, and says what it found."""
    name = time.strftime("doctor-%Y%m%d-%H%M%S")
    folder = runs_folder(size["runs_dir"], profile) / name
    train = ["--device", "cpu"] if cpu else []
    # What is wrong with a node is to be found, not to be avoided.
    spec = replace(job_spec(name, size, profile, "launcher.probe", train), preflight=False)
    submitted = time.time()
    job = submit(spec, {})
    note(f"job {job} measures on {spec.nodes} nodes; its folder is {folder}")
    run = RunFolder(folder)
    if not _wait(run, timeout):
        cancel_run(run)
        why = f"launcher why {name}{runs_dir_flag(run)}"
        text = f"did not end within {timeout} s and was cancelled; see {why}"
        return [Finding(BAD, "job", text)]
    found = examine_nodes(run, submitted)
    if all(finding.level != BAD for finding in found):
        _remove(run, timeout)
    return found


def _remove(run: RunFolder, timeout: float) -> None:
    """Removes the run of a measurement that told all it knew, once its job writes no more."""
    deadline = time.monotonic() + timeout
    while run.spec().cluster == "slurm" and not _has_left(str(run.job_id())):
        if time.monotonic() > deadline:
            return
        time.sleep(POLL_SECONDS)
    shutil.rmtree(run.root, ignore_errors=True)


def _has_left(job_id: str) -> bool:
    jobs = slurm.job_states(job_id)
    if jobs is None:
        return False
    return job_id not in jobs or states.has_ended(jobs[job_id].get("JobState", ""))


def _wait(run: RunFolder, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while run.final() is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def examine_nodes(run: RunFolder, submitted: float) -> list[Finding]:
    """What the probes of ``doctor --nodes`` left in the run folder."""
    spec = run.spec()
    written = sorted(Path(spec.save_dir).glob("probe-*.json"))
    probes = [json.loads(path.read_text()) for path in written]
    expected = spec.world_size
    if len(probes) != expected:
        logs = f"launcher logs {run.name}{runs_dir_flag(run)}"
        text = f"{len(probes)} of {expected} ranks answered; see {logs}"
        return [Finding(BAD, "ranks", text + " — is the run folder shared by all nodes?")]
    hosts = sorted({probe["host"] for probe in probes})
    waited = f"{time.time() - submitted:.0f} s after the submission"
    found = [Finding(GOOD, "ranks", f"{expected} on {', '.join(hosts)}, {waited}")]
    for host in hosts:
        first = next(probe for probe in probes if probe["host"] == host)
        text = f"run folder {first['disk_write_mb_s']:.0f} MB/s, /dev/shm "
        text += f"{first['shared_memory_bytes'] / 1e9:.1f} GB"
        text += f", {spec.devices.unit}s {', '.join(first.get('gpus') or ['none'])}"
        doubtful = first["shared_memory_bytes"] < 1_000_000_000
        makers = first.get("makers", []) if spec.request_gpus else []
        if makers and not first.get("gpus"):
            names = ", ".join(DRIVERS[maker].device for maker in makers)
            text += f", but it has an {names}: {unused(makers, first['torch'])}"
            doubtful = True
        found.append(Finding(WARN if doubtful else GOOD, host, text))
    reduced = [probe for probe in probes if "all_reduce_mb_s" in probe]
    if reduced:
        slowest = min(probe["all_reduce_mb_s"] for probe in reduced)
        right = all(probe["all_reduce_right"] for probe in reduced)
        text = f"{reduced[0]['backend']} over {expected} ranks: {slowest:.0f} MB/s"
        found.append(
            Finding(GOOD if right else BAD, "all-reduce", text + ("" if right else ", WRONG sums"))
        )
        skew = max(p["clock"] for p in reduced) - min(p["clock"] for p in reduced)
        level = GOOD if skew < CLOCK_SKEW_SECONDS else WARN
        found.append(Finding(level, "clocks", f"differ by {skew * 1000:.0f} ms at most"))
    return found
