from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from launcher.containers.image import record_path
from launcher.spec.job_spec import JobSpec
from launcher.submit.snapshot import image_identity, snapshot_code


def test_snapshot_is_the_code_and_nothing_else(tmp_path: Path) -> None:
    snapshot_code(tmp_path / "code")
    assert (tmp_path / "code" / "minimind" / "train_pretrain.py").exists()
    assert (tmp_path / "code" / "launcher" / "supervise" / "slurm.py").exists()
    assert not list((tmp_path / "code").rglob("__pycache__"))
    (tmp_path / "code" / "stale").touch()
    snapshot_code(tmp_path / "code")
    assert not (tmp_path / "code" / "stale").exists()


def test_an_imported_image_is_recorded_with_its_origin(
    make_spec: Callable[..., JobSpec], tmp_path: Path
) -> None:
    image = tmp_path / "minimind.sif"
    image.write_bytes(b"image")
    origin = {"reference": "a/b:1", "runtime": "apptainer", "digest": "sha256:1", "sha256": None}
    record_path(image).write_text(json.dumps(origin))
    found = image_identity(make_spec(image=str(image), container="apptainer"))
    assert found["origin"] == origin
    assert found["bytes"] == 5
