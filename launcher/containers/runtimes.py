"""One image, many runtimes: the words that go around the command of a rank.

Pure functions from a JobSpec to argument lists. Every rank has its own container; the run
folder and the working folder are seen under the same paths inside as outside. Standard library
only: the host side of a job makes its commands here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from launcher.slurm.sbatch import SUBMITIT
from launcher.spec.job_spec import JobSpec
from launcher.spec.mount import Mount
from launcher.spec.run_folder import RunFolder
from minimind.rundir import env

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
    # The first rank reports it: by this number the supervisor signals them all.
    "SLURM_STEP_ID",
    # So that the ranks of a node share its processors.
    "SLURM_CPUS_ON_NODE",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SUBMITIT_EXECUTOR",
    *env.PLACE,
    env.MASTER_ADDR,
    env.MASTER_PORT,
    "OMP_NUM_THREADS",
)
"""A rank's place in the job. Named without a value, so that each task passes on its own."""

APPTAINER_SCHEMES = ("docker-daemon:", "docker-archive:", "oci:", "oci-archive:")
"""Apptainer's ways to say where an image lies, besides those with ``://``."""


def mounts(spec: JobSpec) -> list[Mount]:
    """The run folder, the working folder and the devices' driver, then what the user asked for."""
    own = [Mount(path, path) for path in (spec.sweep_dir or spec.run_dir, spec.workdir)]
    driver = spec.devices.driver_files if spec.request_gpus else ()
    own += [Mount(path, path, read_only=True) for path in driver]
    taken = {mount.target for mount in spec.mounts}
    return [mount for mount in own if mount.target not in taken] + list(spec.mounts)


def host_path(spec: JobSpec, path: str) -> Path | None:
    """Where this host has what a rank of ``spec`` sees as ``path``; None: nobody knows.

    ``path``: absolute, or as seen from the working folder.
    """
    seen = Path(os.path.normpath(os.path.join(spec.workdir, path)))
    if spec.container == "none":
        return seen
    around = [mount for mount in mounts(spec) if seen.is_relative_to(mount.target)]
    if not around:
        return None
    mount = max(around, key=lambda mount: len(mount.target))
    folders = [
        str(folder) for folder in (seen, *seen.parents) if folder.is_relative_to(mount.target)
    ]
    if any(folder in word for word in spec.container_args for folder in folders):
        # An argument of the user's own puts something else there, perhaps.
        return None
    return Path(mount.source, seen.relative_to(mount.target))


def variables(spec: JobSpec) -> list[str]:
    """Names of the environment variables that must reach the inside of the container."""
    devices, run = spec.devices.visible_devices, (env.EVENTS, env.ATTEMPT)
    return list(dict.fromkeys([*RANK_VARIABLES, *devices, *run, *spec.env]))


def inside_folder(spec: JobSpec) -> str:
    """Where a rank starts: a folder without code, so that ``python -m`` finds the image's own."""
    return f"{spec.run_dir}/submitit"


def label(spec: JobSpec) -> str:
    """The label that every container of this run carries, whichever attempt started it."""
    return f"minimind.run={spec.run_dir}"


def command_prefix(spec: JobSpec) -> list[str]:
    """The words before ``python …`` that put a rank into its container."""
    runtime = RUNTIMES.get(spec.container)
    return runtime.command(spec) if runtime else []


def srun_words(spec: JobSpec) -> list[str]:
    """srun, as it starts the ranks of any run."""
    binding = [f"--cpus-per-task={spec.cpus_per_gpu}"] if spec.cpus_per_gpu else ["--cpu-bind=none"]
    return [
        "srun",
        "--unbuffered",
        "--export=ALL",
        # One rank's end must not kill the others' last save; the supervisor ends stragglers.
        "--kill-on-bad-exit=0",
        "--wait=0",
        *binding,
    ]


def srun_command(spec: JobSpec) -> list[str]:
    """srun, the container around each rank, and the ranks' Python."""
    return [*srun_words(spec), f"--chdir={start_folder(spec)}", *in_container(spec)]


def start_folder(spec: JobSpec) -> str:
    """Where a rank starts: Python puts that first, and here it is the snapshot of the code."""
    return f"{spec.run_dir}/code" if spec.container == "none" else inside_folder(spec)


def in_container(spec: JobSpec) -> list[str]:
    """What srun is given after its own words: the container, and the ranks' Python in it."""
    return [*srun_options(spec), *command_prefix(spec), spec.python]


def starts_at_once(spec: JobSpec) -> bool:
    """Whether a container starts without fetching its image: pyxis does that for every step."""
    return spec.container != "pyxis" or (spec.image or "").startswith(("/", "."))


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
        *device_flags(spec),
        *spec.container_args,
    ]


def sweep_command(spec: JobSpec) -> list[str]:
    """Removes containers that an earlier attempt left on a node; empty where none can stay.

    A container outlives a client that was killed with SIGKILL where a daemon or a monitor of
    its own holds it: docker and podman.
    """
    return _of_all(spec, 'ids=$("$1" ps -aq --filter "label=$2"); [ -z "$ids" ] || "$1" rm -f $ids')


def paused_command(spec: JobSpec) -> list[str]:
    """Lists the run's containers that are paused; empty where the runtime has no such thing."""
    return _of_all(spec, _PAUSED)


def unpause_command(spec: JobSpec) -> list[str]:
    """Lets the run's paused containers go on; empty where the runtime has no such thing."""
    return _of_all(spec, f'ids=$({_PAUSED}); [ -z "$ids" ] || "$1" unpause $ids')


_PAUSED = '"$1" ps -aq --filter "label=$2" --filter status=paused'


def _of_all(spec: JobSpec, script: str) -> list[str]:
    """``script``, with the engine as ``$1`` and the label of the run's containers as ``$2``."""
    if spec.container not in RUNTIMES or not RUNTIMES[spec.container].is_engine:
        return []
    return ["sh", "-c", script, "sweep", spec.container, label(spec)]


def device_flags(spec: JobSpec) -> list[str]:
    """What a profile's runtime needs to give a container the devices, besides files."""
    return list(spec.devices.container_flags.get(spec.container, ())) if spec.request_gpus else []


def _pairs(option: str, values: Iterable[object]) -> list[str]:
    return [word for value in values for word in (option, str(value))]


def _enroot(spec: JobSpec) -> list[str]:
    assert spec.image is not None
    return [
        "enroot",
        "start",
        *_pairs("--mount", map(_enroot_mount, mounts(spec))),
        *_pairs("--env", variables(spec)),
        *device_flags(spec),
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
        *device_flags(spec),
        *_pairs("--bind", mounts(spec)),
        "--pwd",
        inside_folder(spec),
        *spec.container_args,
        image,
    ]


def _oci(spec: JobSpec, runtime: str, options: list[str]) -> list[str]:
    assert spec.image is not None
    return [
        *_engine_run(spec, runtime),
        "--rm",
        "--init",
        # NCCL and gloo between ranks need the host's network and shared memory.
        "--network=host",
        "--ipc=host",
        *options,
        *device_flags(spec),
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


def _engine_run(spec: JobSpec, runtime: str) -> list[str]:
    """``docker run``, with the device files of the node that it runs on.

    How many there are only the node knows, and no engine takes a pattern. A file is a group's, so
    a rank keeps the groups that its user has there, whose numbers no image knows.
    """
    files = spec.devices.device_files if spec.request_gpus else ()
    if not files:
        return [runtime, "run"]
    script = (
        f'for file in {" ".join(files)}; do set -- "--device=$file" "$@"; done; '
        f'{GROUPS[runtime]} exec "$0" run "$@"'
    )
    return ["sh", "-c", script, runtime]


GROUPS = {
    "docker": 'for group in $(id -G); do set -- "--group-add=$group" "$@"; done;',
    "podman": 'set -- --group-add=keep-groups "$@";',
}
"""Shell words that give a container's user the groups of the node's."""


def _docker(spec: JobSpec) -> list[str]:
    return _oci(spec, "docker", _as_user(spec))


def _podman(spec: JobSpec) -> list[str]:
    # Without root's rights the user is root inside and nobody else: only this mapping has the
    # same number on both sides. Root itself is outside who it is inside, and has no such mapping.
    is_root = (spec.user or "0:").startswith("0:")
    mapping = [] if is_root else ["--userns=keep-id"]
    return _oci(spec, "podman", [*mapping, *_as_user(spec)])


def _as_user(spec: JobSpec) -> list[str]:
    """Files in the run folder must belong to the user, who may be nobody the image knows.

    The image's own user could not write there.
    """
    return [f"--user={spec.user}", "--env=HOME=/tmp"] if spec.user else []


def _charliecloud(spec: JobSpec) -> list[str]:
    assert spec.image is not None
    binds = [f"{mount.source}:{mount.target}" for mount in mounts(spec)]
    overlay = [] if _has_mount_points(spec.image, mounts(spec)) else ["--write-fake"]
    inside = ["--cd", inside_folder(spec), *device_flags(spec), *spec.container_args, spec.image]
    return ["ch-run", *overlay, *_pairs("--bind", binds), *inside, "--"]


def _has_mount_points(image: str, wanted: list[Mount]) -> bool:
    """Whether the folder ``image`` has the target of every mount.

    ch-run shows it read-only, and makes a target only in a layer of memory above it. The host's
    /tmp is seen inside with all that is in it.
    """
    inside = [mount.target for mount in wanted if not Path(mount.target).is_relative_to("/tmp")]
    return all(os.path.lexists(f"{image}{target}") for target in inside)


def _pyxis(spec: JobSpec) -> list[str]:
    """Nothing: it is a plugin of srun, see ``srun_options``."""
    return []


def enroot_name(reference: str) -> str:
    """enroot and pyxis separate a registry from the image by ``#``, not by a slash.

    A path, and what is spelled their way already, stay as they are.
    """
    scheme = "docker://"
    if reference.startswith(scheme):
        return scheme + enroot_name(reference.removeprefix(scheme))
    if "#" in reference or "://" in reference:
        return reference
    registry, slash, rest = reference.partition("/")
    has_registry = slash and ("." in registry or ":" in registry or registry == "localhost")
    return f"{registry}#{rest}" if has_registry else reference


@dataclass(frozen=True)
class Runtime:
    """What one container runtime starts, and by which words."""

    program: str
    """What a machine has that has the runtime."""

    command: Callable[[JobSpec], list[str]]
    """The words before ``python …``."""

    by_name: bool = True
    """It starts images by their reference; the others only files or folders."""

    starts_folders: bool = False
    is_engine: bool = False
    """It keeps images and containers itself: nothing to import, and something to clean up."""

    import_tool: str = ""
    imported_suffix: str = ""
    """The end of an imported file's name; a folder has none."""

    known_by: tuple[str, ...] = ()
    """Ends of files' names that mean this runtime."""

    older_program: str = ""


RUNTIMES = {
    "pyxis": Runtime("enroot", _pyxis, import_tool="enroot", imported_suffix=".sqsh"),
    "enroot": Runtime(
        "enroot",
        _enroot,
        by_name=False,
        import_tool="enroot",
        imported_suffix=".sqsh",
        known_by=(".sqsh", ".squashfs"),
    ),
    "apptainer": Runtime(
        "apptainer",
        _apptainer,
        starts_folders=True,
        import_tool="apptainer",
        imported_suffix=".sif",
        known_by=(".sif",),
        older_program="singularity",
    ),
    "docker": Runtime("docker", _docker, is_engine=True),
    "podman": Runtime("podman", _podman, is_engine=True),
    "charliecloud": Runtime(
        "ch-run", _charliecloud, by_name=False, starts_folders=True, import_tool="ch-convert"
    ),
}
"""In the order in which ``--container auto`` prefers them, and under the names it chooses from."""


def programs() -> list[str]:
    """The programs of all runtimes, each once."""
    found = [name for entry in RUNTIMES.values() for name in (entry.program, entry.older_program)]
    return [name for name in dict.fromkeys(found) if name]


def is_image_file(image: str) -> bool:
    """True for a name that ends as a runtime's files do."""
    return any(image.endswith(entry.known_by) for entry in RUNTIMES.values())


def detect(image: str | None, which: Callable[[str], str | None] = shutil.which) -> str:
    """What ``--container auto`` means for ``image`` on this machine; "none" without an image."""
    if image is None:
        return "none"
    for name, entry in RUNTIMES.items():
        if image.endswith(entry.known_by):
            return name
    if os.path.isdir(image) and which(RUNTIMES["charliecloud"].program):
        return "charliecloud"
    here = (name for name, entry in RUNTIMES.items() if entry.by_name and which(entry.program))
    return next(here, "docker")
