"""One image, many runtimes: the words that go around the command of a rank.

Pure functions from a JobSpec to argument lists. Every rank has its own container; the run
folder and the working folder are seen under the same paths inside as outside. Standard library
only: the host side of a job makes its commands here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable

from launcher.containers.image import enroot_name
from launcher.slurm.sbatch import SUBMITIT
from launcher.spec.job_spec import JobSpec
from launcher.spec.mount import Mount
from launcher.spec.run_folder import RunFolder

RANK_VARIABLES = (
    "SLURM_JOB_ID",
    # Tells a later attempt from an earlier one whose containers outlived their client.
    "SLURM_RESTART_COUNT",
    "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_NODELIST",
    "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SUBMITIT_EXECUTOR",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "MINIMIND_EVENTS",
    "LAUNCHER_ATTEMPT",
)
"""What a rank needs to know. Named without a value, so that each task passes on its own."""

IMAGE_FILES = {".sqsh": "enroot", ".squashfs": "enroot", ".sif": "apptainer"}

APPTAINER_SCHEMES = ("docker-daemon:", "docker-archive:", "oci:", "oci-archive:")
"""Apptainer's ways to say where an image lies, besides those with ``://``."""


def mounts(spec: JobSpec) -> list[Mount]:
    """The run folder and the working folder, then what the user asked for."""
    own = [Mount(path, path) for path in (spec.sweep_dir or spec.run_dir, spec.workdir)]
    taken = {mount.target for mount in spec.mounts}
    return [mount for mount in own if mount.target not in taken] + list(spec.mounts)


def variables(spec: JobSpec) -> list[str]:
    """Names of the environment variables that must reach the inside of the container."""
    return list(dict.fromkeys([*RANK_VARIABLES, *spec.env]))


def inside_folder(spec: JobSpec) -> str:
    """Where a rank starts: a folder without code, so that ``python -m`` finds the image's own."""
    return f"{spec.run_dir}/submitit"


def label(spec: JobSpec) -> str:
    """The label that every container of this run carries, whichever attempt started it."""
    return f"minimind.run={spec.run_dir}"


def detect(image: str | None, which: Callable[[str], str | None] = shutil.which) -> str:
    """What ``--container auto`` means for ``image`` on this machine; "none" without an image."""
    if image is None:
        return "none"
    for suffix, runtime in IMAGE_FILES.items():
        if image.endswith(suffix):
            return runtime
    if os.path.isdir(image) and which("ch-run"):
        return "charliecloud"
    for program, runtime in (
        ("enroot", "pyxis"),
        ("apptainer", "apptainer"),
        ("docker", "docker"),
        ("podman", "podman"),
    ):
        if which(program):
            return runtime
    return "docker"


def srun_command(spec: JobSpec) -> list[str]:
    """srun, the container around each rank, and the ranks' Python."""
    start = f"{spec.run_dir}/code" if spec.container == "none" else inside_folder(spec)
    binding = [f"--cpus-per-task={spec.cpus_per_gpu}"] if spec.cpus_per_gpu else ["--cpu-bind=none"]
    return [
        "srun",
        "--unbuffered",
        "--export=ALL",
        # One rank's end must not kill the others' last save; the supervisor ends stragglers.
        "--kill-on-bad-exit=0",
        "--wait=0",
        *binding,
        # Python puts the folder it starts in first: here the snapshot of the code.
        f"--chdir={start}",
        *srun_options(spec),
        *command_prefix(spec),
        spec.python,
    ]


def rank_command(spec: JobSpec) -> list[str]:
    """What the supervisor of this spec's job starts: srun and the command of each rank."""
    folder = RunFolder(spec.sweep_dir or spec.run_dir).submitit
    return [*srun_command(spec), *SUBMITIT, str(folder)]


def srun_options(spec: JobSpec) -> list[str]:
    """Options of srun itself: pyxis is a plugin of it, the others are commands."""
    if spec.container != "pyxis":
        return []
    assert spec.image is not None
    joined = ",".join(
        f"{m.source}:{m.target}" + (":ro" if m.read_only else "") for m in mounts(spec)
    )
    return [
        f"--container-image={enroot_name(spec.image)}",
        f"--container-mounts={joined}",
        f"--container-workdir={inside_folder(spec)}",
        "--no-container-mount-home",
        # Variables that the image sets too would otherwise win over the job's.
        f"--container-env={','.join(variables(spec))}",
        *spec.container_args,
    ]


def command_prefix(spec: JobSpec) -> list[str]:
    """The words before ``python …`` that put a rank into its container."""
    builder: dict[str, Callable[[JobSpec], list[str]]] = {
        "enroot": _enroot,
        "apptainer": _apptainer,
        "docker": _docker,
        "podman": _podman,
        "charliecloud": _charliecloud,
    }
    return builder[spec.container](spec) if spec.container in builder else []


def sweep_command(spec: JobSpec) -> list[str]:
    """Removes containers that an earlier attempt left on a node; empty where none can stay.

    A container outlives a client that was killed with SIGKILL where a daemon or a monitor of
    its own holds it: docker and podman.
    """
    if spec.container not in ("docker", "podman"):
        return []
    script = 'ids=$("$1" ps -aq --filter "label=$2"); [ -z "$ids" ] || "$1" rm -f $ids'
    return ["sh", "-c", script, "sweep", spec.container, label(spec)]


def _pairs(option: str, values: Iterable[object]) -> list[str]:
    return [word for value in values for word in (option, str(value))]


def _enroot(spec: JobSpec) -> list[str]:
    assert spec.image is not None
    return [
        "enroot",
        "start",
        *_pairs("--mount", map(_enroot_mount, mounts(spec))),
        *_pairs("--env", variables(spec)),
        *spec.container_args,
        spec.image,
    ]


def _enroot_mount(mount: Mount) -> str:
    """The fields of an fstab line, separated by colons (enroot's doc/cmd/start.md)."""
    flags = "x-create=auto,rbind" + (",ro" if mount.read_only else "")
    return f"{mount.source}:{mount.target}:none:{flags}"


def _apptainer(spec: JobSpec) -> list[str]:
    assert spec.image is not None
    image = spec.image
    if not image.startswith(("/", *APPTAINER_SCHEMES)) and "://" not in image:
        # Without a scheme Apptainer takes a reference for a file.
        image = f"docker://{image}"
    return [
        "apptainer",
        "exec",
        *(["--nv"] if spec.request_gpus else []),
        *_pairs("--bind", mounts(spec)),
        "--pwd",
        inside_folder(spec),
        *spec.container_args,
        image,
    ]


def _oci(spec: JobSpec, runtime: str, options: list[str], gpus: str) -> list[str]:
    assert spec.image is not None
    return [
        runtime,
        "run",
        "--rm",
        "--init",
        # NCCL and gloo between ranks need the host's network and shared memory.
        "--network=host",
        "--ipc=host",
        *options,
        *([gpus] if spec.request_gpus else []),
        "--label",
        label(spec),
        *_pairs("--volume", mounts(spec)),
        *_pairs("--env", variables(spec)),
        "--workdir",
        inside_folder(spec),
        "--entrypoint",
        "",
        *spec.container_args,
        spec.image,
    ]


def _docker(spec: JobSpec) -> list[str]:
    # Files in the run folder must belong to the user, who may be nobody the image knows.
    options = [f"--user={spec.user}", "--env=HOME=/tmp"] if spec.user else []
    return _oci(spec, "docker", options, "--gpus=all")


def _podman(spec: JobSpec) -> list[str]:
    return _oci(spec, "podman", [], "--device=nvidia.com/gpu=all")


def _charliecloud(spec: JobSpec) -> list[str]:
    assert spec.image is not None
    binds = [f"{mount.source}:{mount.target}" for mount in mounts(spec)]
    inside = ["--cd", inside_folder(spec), *spec.container_args, spec.image]
    return ["ch-run", *_pairs("--bind", binds), *inside, "--"]
