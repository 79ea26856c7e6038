"""``image import``: from an OCI image to what a site's runtime starts, with its origin beside it.

enroot and pyxis start a squashfs file, apptainer a SIF file, charliecloud a folder. The tools
of the runtimes do the work; here is which, and what they were given.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from launcher.containers.runtimes import RUNTIMES, enroot_name
from minimind.errors import ConfigError
from minimind.system.digest import sha256_of
from minimind.system.durable import sync_file, take_name, write_text_durably
from minimind.system.ownership import is_private, user_on

RECORD_SUFFIX = ".origin.json"

_PINNED = re.compile(r"@(sha256:[0-9a-f]{64})$")


@dataclass(frozen=True)
class Origin:
    """Where an imported image came from."""

    reference: str
    runtime: str
    digest: str | None
    """The OCI image's own digest, where docker or the reference tells it."""

    sha256: str | None
    """The imported file's; none for a folder."""


def import_image(
    reference: str,
    runtime: str,
    target: Path | None = None,
    which: Callable[[str], str | None] = shutil.which,
) -> tuple[Path, Origin]:
    """Imports ``reference`` for ``runtime`` to ``target``, and writes its origin beside it.

    An image that the local docker engine has is taken from there, any other from its registry.
    The target appears only when it is complete.

    Raises:
        ConfigError: the runtime needs no import, its tool is missing or fails, or the target is
            there already.
    """
    importable = [name for name, entry in RUNTIMES.items() if entry.import_tool]
    if runtime not in importable:
        raise ConfigError(
            f"--container {runtime}: nothing to import; choose {', '.join(importable)}"
        )
    tool = RUNTIMES[runtime].import_tool
    if which(tool) is None:
        raise ConfigError(f"--container {runtime}: {tool} is not installed on this machine")
    target = Path(
        os.path.abspath(target or default_name(reference) + RUNTIMES[runtime].imported_suffix)
    )
    if target.exists():
        raise ConfigError(f"{target} exists: remove it, or name another with --out")
    engine = which("docker")
    local = local_digest(engine, reference) if engine else None
    if runtime == "charliecloud" and local is None:
        raise ConfigError(f"{reference}: not in the local docker engine; docker pull it first")
    folder = _fresh_folder(target)
    partial = folder / target.name
    try:
        done = subprocess.run(import_command(reference, runtime, partial, local is not None))
        if done.returncode:
            raise ConfigError(
                f"{tool} could not import {reference} (exit status {done.returncode})"
            )
        pinned = _PINNED.search(reference)
        origin = Origin(
            reference=reference,
            runtime=runtime,
            digest=local or (pinned[1] if pinned else None),
            sha256=f"sha256:{sha256_of(partial).hexdigest()}" if partial.is_file() else None,
        )
        if partial.is_file():
            sync_file(partial)
        write_text_durably(record_path(target), json.dumps(asdict(origin), indent=2) + "\n")
        take_name(partial, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target, origin


def _fresh_folder(target: Path) -> Path:
    """A folder of our own beside ``target``, in place of what a killed import left.

    The tool writes to whatever has the name that it is given: nobody else may lay a link there.

    Raises:
        ConfigError: it cannot be made, or what is there is not ours.
    """
    folder = target.with_name(f".partial-{target.name}")
    try:
        if os.path.lexists(folder) and is_private(os.lstat(folder), user_on(folder.parent)):
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"{folder}: {error.strerror}; remove it, or choose another --out"
        ) from None
    return folder


def import_command(reference: str, runtime: str, target: Path, local: bool) -> list[str]:
    """The command that makes ``target``; ``local``: from the docker engine of this machine."""
    tool = RUNTIMES[runtime].import_tool
    if runtime == "charliecloud":
        return [tool, "-i", "docker", "-o", "dir", reference, str(target)]
    if runtime == "apptainer":
        source = f"docker-daemon:{with_tag(reference)}" if local else f"docker://{reference}"
        return [tool, "build", str(target), source]
    source = f"dockerd://{reference}" if local else f"docker://{enroot_name(reference)}"
    return [tool, "import", "--output", str(target), source]


def with_tag(reference: str) -> str:
    """``reference`` with the tag that docker means where none is given."""
    last = reference.rpartition("/")[2]
    return reference if ":" in last or "@" in last else f"{reference}:latest"


def default_name(reference: str) -> str:
    """A file name for ``reference``: ``host/team/minimind:1.0`` → ``minimind-1.0``."""
    last = _PINNED.sub("", reference).rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]", "-", last)


def local_digest(engine: str, reference: str) -> str | None:
    """The digest of an image that docker or podman has here; None: it has no such image."""
    answer = subprocess.run(
        [engine, "image", "inspect", "--format", "{{.Id}}", reference],
        capture_output=True,
        text=True,
    )
    return answer.stdout.strip() if answer.returncode == 0 else None


def record_path(image: Path) -> Path:
    """Where the origin of an imported image is written."""
    return image.with_name(image.name + RECORD_SUFFIX)


def read_origin(image: Path) -> Origin | None:
    """What ``import_image`` wrote beside ``image``; None where there is nothing to read."""
    try:
        return Origin(**json.loads(record_path(image).read_text()))
    except (OSError, ValueError, TypeError):
        return None
