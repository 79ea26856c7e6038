"""Nothing that others could have written is run."""

from __future__ import annotations

import os
import pickle
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.rank.task import RankTask
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.spec.trust import check_trusted, check_unshared, make_private
from launcher.submit.submission import prepare, submit_points
from launcher.supervise import local
from minimind.errors import ConfigError


@pytest.fixture
def run(tmp_path: Path, make_spec: Callable[..., JobSpec]) -> RunFolder:
    # The umask of a site whose users work in groups.
    before = os.umask(0o002)
    try:
        spec = make_spec(run_dir=str(tmp_path / "runs" / "demo"), workdir=str(tmp_path))
        made = prepare(spec, {"TOKEN": "s3cret"})
    finally:
        os.umask(before)
    (made.submitit / "1_submitted.pkl").write_bytes(b"")
    return made


def test_a_new_run_is_its_owners_alone(run: RunFolder) -> None:
    assert stat.S_IMODE(run.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(run.spec_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(run.secrets_file.stat().st_mode) == 0o600
    check_trusted(run)


def test_others_may_be_let_in_to_read(run: RunFolder) -> None:
    for path in (run.root, *run.root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    check_trusted(run)


@pytest.mark.parametrize(
    "part", [".", "spec.json", "submitit", "submitit/1_submitted.pkl", "code/launcher/task.py"]
)
@pytest.mark.parametrize("bit", [0o020, 0o002])
def test_what_others_can_write_is_refused(run: RunFolder, part: str, bit: int) -> None:
    for path in (run.root, *run.root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    path = run.root / part
    path.chmod(path.stat().st_mode | bit)
    with pytest.raises(ConfigError, match=r"can be written by others .*chmod -R go-w"):
        check_trusted(run)


def test_files_that_others_cannot_reach_do_not_matter(run: RunFolder) -> None:
    (run.submitit / "1_submitted.pkl").chmod(0o666)
    check_trusted(run)


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@only_root
def test_a_run_of_somebody_else_is_not_gone_on_with(run: RunFolder) -> None:
    for path in (run.root, *run.root.rglob("*")):
        os.chown(path, 54321, 54321)
    with pytest.raises(ConfigError, match=r"belongs to user 54321, .* user 0: .*chown -R 0 "):
        check_trusted(run)
    # What a rank in a container sees whose user is another than outside.
    check_unshared(run)


@only_root
def test_a_file_of_somebody_else_is_refused(run: RunFolder) -> None:
    for path in (run.root, run.submitit, run.code):
        path.chmod(0o755)
    os.chown(run.submitit / "1_submitted.pkl", 54321, 54321)
    for check in (check_trusted, check_unshared):
        with pytest.raises(ConfigError, match="belongs to user 54321"):
            check(run)


@only_root
def test_a_link_that_somebody_else_laid_is_refused(run: RunFolder) -> None:
    """In a folder that others write it could lead into any folder of the user's own."""
    moved = run.root.with_name("elsewhere")
    os.rename(run.root, moved)
    run.root.symlink_to(moved)
    check_trusted(run)
    os.lchown(run.root, 54321, 54321)
    with pytest.raises(ConfigError, match="is a link of user 54321 to a folder of user 0"):
        check_trusted(run)


def test_root_that_a_server_makes_nobody_is_who_its_files_say(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This process's number is not the one that the filesystem gives to what it makes.
    monkeypatch.setattr(os, "geteuid", lambda: run.root.stat().st_uid + 1)
    check_trusted(run)


def test_the_check_writes_nothing_for_its_owner(run: RunFolder) -> None:
    before = run.root.stat().st_mtime_ns
    check_trusted(run)
    assert run.root.stat().st_mtime_ns == before


@pytest.mark.parametrize("opened", ["root", "all"])
def test_a_submission_after_readers_were_let_in_is_private_again(
    run: RunFolder, opened: str
) -> None:
    """A project folder whose members have umask 002 and read each other's runs."""
    for path in [run.root] if opened == "root" else [run.root, *run.root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = os.umask(0o002)
    try:
        again = prepare(run.spec(), {})
        (again.submitit / "2_submitted.pkl").write_bytes(b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(again.root.stat().st_mode) == 0o755
    check_trusted(again)


def test_the_group_that_a_project_folder_hands_down_is_kept(
    tmp_path: Path, make_spec: Callable[..., JobSpec]
) -> None:
    shared = tmp_path / "project"
    shared.mkdir()
    shared.chmod(0o2775)
    run = prepare(make_spec(run_dir=str(shared / "demo"), workdir=str(tmp_path)), {})
    assert stat.S_IMODE(run.root.stat().st_mode) == 0o2700
    check_trusted(run)


def test_inherited_acls_let_nobody_in(tmp_path: Path, make_spec: Callable[..., JobSpec]) -> None:
    shared = tmp_path / "project"
    shared.mkdir()
    # setfacl -m d:u::rwx,d:g::rwx,d:g:54321:rwx,d:m::rwx,d:o::rwx, without needing the program:
    # linux/posix_acl_xattr.h, version 2, then (tag, permissions, id) of each entry.
    entries = [(1, 7, -1), (4, 7, -1), (8, 7, 54321), (16, 7, -1), (32, 7, -1)]
    value = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, rights, who & 0xFFFFFFFF) for tag, rights, who in entries
    )
    try:
        os.setxattr(shared, "system.posix_acl_default", value)
    except OSError as error:
        pytest.skip(f"no ACLs here: {error.strerror}")
    (shared / "plain").mkdir(mode=0o755)
    assert stat.S_IMODE((shared / "plain").stat().st_mode) & 0o070 == 0o050
    run = prepare(make_spec(run_dir=str(shared / "demo"), workdir=str(tmp_path)), {})
    for path in (run.root, run.submitit, run.code):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    check_trusted(run)


def test_points_of_a_sweep_are_private_whatever_the_umask(
    run: RunFolder, make_spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.submit.submission._submit_slurm", lambda *words: ["1_0"])
    point = make_spec(run_dir=str(run.root / "0"), workdir=run.spec().workdir)
    before = os.umask(0o002)
    try:
        submit_points(run, run.spec(), [point])
    finally:
        os.umask(before)
    run.root.chmod(0o755)
    check_trusted(RunFolder(point.run_dir))


def test_a_filesystem_without_modes_is_named_before_anything_is_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Such as a Windows disk under WSL; none can be mounted here.
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setattr(Path, "chmod", lambda path, mode: None)
    with pytest.raises(ConfigError, match=r"keeps no modes.*--runs-dir"):
        make_private(folder)


@pytest.mark.parametrize("module", ["launcher.task", "launcher.supervise"])
def test_a_job_says_it_in_one_line_and_runs_nothing(
    run: RunFolder, module: str, tmp_path: Path
) -> None:
    run.root.chmod(0o777)
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(f'#!/bin/sh\ntouch "{run.root}/executed"\n')
    srun.chmod(0o755)
    words = [str(run.root)]
    if module == "launcher.supervise":
        words += ["-m", "this"]
    path = f"{srun.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "SLURM_JOB_ID": "1", "PATH": path},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("launcher: error: ")
    assert "can be written by others" in done.stderr
    assert not (run.root / "executed").exists()


def test_a_run_is_not_renewed_in_a_folder_that_others_can_write(
    run: RunFolder, make_spec: Callable[..., JobSpec]
) -> None:
    run.root.chmod(0o775)
    with pytest.raises(ConfigError, match="can be written by others"):
        prepare(run.spec(), {})


def test_a_secrets_value_is_in_its_file_alone(run: RunFolder) -> None:
    from launcher.containers.runtimes import rank_command
    from launcher.slurm.sbatch import batch_script

    spec = run.spec()
    (run.submitit / "2_submitted.pkl").write_bytes(pickle.dumps(RankTask(str(run.root))))
    commands = [*rank_command(spec), *local.rank_command(spec)]
    said = " ".join([batch_script(spec), *commands, spec.to_json()])
    assert "s3cret" not in said
    holders = [p.name for p in run.root.rglob("*") if p.is_file() and b"s3cret" in p.read_bytes()]
    assert holders == ["secrets.json"]
