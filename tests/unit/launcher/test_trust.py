"""Nothing that others could have written is run."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import trust
from launcher.local import rank_command
from launcher.runs import RunFolder
from launcher.spec import JobSpec
from launcher.submission import prepare
from launcher.task import RankTask
from launcher.trust import check_trusted
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


def test_a_folder_of_somebody_else_is_refused(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "_owner_of_new_files", lambda folder: os.geteuid() + 1)
    with pytest.raises(ConfigError, match="belongs to user"):
        check_trusted(run)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_refused(run: RunFolder) -> None:
    run.root.chmod(0o755)
    for path in (run.submitit, run.code):
        path.chmod(0o755)
    os.chown(run.submitit / "1_submitted.pkl", 54321, 54321)
    with pytest.raises(ConfigError, match="belongs to user 54321"):
        check_trusted(run)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_that_a_server_makes_nobody_is_who_its_files_say(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (run.root, *run.root.rglob("*")):
        os.chown(path, 65534, 65534)
    monkeypatch.setattr(trust, "_owner_of_new_files", lambda folder: 65534)
    check_trusted(run)


@pytest.mark.parametrize("module", ["launcher.task", "launcher.supervise"])
def test_a_job_says_it_in_one_line_and_runs_nothing(run: RunFolder, module: str) -> None:
    run.root.chmod(0o777)
    words = [str(run.root)]
    if module == "launcher.supervise":
        words += ["--", "touch", str(run.root / "executed")]
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "SLURM_JOB_ID": "1"},
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
    from launcher.submission import batch_script, srun_command

    spec = run.spec()
    (run.submitit / "2_submitted.pkl").write_bytes(pickle.dumps(RankTask(str(run.root))))
    said = " ".join([batch_script(spec), *srun_command(spec), *rank_command(spec), spec.to_json()])
    assert "s3cret" not in said
    holders = [p.name for p in run.root.rglob("*") if p.is_file() and b"s3cret" in p.read_bytes()]
    assert holders == ["secrets.json"]
