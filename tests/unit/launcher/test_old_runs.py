"""Runs that an older launcher began: today's shows them, stops them, and lets them go on.

A run folder holds a snapshot of the launcher that it was submitted with. What today's launcher
calls by name in an older snapshot is frozen in ``tests/goldens/launcher_names.json``: never change
that file, whatever today's modules are called.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickletools
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import DelayedSubmission

from launcher.cli import main
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.submit.snapshot import snapshot_code
from launcher.supervise import host
from launcher.supervise.local import rank_command
from launcher.task import RankTask
from tests.e2e.lab import lab_environment, poll
from tests.fixtures.fake_slurm import QUIET, calls, write_programs
from tests.fixtures.v1 import unpack

TESTS = Path(__file__).parents[2]
NAMES: dict[str, list[str]] = json.loads((TESTS / "goldens" / "launcher_names.json").read_text())
SUBMITITS = ["submitit.core.utils", "DelayedSubmission"]

FORGOTTEN = """
# Nothing, when asked for all jobs.
[ $# -gt 4 ] || exit 0
echo "slurm_load_jobs error: Invalid job id specified" >&2
exit 1
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with old runs in ``runs``, as the current one, and no Slurm on this machine."""
    clean = lab_environment()
    for name in [name for name in os.environ if name not in clean or name == "MINIMIND_RUNS"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return unpack(tmp_path, "finished", "killed", "slurm")


@pytest.fixture
def programs(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm that knows job 7 as running, and takes new jobs as job 8."""
    folder = write_programs(
        lab / "bin",
        **QUIET,
        scontrol="[ $2 != job ] || echo JobId=7 JobState=RUNNING",
        scancel="exit 0",
        sbatch="echo Submitted batch job 8",
    )
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def words_of(run: RunFolder, name: str) -> list[str]:
    """Frozen words for ``run``."""
    return [word.replace("RUN", str(run.root)) for word in NAMES[name]]


def with_old_snapshot(run: RunFolder) -> RunFolder:
    shutil.copytree(TESTS / "fixtures" / "old_snapshot", run.code, dirs_exist_ok=True)
    return run


def last_event(run: RunFolder) -> dict[str, Any]:
    event = dict(run.events()[-1])
    event.pop("time")
    return event


def pickled_classes(path: Path) -> list[list[str]]:
    """Module and name of each class in a pickle, without loading it."""
    words: list[str] = []
    found = []
    for operation, word, _ in pickletools.genops(path.read_bytes()):
        if isinstance(word, str):
            words.append(word)
        if operation.name == "STACK_GLOBAL":
            found.append(words[-2:])
    return found


@pytest.mark.usefixtures("lab")
def test_a_finished_run_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "finished", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["state"], state["step"], state["total_steps"]) == ("DONE", 33, 33)
    assert 0 < state["ledger"]["goodput"] < 1
    for command, expected in {
        "status": "33/33 (100%)",
        "why": "finished",
        "logs": "Epoch:[1/1](66/66), loss: ",
        "list": "finished\tDONE\t",
    }.items():
        words = [command] if command == "list" else [command, "finished"]
        assert main(words) == 0
        assert expected in capsys.readouterr().out
    assert main(["cancel", "finished"]) == 0
    assert "over already" in capsys.readouterr().err
    assert main(["requeue", "finished"]) == 2


@pytest.mark.usefixtures("programs")
def test_a_run_that_slurm_has_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "slurm", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["state"], state["job_id"], state["attempt"]) == ("RUNNING", "7", 1)
    assert state["nodes"] == ["n1"]
    assert state["step"] >= 4
    assert main(["why", "slurm"]) == 0
    assert capsys.readouterr().out.startswith("slurm: RUNNING")
    assert main(["requeue", "slurm"]) == 2
    assert "is RUNNING" in capsys.readouterr().err


def test_a_run_that_slurm_has_is_cancelled(
    lab: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cancel", "slurm"]) == 0
    assert "saves a checkpoint and stops" in capsys.readouterr().err
    assert calls(programs, "scancel") == ["7"]
    run = RunFolder(lab / "runs" / "slurm")
    assert last_event(run) == {"event": "cancel_requested"}
    assert run.final() is None


def test_a_run_that_slurm_has_lost_goes_on_with_its_own_snapshot(
    lab: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_programs(programs, scontrol=FORGOTTEN)
    run = with_old_snapshot(RunFolder(lab / "runs" / "slurm"))
    assert main(["status", "slurm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "INTERRUPTED"
    assert main(["requeue", "slurm"]) == 0
    assert "continues as job 8" in capsys.readouterr().err
    submitted = {"event": "submitted", "job_id": "8", "cluster": "slurm", "nodes": 1, "gpus": 1}
    assert last_event(run) == submitted

    (sent,) = calls(programs, "sbatch")
    assert str(run.submitit) in sent
    script = run.submitit / "8_submission.sh"
    assert f"#SBATCH --chdir={run.code}" in script.read_text()
    assert pickled_classes(run.submitit / "8_submitted.pkl") == [SUBMITITS, NAMES["pickled"]]

    # What Slurm would do next: the old snapshot is found, and understands what it is given.
    job = {"SLURM_JOB_ID": "8", "SLURM_JOB_NODELIST": "n1"}
    subprocess.run(["bash", str(script)], cwd=run.code, env={**os.environ, **job}, check=True)
    supervised = json.loads((run.root / "called-supervise").read_text())
    assert supervised == words_of(run, "batch_script")
    assert (run.root / "called-rank").read_text() == str(run.code / "launcher" / "task.py")


def test_the_rank_task_of_an_old_submission_is_loaded(lab: Path) -> None:
    pickle = lab / "runs" / "slurm" / "submitit" / "7_submitted.pkl"
    assert pickled_classes(pickle) == [SUBMITITS, NAMES["pickled"]]
    delayed = DelayedSubmission.load(pickle)
    assert delayed.function == RankTask("/tmp/minimind-v1/runs/slurm")
    assert callable(delayed.function)


@pytest.mark.usefixtures("lab")
def test_a_run_whose_supervisor_was_killed_is_shown_and_cancelled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["status", "killed", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["state"], state["attempt"]) == ("INTERRUPTED", 1)
    assert state["reason"] == "its supervisor does not run"
    assert main(["why", "killed"]) == 0
    assert "launcher requeue killed" in capsys.readouterr().out
    assert main(["cancel", "killed"]) == 0
    assert main(["status", "killed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "CANCELLED"


def test_a_run_whose_supervisor_was_killed_goes_on_with_its_own_snapshot(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_old_snapshot(RunFolder(lab / "runs" / "killed"))
    assert main(["requeue", "killed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": "killed", "job_id": "4194305"}
    called = json.loads((run.root / "called-submission").read_text())
    assert called == words_of(run, "local_submission")
    assert last_event(run)["job_id"] == "4194305"


def test_a_run_whose_supervisor_was_killed_goes_on_with_todays_launcher(lab: Path) -> None:
    """What ``submit --resume`` does: the snapshot is made anew. The rank is a stand-in."""
    run = RunFolder(lab / "runs" / "killed")
    python = write_programs(lab / "bin", python="exit 0") / "python"
    run.write_spec(replace(run.spec(), python=str(python)))
    snapshot_code(run.code)
    assert main(["requeue", "killed"]) == 0
    poll(lambda: run.final() is not None, "the run to end")
    poll(lambda: host.supervisor_pid(run.events()) is None, "the supervisor to end")
    ended = [event for event in run.events() if event["event"] == "attempt_ended"]
    assert [(event["attempt"], event["cause"]) for event in ended] == [(1, "lost"), (2, "done")]
    assert calls(python.parent, "python") == [" ".join(words_of(run, "local_rank"))]


def test_the_command_of_a_local_rank_is_frozen(make_spec: Callable[..., JobSpec]) -> None:
    """A supervisor of an old snapshot runs it in an image of any age."""
    spec = make_spec(cluster="local", run_dir="/runs/demo")
    assert rank_command(spec)[1:] == words_of(RunFolder("/runs/demo"), "local_rank")


@pytest.mark.parametrize("module", NAMES["run_by_name"])
def test_what_old_runs_start_by_name_is_there(module: str) -> None:
    assert importlib.util.find_spec(module) is not None


def test_the_training_that_new_runs_name_is_one_that_old_images_have(
    make_spec: Callable[..., JobSpec],
) -> None:
    assert make_spec().module == NAMES["run_by_name"][-1]
    assert (RankTask.__module__, RankTask.__name__) == tuple(NAMES["pickled"])
