"""Command line, profile and site → a validated JobSpec. Everything wrong is found here."""

from __future__ import annotations

import contextlib
import glob
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.containers import runtimes as container
from launcher.slurm import client as slurm
from launcher.slurm.client import Partition, Site
from launcher.slurm.sbatch import GPU
from launcher.spec.checks import check_name, check_path, check_writable
from launcher.spec.devices import Devices, devices_of
from launcher.spec.elastic import accumulation_of, allocated_nodes, check_node_counts
from launcher.spec.job_spec import JobSpec
from launcher.spec.options import DEFAULT_DEVICE, TRAIN_MODULE, spec_values
from launcher.spec.profile import load_profile
from launcher.spec.run_folder import RunFolder
from launcher.spec.train_flags import complete_train_args
from minimind.errors import ConfigError
from minimind.rundir import env
from minimind.system.drivers import makers_here

_IN_PROFILE = ' (in a profile: cluster = "local")'
"""For doctor and drill, which have no such flag."""


def runs_folder(given: str | None, profile: Mapping[str, Any]) -> Path:
    """Where runs lie: ``--runs-dir``, the profile, ``$MINIMIND_RUNS``, else ``./runs``."""
    chosen = given or profile.get("runs_dir") or os.environ.get(env.RUNS) or "runs"
    return Path(os.path.abspath(os.path.expanduser(chosen)))


def runs_dir_flag(run: RunFolder) -> str:
    """What a command needs besides the name to find ``run``: `` --runs-dir DIR``, mostly nothing.

    The flag or profile that put it elsewhere was given to another command.
    """
    folder = run.root.parents[run.name.count("/")]
    with contextlib.suppress(ConfigError):
        if folder == runs_folder(None, load_profile(None)):
            return ""
    return f" --runs-dir {shlex.quote(str(folder))}"


def default_name() -> str:
    """A name that sorts by the time of submission."""
    return time.strftime("pretrain-%Y%m%d-%H%M%S")


def resolve(given: Mapping[str, Any], train_args: list[str]) -> JobSpec:
    """The validated spec of what a command line gave, with its profile and this site.

    Raises:
        ConfigError: the first thing that cannot work, with what to change.
    """
    profile = load_profile(given["profile"])
    asked = given["cluster"] or profile.get("cluster", "auto")
    cluster, site = find_cluster(asked, dry_run=given.get("dry_run", False))
    return build_spec(given, train_args, profile, cluster=cluster, site=site)


def build_spec(
    options: Mapping[str, Any],
    train_args: list[str],
    profile: Mapping[str, Any],
    *,
    cluster: str,
    site: Site | None,
) -> JobSpec:
    """Merges what was given; a flag (not None) wins over the profile.

    Raises:
        ConfigError: the first thing that cannot work, with what to change.
    """

    name = options.get("name") or default_name()
    check_name(name)
    runs = runs_folder(options.get("runs_dir"), profile)
    check_path(str(runs), "--runs-dir")
    run_dir = runs / name
    check_writable(run_dir)
    values = spec_values(options, profile, os.environ if cluster == "slurm" else None)
    image, runtime = _find_image(values.get("image"), values.get("container", "auto"))
    python = values.get("python", sys.executable if runtime == "none" else "python3")
    module = options.get("module") or TRAIN_MODULE
    arguments, save_dir, on_cpu = complete_train_args(train_args, run_dir, module)
    devices = site_devices(profile, cluster)
    if profile.get("device") and module == TRAIN_MODULE:
        _check_kind(arguments, devices)
    values |= {
        "name": name,
        "cluster": cluster,
        "image": image,
        "container": runtime,
        "env": _interface(profile, devices) | values["env"],
        "device": _maker(profile, cluster),
        "python": _find_python(python, runtime),
        "module": module,
    }
    spec = JobSpec(
        **values,
        run_dir=str(run_dir),
        workdir=os.getcwd(),
        train_args=tuple(arguments),
        save_dir=save_dir,
        request_gpus=not on_cpu,
        user=f"{os.getuid()}:{os.getgid()}",
        host_python=sys.executable,
        expedite=site is not None and site.expedites,
    )
    if spec.min_nodes is not None:
        spec = replace(spec, accumulation_steps=accumulation_of(arguments, module))
        check_node_counts(spec)
    if cluster == "slurm" and site is not None:
        check_site(spec, site)
    return spec


def find_cluster(asked: str, *, dry_run: bool = False) -> tuple[str, Site | None]:
    """The cluster that ``auto`` or a name means here, and what it has where Slurm answers.

    A dry run needs no Slurm: its script may be meant for another machine.

    Raises:
        ConfigError: there is no such cluster, or not here, or not now.
    """
    if asked not in ("auto", "slurm", "local"):
        raise ConfigError(f"--cluster {asked}: choose auto, slurm or local")
    here = slurm.available()
    cluster = asked if asked != "auto" else "slurm" if here or dry_run else "local"
    if cluster == "local":
        return cluster, None
    if not here and not dry_run:
        raise ConfigError(f"there is no sbatch on this machine; use --cluster local{_IN_PROFILE}")
    site = slurm.read_site() if here else None
    if site is None and not dry_run:
        raise ConfigError(
            f"Slurm's controller does not answer; try again, or --cluster local{_IN_PROFILE}"
        )
    return cluster, site


def job_spec(
    name: str, options: dict[str, Any], profile: dict[str, Any], module: str, train: list[str]
) -> JobSpec:
    """The spec of a job of the launcher's own (doctor, drill): site and cluster as for a run."""
    cluster, site = find_cluster(profile.get("cluster", "auto"))
    given = {"name": name, "module": module, "hang_timeout": 600, "max_restarts": 0, **options}
    return build_spec(given, train, profile, cluster=cluster, site=site)


def unseen_data(spec: JobSpec) -> list[str]:
    """The paths of ``--data_path``, as they were given, at which this machine has nothing.

    Where a container has a path from nobody knows whence, nothing is said of it.
    """
    if spec.module != TRAIN_MODULE:
        return []
    from minimind.config import parse_args
    from minimind.rundir.data_path import parse_sources

    words = parse_args(spec.train_args).data_path
    sources = parse_sources(words)
    paths = words if sources is None else [source.path for source in sources]
    return [path for path in paths if _is_unseen(spec, os.path.expanduser(path))]


def _is_unseen(spec: JobSpec, path: str) -> bool:
    here = container.host_path(spec, path)
    if here is None or os.path.lexists(here):
        return False
    return not (glob.has_magic(str(here)) and glob.glob(str(here), recursive=True))


def site_devices(profile: Mapping[str, Any], cluster: str) -> Devices:
    """The accelerators of the site."""
    return devices_of(_maker(profile, cluster), profile.get("device_options", {}))


def _maker(profile: Mapping[str, Any], cluster: str) -> str:
    """Whose they are: the profile says it, or this machine's own files if the run is to be here.

    A login node has none of the devices of its cluster.
    """
    here = makers_here() if cluster == "local" else []
    return profile.get("device") or (here[0] if here else DEFAULT_DEVICE)


def _check_kind(train_args: list[str], devices: Devices) -> None:
    """Raises ConfigError for a ``--device`` that the site's nodes lack, as its profile has it."""
    from minimind.config import parse_args

    asked = parse_args(train_args).device
    if asked and asked.partition(":")[0] not in ("cpu", devices.kind):
        raise ConfigError(
            f"--device {asked}: the profile says that this site has {devices.name}s, which torch "
            f"calls {devices.kind}; leave --device out, or say --device {devices.kind}"
        )


def _interface(profile: Mapping[str, Any], devices: Devices) -> dict[str, str]:
    """What the exchange between devices, and gloo, know the ``network_interface`` by."""
    interface = profile.get("network_interface")
    names = (devices.network_interface, "GLOO_SOCKET_IFNAME")
    return {name: interface for name in names if interface}


def read_secrets(spec: JobSpec) -> dict[str, str]:
    """The values of ``--secret-env`` from this process's environment.

    Raises:
        ConfigError: one of them is not set.
    """
    missing = [name for name in spec.secret_env if name not in os.environ]
    if missing:
        raise ConfigError(f"--secret-env {missing[0]}: set this variable before submitting")
    return {name: os.environ[name] for name in spec.secret_env}


def _find_image(image: str | None, runtime: str) -> tuple[str | None, str]:
    """The image and the runtime that starts it; a file or folder by its absolute path.

    Ranks start in another folder than this one, and no shell expands a ``~`` for them.

    Raises:
        ConfigError: there is no such file, or the runtime starts none.
    """
    path = os.path.abspath(os.path.expanduser(image or ""))
    is_path = image is not None and image.startswith(("/", "./", "../", "~"))
    if runtime == "auto":
        runtime = container.detect(path if is_path else image)
    entry = container.RUNTIMES.get(runtime)
    if image is None or entry is None:
        return image, runtime
    starts_files = not entry.is_engine
    # A folder that has an image's name by chance is none to the other runtimes.
    if (starts_files and os.path.isfile(path)) or (entry.starts_folders and os.path.isdir(path)):
        return path, runtime
    is_path = is_path or container.is_image_file(image) or runtime == "charliecloud"
    if is_path and not os.path.exists(path):
        raise ConfigError(f"--image {image}: no such file")
    if runtime == "enroot":
        raise ConfigError(
            f"--image {image}: enroot starts a file; make one with "
            f"`launcher image import {image} --container enroot`"
        )
    if is_path and starts_files:
        raise ConfigError(f"--image {image}: {runtime} starts a file, and this is a folder")
    if is_path:
        raise ConfigError(f"--image {image}: {runtime} knows images by name, not by path")
    return image, runtime


def _find_python(python: str, runtime: str) -> str:
    """``python`` by its absolute path, unless it is a name: ranks start in another folder."""
    if "/" not in python:
        return python
    path = os.path.abspath(os.path.expanduser(python))
    if runtime == "none" and not os.path.isabs(python) and not os.path.isfile(path):
        raise ConfigError(f"--python {python}: no such file")
    return path


def check_site(spec: JobSpec, site: Site) -> None:
    """Raises ConfigError for what this cluster would refuse or leave pending for ever."""
    partition = _partition(spec, site)
    if partition is None:
        return
    where = f"partition {partition.name}"
    if allocated_nodes(spec) > partition.nodes:
        spare = f" and --spare-nodes {spec.spare_nodes}" if spec.spare_nodes else ""
        raise ConfigError(f"--nodes {spec.nodes}{spare}: {where} has {partition.nodes}")
    if spec.request_gpus:
        _check_devices(spec, partition.devices(spec.devices.gres), where)
    cpus = spec.gpus * (spec.cpus_per_gpu or 1)
    if partition.cpus is not None and cpus > partition.cpus:
        raise ConfigError(
            f"{spec.gpus} ranks × {spec.cpus_per_gpu or 1} CPUs are {cpus} CPUs a node; "
            f"a node of {where} has at most {partition.cpus}"
        )
    limit = partition.max_minutes
    if spec.time_minutes is not None and limit is not None and spec.time_minutes > limit:
        raise ConfigError(
            f"--time: {spec.time_minutes} minutes, but {where} allows {limit}; a run continues "
            "over as many time limits as it needs, so ask for less"
        )


def _check_devices(spec: JobSpec, most: int, where: str) -> None:
    """Raises ConfigError for more devices than the ``most`` that a node has."""
    unit, gres = spec.devices.unit, spec.devices.gres
    if most == 0:
        called = "" if gres == GPU else f" (gres {gres})"
        raise ConfigError(
            f"--gpus {spec.gpus}: the nodes of {where} have no {unit}s{called}; choose another "
            "--partition, or train on CPUs with `-- --device cpu`"
        )
    if spec.gpus > most:
        raise ConfigError(
            f"--gpus {spec.gpus}: a node of {where} has at most {most}; "
            "ask for more --nodes instead"
        )


def _partition(spec: JobSpec, site: Site) -> Partition | None:
    if spec.partition is None:
        return site.default()
    if "," in spec.partition:
        return None
    if spec.partition not in site.partitions:
        known = ", ".join(sorted(site.partitions)) or "none"
        raise ConfigError(f"--partition {spec.partition}: not on this cluster; choose {known}")
    return site.partitions[spec.partition]
