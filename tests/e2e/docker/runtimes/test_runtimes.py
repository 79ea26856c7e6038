"""Two nodes of two ranks under real Slurm, in each container runtime that Debian has."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.containers.image import import_image, read_origin
from launcher.containers.runtimes import command_prefix
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.supervise.host import living_ranks
from tests.e2e.docker.engine import Engine, NoDocker, base_archive
from tests.e2e.docker.runtimes.root import PROGRAMS, Root, held
from tests.e2e.docker.test_cluster import (
    ONE_THREAD,
    PYTHON,
    assert_bit_identical,
    flags,
    interrupt_twice,
    plain,
)
from tests.e2e.lab import Lab
from tests.needs import lacks
from tests.runs import Run

__all__ = ["flags", "plain"]

RUNTIMES = [
    ("trixie", "podman"),
    ("sid", "podman"),
    ("sid", "apptainer"),
    ("trixie", "charliecloud"),
    ("sid", "charliecloud"),
]
IMPORTED_VARIABLE = "MINIMIND_TEST_IMPORTED"
"""Names a folder of images that were imported before, each named after its runtime: the import
for apptainer takes a quarter of an hour on two slow cores."""
SOMEBODY = 1234


@pytest.fixture(scope="session")
def roots(engine: Engine) -> Iterator[Callable[[str], Root]]:
    """Releases by name, each held from its first use on."""
    folder = Path(tempfile.mkdtemp(prefix="minimind-runtimes-"))
    found: dict[str, Root] = {}
    with contextlib.ExitStack() as stack:

        def root(release: str) -> Root:
            if release not in found:
                place = folder / release
                place.mkdir()
                try:
                    found[release] = stack.enter_context(held(release, place, engine))
                except NoDocker as error:
                    lacks(f"no runtimes of {release}: {error}")
            return found[release]

        yield root
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def started(
    engine: Engine,
    image: str,
    roots: Callable[[str], Root],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str, str], str]]:
    """What ``--image`` is for a runtime of a release, made from the image under test."""
    loaded = []

    def make(release: str, runtime: str) -> str:
        root = roots(release)
        if runtime == "podman":
            load(engine, image, root)
            loaded.append(root)
            return image
        given = Path(os.environ.get(IMPORTED_VARIABLE, "/nowhere"), runtime)
        if given.exists():
            return str(given)
        with pytest.MonkeyPatch.context() as patch:
            before = f"{root.programs}{os.pathsep}{Path(engine.client).parent}"
            patch.setenv("PATH", f"{before}{os.pathsep}{os.environ['PATH']}")
            if "DOCKER_HOST" in engine.environment:
                patch.setenv("DOCKER_HOST", engine.environment["DOCKER_HOST"])
            folder = tmp_path_factory.mktemp("imported")
            name = "minimind.sif" if runtime == "apptainer" else "minimind"
            target, origin = import_image(image, runtime, folder / name)
        assert read_origin(target) == origin
        return str(target)

    yield make
    for root in loaded:
        root.run("/usr/bin/podman", "image", "rm", "--force", image)


def load(engine: Engine, image: str, root: Root) -> None:
    """Gives podman the image that docker has."""
    save = subprocess.Popen(
        [engine.client, "save", image], env=engine.environment, stdout=subprocess.PIPE
    )
    load = root.enter("/usr/bin/podman", "load")
    done = subprocess.run(load, stdin=save.stdout, capture_output=True, text=True)
    assert (done.returncode, save.wait()) == (0, 0), done.stderr


@pytest.mark.parametrize(("release", "runtime"), RUNTIMES)
def test_a_run_survives(
    release: str,
    runtime: str,
    slurm: Lab,
    roots: Callable[[str], Root],
    started: Callable[[str, str], str],
    flags: dict[str, Any],
    plain: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Preempted, then killed, then done: bit-identical, and nothing is left. ``why`` says what
    the runtime said of a Python and of a mount that are not there."""
    root = roots(release)
    print(release, root.version(PROGRAMS[runtime]))
    path = f"{root.programs}{os.pathsep}{slurm.environment['PATH']}"
    environment = {**slurm.environment, "PATH": path, "PYTHONPATH": "/host/modules"}
    environment.pop("USER", None)
    lab = dataclasses.replace(slurm, environment=environment)
    name, options = f"{runtime}-{release}", ("--container", runtime, *ONE_THREAD)
    options = (*options, "--image", started(release, runtime))
    assert_why_repeats_the_runtime(lab, name, options)
    options = (*options, "--python", PYTHON)
    interrupt_twice(lab, name, flags, options, tmp_path_factory.getbasetemp())
    assert_bit_identical(lab, name, plain)
    assert living_ranks(RunFolder(lab.runs / name)) == []
    label = f"label=minimind.run={lab.runs / name}"
    assert not root.run("/usr/bin/podman", "ps", "-aq", "--filter", label).stdout


def assert_why_repeats_the_runtime(lab: Lab, name: str, options: tuple[str, ...]) -> None:
    """Two runs that cannot start."""
    small = ("--gpus", "1", "--max-restarts", "0", *options)
    wrong = {"python": ("--python", "no-such-python"), "mount": ("--mount", "/no/such:/data")}
    for what, option in wrong.items():
        lab.submit(f"{name}-{what}", *small, *option, train=("--device", "cpu"))
    for what in wrong:
        lab.wait(f"{name}-{what}", "FAILED")
    said = lab.why(f"{name}-python")
    words = ("executable file not found", "can't exec", "failed to exec")
    assert any(text in said for text in words), said
    assert "/no/such" in lab.why(f"{name}-mount")


@pytest.mark.parametrize("release", ["trixie", "sid"])
def test_podman_without_roots_rights_writes_the_run_folder(
    release: str, roots: Callable[[str], Root]
) -> None:
    """Whatever user the image names, files belong to whoever started the run."""
    root = roots(release)
    folder = Path(tempfile.mkdtemp(prefix="minimind-rootless-"))
    (folder / "runs" / "submitit").mkdir(parents=True)
    (folder / "home").mkdir()
    archive = shutil.copy(base_archive(), folder / "base.tar")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY)
    spec = JobSpec(
        name="demo",
        run_dir=str(folder / "runs"),
        workdir=str(folder),
        container="podman",
        image="base:1",
        request_gpus=False,
        user=f"{SOMEBODY}:{SOMEBODY}",
    )
    script = folder / "script"
    script.write_text(
        f"set -e; cd {folder}; podman import --change USER=10001 {archive} base:1\n"
        + shlex.join([*command_prefix(spec), "touch", "written"])
        # A process that keeps the user's namespace would stay.
        + "\npodman system migrate\n"
    )
    done = root.run("unshare", "--mount", "sh", "-c", AS_SOMEBODY, "sh", str(folder), str(script))
    written = folder / "runs" / "submitit" / "written"
    assert written.exists(), done.stdout + done.stderr
    assert written.stat().st_uid == SOMEBODY
    shutil.rmtree(folder, ignore_errors=True)


AS_SOMEBODY = f"""set -e; folder=$1; script=$2
mount --make-rshared /
echo 'somebody:x:{SOMEBODY}:{SOMEBODY}::'$folder/home:/bin/sh > /run/passwd
echo 'somebody:x:{SOMEBODY}:' > /run/group
for name in passwd group; do
    cat /etc/$name >> /run/$name; mount --bind /run/$name /etc/$name
done
echo somebody:100000:65536 > /run/subuid
for name in subuid subgid; do touch /etc/$name; mount --bind /run/subuid /etc/$name; done
mkdir -p /run/user/{SOMEBODY}; chown {SOMEBODY}:{SOMEBODY} /run/user/{SOMEBODY}
exec setpriv --reuid {SOMEBODY} --regid {SOMEBODY} --clear-groups env -i \\
    PATH=/usr/sbin:/usr/bin:/sbin:/bin USER=somebody HOME=$folder/home \\
    XDG_RUNTIME_DIR=/run/user/{SOMEBODY} sh $script
"""
