"""What a run keeps of the moment of its submission: the code, and which image it was."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from launcher.containers.image import local_digest, read_origin
from launcher.containers.runtimes import RUNTIMES
from launcher.spec.job_spec import JobSpec
from launcher.spec.trust import make_private
from minimind.errors import ConfigError
from minimind.system.durable import folder_when_done

SNAPSHOT_PACKAGES = ("launcher", "minimind")


def snapshot_code(target: Path) -> None:
    """Copies the launcher and the training core: what every attempt of a run runs.

    Edits and updates after the submission do not reach a run that waits or restarts.
    """
    remove_earlier = partial(shutil.rmtree, target, ignore_errors=True)
    with folder_when_done(target, before_rename=remove_earlier) as fresh:
        make_private(fresh)
        for package in SNAPSHOT_PACKAGES:
            found = importlib.util.find_spec(package)
            if found is None or not found.submodule_search_locations:
                raise ConfigError(f"the package {package} is not installed; run `make setup`")
            source = Path(next(iter(found.submodule_search_locations)))
            shutil.copytree(
                source, fresh / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )


def image_identity(spec: JobSpec) -> dict[str, Any]:
    """What the image was at submission: the file's size and time, or the digest, if known."""
    if spec.image is None:
        return {}
    path = Path(spec.image)
    if path.exists():
        status = path.stat()
        found = {"image": spec.image, "bytes": status.st_size, "modified": status.st_mtime}
        origin = read_origin(path)
        return found | ({"origin": asdict(origin)} if origin else {})
    if RUNTIMES[spec.container].is_engine and shutil.which(spec.container):
        digest = local_digest(spec.container, spec.image)
        return {"image": spec.image} | ({"digest": digest} if digest is not None else {})
    return {"image": spec.image}
