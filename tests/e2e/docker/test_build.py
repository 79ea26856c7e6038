"""How the image is built, and what is in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.docker.conftest import PASSWORD, Builder
from tests.e2e.docker.engine import Engine

TAG = "minimind-test:1"


@pytest.fixture(scope="module", autouse=True)
def built(builder: Builder, image: str) -> None:
    """These tests are about an image that this session has built."""
    if image != TAG:
        builder.build(TAG, VERSION="7.8.9", REVISION="abc123")


def inspect(engine: Engine, image: str) -> dict[str, Any]:
    (found,) = json.loads(engine.ok("image", "inspect", image))
    return dict(found)


def test_configuration(engine: Engine) -> None:
    config = inspect(engine, TAG)["Config"]
    labels = {key.rpartition(".")[2]: value for key, value in config["Labels"].items()}
    assert labels["version"] == "7.8.9"
    assert labels["revision"] == "abc123"
    assert labels["licenses"] == "Apache-2.0"
    assert config["User"].split(":")[0] not in ("", "0", "root")
    assert set(config["Volumes"]) == {"/data", "/runs"}
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert "compute" in environment["NVIDIA_DRIVER_CAPABILITIES"]


def test_code_change_reuses_the_dependency_layers(builder: Builder, engine: Engine) -> None:
    changed = builder.sources / "minimind" / "__init__.py"
    original = changed.read_text()
    try:
        changed.write_text(original + "\nCHANGED_FOR_TEST = True\n")
        said = builder.build("minimind-test:changed")
    finally:
        changed.write_text(original)
    before = inspect(engine, TAG)["RootFS"]["Layers"]
    after = inspect(engine, "minimind-test:changed")["RootFS"]["Layers"]
    differing = [i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    sizes = [entry.strip() for entry in history(engine, "{{.Size}}\t{{.CreatedBy}}", TAG)]
    assert differing == [len(before) - 1], "\n".join(sizes)
    assert "Downloading" not in said
    code = "import minimind; print(minimind.CHANGED_FOR_TEST)"
    assert engine.ok(*RUN, "minimind-test:changed", "python", "-c", code).strip() == "True", (
        "the new code is not in the image"
    )


def test_changed_lock_reuses_the_torch_layer(builder: Builder, image: str) -> None:
    """Another version of any package but torch's own leaves the largest layer as it is.

    It is one that nobody has: the build ends there, minutes before a whole one would.
    """
    lock = builder.sources / "requirements.lock"
    original = lock.read_text()
    changed = re.sub("^setuptools==.*$", "setuptools==99999", original, flags=re.MULTILINE)
    try:
        lock.write_text(changed)
        done = builder.try_to_build("minimind-test:lock")
    finally:
        lock.write_text(original)
    # A step's output comes in several pieces where other steps' came between.
    steps = [piece for piece in done.stdout.split("\n\n") if piece.startswith("#")]
    (torch,) = [step for step in steps if "--requirement torch.lock" in step]
    assert "CACHED" in torch
    others = [step for step in steps if "/build[train,data]" in step and "[dependencies" in step]
    assert others
    assert not any("CACHED" in step for step in others)
    assert done.returncode != 0
    assert "setuptools==99999" in done.stdout


def history(engine: Engine, format: str, image: str) -> list[str]:
    return engine.ok("history", "--no-trunc", "--format", format, image).splitlines()


RUN = ("run", "--rm", "--network=none")


def test_no_secret_anywhere(builder: Builder, engine: Engine, tmp_path: Path) -> None:
    assert f"builder:{PASSWORD}" in builder.site.passwords_seen, "the secret was not even used"
    assert PASSWORD not in "\n".join(history(engine, "{{.CreatedBy}}", TAG))
    assert PASSWORD not in json.dumps(inspect(engine, TAG))
    archive = tmp_path / "image.tar"
    engine.ok("save", "--output", str(archive), TAG, timeout=600)
    needles = [PASSWORD.encode()]
    with tarfile.open(archive) as outer:
        for member in outer:
            file = outer.extractfile(member)
            if file is None:
                continue
            # A password could stand across two chunks: keep the end of the one before.
            tail = b""
            while chunk := file.read(1 << 24):
                assert not any(needle in tail + chunk for needle in needles), member.name
                tail = chunk[-64:]


def test_nothing_superfluous(builder: Builder, engine: Engine) -> None:
    listing = engine.ok(
        *(*RUN, "--user=0", "--entrypoint=", TAG, "find", "/", "-xdev", "-type", "f"), timeout=600
    ).splitlines()
    ours = [path for path in listing if "/site-packages/minimind/" in path]
    assert any(path.endswith("/minimind/model/modeling_minimind.py") for path in ours)
    assert any("/site-packages/launcher/cli/main.py" in path for path in listing)
    folders = ("/root/.cache/", "/tmp/", "/build/", "/run/secrets", "/data/", "/runs/")
    caches = ("/var/lib/apt/lists/", "/var/cache/apt/archives/")
    superfluous = [
        path
        for path in listing
        if path.startswith(folders + caches)
        or "/tests/unit/" in path
        or path.endswith(("pip.conf", ".whl", "/docker/Dockerfile"))
    ]
    wheels_of_ensurepip = "/usr/share/python-wheels/"
    assert [p for p in superfluous if not p.startswith(wheels_of_ensurepip)] == []


def test_bad_variant_is_refused(builder: Builder) -> None:
    with pytest.raises(AssertionError, match="TORCH_VARIANT must be cuda or cpu, not rocm"):
        builder.build("minimind-test:bad", TORCH_VARIANT="rocm")


def test_build_needs_buildkit(tmp_path: Path, builder: Builder) -> None:
    """Without a client that can build, one line says what to install."""
    fake = tmp_path / "docker"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Docker version 28.1.0, build x"\n')
    fake.chmod(0o755)
    for program in ("bash", "sh", "sed", "dirname"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    done = subprocess.run(
        [builder.sources / "docker" / "build.sh"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "install docker-buildx" in done.stderr
