"""The supervisor of a Slurm job: a real process, with stand-ins for what it starts and asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from launcher.inspect.explain import explain
from launcher.inspect.run_state import Records, read_state
from launcher.rank.fencing import FENCE_SECONDS
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.submit.sweep import submit_sweep
from launcher.supervise import host
from launcher.supervise import slurm as supervise_slurm
from launcher.supervise.exclusion import failed_nodes
from launcher.supervise.slurm import StepRanks
from tests.e2e.lab import REPOSITORY, poll
from tests.slurm_answers import UNREACHABLE_ONCE


def start_ranks(folder: Path, *command: str, held: Any = None) -> StepRanks:
    """The ranks of a first attempt, whatever ``command`` does in srun's place."""
    run = RunFolder(folder)
    run.attempt_dir(1).mkdir(parents=True)
    environment = {"PATH": os.environ["PATH"], "MINIMIND_EVENTS": str(run.events_file)}
    return StepRanks(run, 1, [*command], environment, held)


@pytest.mark.parametrize(
    ("said", "broken"),
    [
        ("srun: job 7 queued and waiting for resources", False),
        ("srun: error: n2: task 1: Exited with exit code 1", True),
        ("srun: error: n1: tasks 0-3: Killed", True),
        ("srun: error: n2: task 1: Exited with exit code 75", True),
    ],
)
def test_a_rank_that_has_left_is_seen(tmp_path: Path, said: str, broken: bool) -> None:
    ranks = start_ranks(tmp_path, "echo", said)
    poll(lambda: ranks.poll() is not None, "the end of echo")
    assert ranks.broken() is broken


@pytest.mark.parametrize("state", ["RUNNING", "SUSPENDED", "STOPPED", "TELEPORTING"])
def test_ranks_of_a_job_that_slurm_suspends_are_suspended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """So are those of this node that somebody has stopped, whatever Slurm knows of it."""
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho JobId=7 JobState={state}\n")
    (tmp_path / "scontrol").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    ranks = start_ranks(tmp_path, "sleep", "600")
    try:
        if state in ("SUSPENDED", "STOPPED"):
            assert ranks.suspended(on_all_nodes=False) == f"Slurm says that its job is {state}"
            return
        assert ranks.suspended(on_all_nodes=False) == ""
        os.kill(ranks._process.pid, signal.SIGSTOP)
        poll(lambda: "is stopped" in ranks.suspended(on_all_nodes=False), "the stop")
    finally:
        ranks._process.kill()


class Held:
    """A job's nodes, of which Slurm says one after the other what it has taken away."""

    nodes = ("n1", "n2")

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    def gone(self, timeout: float) -> list[str]:
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("answers", "killed"),
    [
        ([[], []], False),
        # Slurm may be about to end the step by itself; and it may have been an answer of nobody.
        ([["n2"], []], False),
        ([[], ["n2"], ["n2"]], True),
    ],
)
def test_ranks_that_wait_for_a_lost_node_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[list[str]], killed: bool
) -> None:
    """With enable_stepmgr Slurm takes a minute and more for it."""
    monkeypatch.setattr(supervise_slurm, "LOST_LOOK_SECONDS", 0)
    monkeypatch.setattr(supervise_slurm, "LOST_END_SECONDS", 0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    signalled: list[signal.Signals] = []
    monkeypatch.setattr(
        supervise_slurm.slurm, "signal_step", lambda job, step, number: signalled.append(number)
    )
    held = Held(*answers)
    ranks = start_ranks(tmp_path, "sleep", "600", held=held)
    try:
        for _ in answers:
            assert not signalled
            assert ranks.poll() is None
        assert not held.answers
        assert signalled == ([signal.SIGKILL] if killed else [])
    finally:
        ranks._process.kill()


SRUN = """#!/bin/sh
# Runs a program as a step of one task a node would: on this machine.
while [ "${1#-}" != "$1" ]; do echo "$1" >> "$(dirname "$0")/asked"; shift; done
exec "$@"
"""


@pytest.mark.parametrize("nodes", ["1", "2"])
def test_a_rank_that_is_stopped_on_another_node_is_suspended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: str
) -> None:
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", nodes)
    ranks = start_ranks(tmp_path, "sleep", "600")
    # What this process does not see, the one that srun starts does.
    monkeypatch.setattr(host, "suspended", lambda events: "")
    try:
        os.kill(ranks._process.pid, signal.SIGSTOP)
        poll(lambda: process_state(ranks._process.pid) == "T", "the stop")
        assert ranks.suspended(on_all_nodes=False) == ""
        found = ranks.suspended(on_all_nodes=True)
        assert found.endswith(
            f"process {ranks._process.pid} is stopped (kill -CONT lets it go on)"
            if nodes == "2"
            else ""
        )
        assert (tmp_path / "asked").exists() == (nodes == "2")
    finally:
        ranks._process.kill()


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


SIGNALLED = """#!/bin/sh
# As 24.11.5 answers under enable_stepmgr; the array's last task has the array's own id.
case "$0 $*" in
  *"scontrol show step --oneliner 1_2") printf "StepId=1_2.batch U=0\\nStepId=1_2.0 U=0\\n" ;;
  *scancel*) echo "$*" >> "$(dirname "$0")/signals" ;;
esac
"""


@pytest.fixture
def array_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of an array's last task; returns the file of the signals that were sent."""
    for name in ("scontrol", "scancel"):
        (tmp_path / name).write_text(SIGNALLED)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    variables = {"SLURM_JOB_ID": "1", "SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "signals"


def test_ranks_are_signalled_by_the_step_that_they_report(array_task: Path) -> None:
    folder = array_task.parent
    ranks = start_ranks(folder, "sleep", "600")
    try:
        RunFolder(folder).report_step(1, "3")
        ranks.dump_stacks()
        ranks.kill()
        ranks.kill()
    finally:
        ranks._process.kill()
    assert array_task.read_text().splitlines() == ["--signal=QUIT 1_2.3", "--signal=KILL 1_2.3"]


def test_ranks_that_have_not_reported_are_found_in_slurms_list(array_task: Path) -> None:
    ranks = start_ranks(array_task.parent, "sleep", "600")
    try:
        ranks.kill()
    finally:
        ranks._process.kill()
    assert array_task.read_text() == "--signal=KILL 1_2.0\n"


def test_a_kill_without_effect_is_followed_by_the_end_of_srun(
    array_task: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("launcher.supervise.slurm.KILL_SECONDS", 0.0)
    ranks = start_ranks(array_task.parent, "sleep", "600")
    assert ranks.poll() is None
    ranks.kill()
    poll(lambda: ranks.poll() is not None, "the end of srun", 20)
    assert ranks.poll() == 128 + signal.SIGKILL
    assert "after SIGKILL; srun is killed" in capfd.readouterr().out


SLURM = {
    "sbatch": "echo Submitted batch job 7",
    "scontrol": "exit 1",
    "sinfo": "exit 1",
    "squeue": "exit 1",
    # One call a line, its words separated by a character that no word holds.
    "srun": 'for word; do printf "%s\\037" "$word"; done >> "$0.calls"; echo >> "$0.calls"',
}


@pytest.fixture
def srun_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """A Slurm that takes every job and starts nothing; what its srun was called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in SLURM.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def calls() -> list[list[str]]:
        lines = (folder / "srun.calls").read_text().splitlines()
        return [line.split("\037")[:-1] for line in lines]

    return calls


@pytest.mark.parametrize("container", ["docker", "podman"])
def test_point_of_a_sweep_removes_the_containers_that_it_starts(
    container: str,
    tmp_path: Path,
    make_spec: Callable[..., JobSpec],
    srun_calls: Callable[[], list[list[str]]],
) -> None:
    spec = make_spec(
        run_dir=str(tmp_path / "sw"), host_python=sys.executable, container=container, image="mm"
    )
    submit_sweep(spec, ["--epochs", "1"], {"learning_rate": ["1e-3", "5e-4"]}, {})
    script = next((tmp_path / "sw" / "submitit").glob("*_submission.sh"))
    job = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    code = tmp_path / "sw" / "code"
    done = subprocess.run(["bash", str(script)], cwd=code, env={**os.environ, **job})
    assert done.returncode == 0
    removal, ranks = srun_calls()
    point = tmp_path / "sw" / "1"
    assert removal[-2:] == [container, f"minimind.run={point}"]
    assert ranks[ranks.index("--label") + 1] == f"minimind.run={point}"
    assert ranks[-4:] == ["-u", "-m", "submitit.core._submit", str(tmp_path / "sw" / "submitit")]
    # The array's pickles lie in the sweep's folder: the container must see it.
    assert f"{tmp_path / 'sw'}:{tmp_path / 'sw'}" in ranks
    assert f"--chdir={point}/submitit" in ranks


class Job:
    """A batch job as its script starts it, and the commands of Slurm that it meets."""

    def __init__(self, folder: Path, make_spec: Callable[..., JobSpec]) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.run = RunFolder(folder / "demo")
        self.run.submitit.mkdir(parents=True, mode=0o700)
        self.run.root.chmod(0o700)
        self.run.write_spec(
            make_spec(
                run_dir=str(self.run.root), save_dir=str(self.run.root / "out"), preflight=False
            )
        )
        self.run.append("submitted", job_id="7", cluster="slurm")
        self.fake("scontrol", "exit 0")
        self.fake("squeue", "exit 0")

    def fake(self, name: str, script: str) -> None:
        """Puts a shell script in the place of one of Slurm's commands."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def start(
        self, folder: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """One attempt, from its beginning to its end."""
        job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "HERE": str(self.bin)}
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "launcher.supervise",
                str(folder or self.run.root),
                "-m",
                "task",
            ],
            env={**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", **job, **environment},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def requeues(self) -> int:
        """How often Slurm was asked to run the job again, where the stand-in counts."""
        asked = self.bin / "requeues"
        return len(asked.read_text().splitlines()) if asked.exists() else 0

    def events(self, kind: str) -> list[dict[str, object]]:
        return [event for event in self.run.events() if event["event"] == kind]


@pytest.fixture
def job(tmp_path: Path, make_spec: Callable[..., JobSpec]) -> Job:
    return Job(tmp_path, make_spec)


def test_ranks_inherit_no_place_from_the_submitters_shell(job: Job) -> None:
    job.fake("srun", 'env > "$HERE/seen"')
    place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    done = job.start(**place, MASTER_ADDR="elsewhere", MASTER_PORT="1")
    assert done.returncode == 0, done.stderr
    seen = dict(line.split("=", 1) for line in (job.bin / "seen").read_text().splitlines())
    assert not place.keys() & seen.keys()
    assert "elsewhere" not in seen["MASTER_ADDR"]
    assert seen["MASTER_PORT"] != "1"


def test_a_controller_that_does_not_answer_once_drops_no_run(job: Job) -> None:
    job.fake("scontrol", UNREACHABLE_ONCE)
    job.fake("srun", "exit 75")
    assert job.start().returncode == 75
    assert job.requeues() == 2
    assert not job.events("requeue_failed")


def test_the_last_task_of_an_array_asks_for_itself_alone(job: Job) -> None:
    """Its SLURM_JOB_ID is the array's id: by that name all points of a sweep would be requeued."""
    job.run.root.rename(job.run.root.with_name("2"))
    job.run = RunFolder(job.run.root.with_name("2"))
    job.fake("scontrol", 'echo "$*" >> "$HERE/asked"')
    job.fake("srun", "exit 75")
    array = {"SLURM_JOB_ID": "1", "SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "2"}
    done = job.start(job.run.root.parent, **array)
    assert done.returncode == 75, done.stderr
    asked = (job.bin / "asked").read_text().splitlines()
    assert "requeue 1_2" in asked
    assert "show job --oneliner --all 1_2" in asked
    assert not [line for line in asked if line.endswith(" 1")]


@pytest.mark.parametrize(("code", "declined"), [("2", True), ("75", False)])
def test_a_job_that_would_be_held_for_its_exit_status_is_not(
    job: Job, code: str, declined: bool
) -> None:
    """With --requeue=expedite Slurm 26.05 holds a job whose batch script ends with an error."""
    job.fake("scontrol", 'echo "$*" >> "$HERE/asked"; echo "JobId=7 ExpeditedRequeue=Yes"')
    job.fake("srun", f"exit {code}")
    assert job.start().returncode == int(code)
    asked = (job.bin / "asked").read_text().splitlines()
    assert ("update JobId=7 Requeue=0" in asked) == declined
    assert ("requeue 7" in asked) != declined


def test_a_run_that_is_cancelled_while_nobody_answers_stays_cancelled(job: Job) -> None:
    notice = "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T12:00:00 ***"
    log = f"echo '{notice}' >> '{job.run.batch_log}'"
    job.fake("scontrol", f'[ "$1" = requeue ] && {log}\n{UNREACHABLE_ONCE}')
    job.fake("srun", "exit 75")
    assert job.start().returncode == 130
    assert job.requeues() == 1
    final = job.run.final()
    assert final is not None
    assert final.cause == "cancelled"


CRASH_ONCE = """
echo "$*" >> "$HERE/starts"
[ "$(wc -l < "$HERE/starts")" -gt 1 ]
"""
COUNT_REQUEUES = '[ "$1" != requeue ] || echo "$*" >> "$HERE/requeues"'


def answering(**fields: str) -> str:
    """A controller that knows the job as running, with ``fields``, and counts requeues."""
    job = {"JobId": "7", "JobState": "RUNNING", "TimeLimit": "UNLIMITED", "EndTime": "Unknown"}
    said = " ".join(f"{name}={value}" for name, value in {**job, **fields}.items())
    return f'[ "$1 $2" != "show job" ] || echo "{said}"\n{COUNT_REQUEUES}'


def ends_in(seconds: float) -> dict[str, str]:
    end = datetime.fromtimestamp(time.time() + seconds)
    return {"TimeLimit": "1-00:00:00", "EndTime": end.isoformat(timespec="seconds")}


def test_a_crash_is_tried_again_in_the_same_job(job: Job) -> None:
    job.fake("scontrol", answering(**ends_in(3600)))
    job.fake("srun", CRASH_ONCE)
    assert job.start().returncode == 0
    assert job.requeues() == 0
    starts = job.events("attempt_started")
    assert [(event["attempt"], event["job_id"]) for event in starts] == [(1, "7"), (2, "7")]
    assert [event["cause"] for event in job.events("restarted")] == ["crash"]
    assert not job.events("requeued")
    assert read_state(job.run, {}, Records.read(job.run)).restarts == {"crash": 1}


@pytest.mark.parametrize(
    "steps",
    [
        'echo "StepId=7.0 State=RUNNING Name=python"',
        '{ echo "slurm_get_job_steps: Unable to contact slurm controller" >&2; exit 1; }',
    ],
)
def test_ranks_that_may_outlive_their_srun_end_with_the_job(job: Job, steps: str) -> None:
    job.fake("scontrol", f'{answering()}\n[ "$1 $2" != "show step" ] || {steps}')
    job.fake("srun", CRASH_ONCE)
    assert job.start().returncode == 1
    assert job.requeues() == 1
    assert not job.events("restarted")


def test_a_launch_that_slurm_fails_costs_no_restart(job: Job) -> None:
    said = "srun: error: Task launch for StepId=7.0 failed on node n2: Unspecified error"
    job.run.write_spec(replace(job.run.spec(), max_restarts=0))
    job.fake("scontrol", answering())
    job.fake("srun", f"{CRASH_ONCE.rstrip()} || {{ echo '{said}' >&2; exit 255; }}")
    assert job.start().returncode == 0
    assert job.requeues() == 0
    first, second = job.events("attempt_ended")
    assert (first["cause"], second["cause"]) == ("launch_failed", "done")
    assert explain(job.run).attempts[0] == (
        "attempt 1 was not launched by Slurm at step 0, exit status 255 "
        f"({said.removeprefix('srun: error: ')}); restarted in the same job"
    )


def test_a_job_without_its_step_manager_goes_back_to_slurm_at_once(job: Job) -> None:
    said = "Unable to confirm allocation for job 7: Unspecified error"
    job.run.write_spec(replace(job.run.spec(), max_restarts=0))
    job.fake("scontrol", answering())
    job.fake("srun", f"echo 'srun: error: {said}' >&2; exit 1")
    job.start()
    assert job.requeues() == 1
    assert [(end["cause"], end["reason"]) for end in job.events("attempt_ended")] == [
        ("launch_failed", said)
    ]


@pytest.mark.parametrize(
    "fields",
    [
        ends_in(200),  # less than the warning, its earliness, and two start-ups
        {"TimeLimit": "01:00:00"},  # an end that nobody knows
        {"JobState": "COMPLETING"},
        {"JobState": "TELEPORTING"},
    ],
)
def test_a_crash_goes_back_to_slurm_where_the_job_may_not_last(
    job: Job, fields: dict[str, str]
) -> None:
    job.fake("scontrol", answering(**fields))
    job.fake("srun", CRASH_ONCE)
    assert job.start().returncode == 1
    assert job.requeues() == 1
    assert [event["cause"] for event in job.events("requeued")] == ["crash"]
    assert not job.events("restarted")


def test_the_pause_before_an_attempt_counts_as_time_of_the_job(job: Job) -> None:
    """Else the attempt begins after the warning of the time limit, with nobody there to heed it."""
    job.run.write_spec(replace(job.run.spec(), max_restarts=20))
    for number in range(1, 8):
        job.run.append("attempt_started", attempt=number)
        job.run.append("attempt_ended", attempt=number, cause="crash", exit_code=1)
    job.fake("scontrol", answering(**ends_in(400)))
    job.fake("srun", "exit 1")
    assert job.start().returncode == 1
    assert job.requeues() == 1
    assert not job.events("restarted")


def test_a_short_job_that_is_told_to_stop_is_not_at_its_limit(job: Job) -> None:
    """It has asked for no warning, so what comes two minutes early is none."""
    job.run.write_spec(replace(job.run.spec(), time_minutes=9))
    start = datetime.fromtimestamp(time.time() - 400).isoformat(timespec="seconds")
    job.fake("scontrol", answering(StartTime=start, TimeLimit="00:09:00"))
    job.fake("srun", "exit 75")
    assert job.start().returncode == 75
    assert [event["cause"] for event in job.events("attempt_ended")] == ["stop_requested"]


def test_crashes_in_a_row_spend_the_budget_in_the_same_job(job: Job) -> None:
    job.run.write_spec(replace(job.run.spec(), max_restarts=1))
    job.fake("scontrol", answering())
    job.fake("srun", "exit 3")
    assert job.start().returncode == 3
    assert len(job.events("attempt_ended")) == 2
    assert job.requeues() == 0


def test_a_run_that_is_cancelled_between_two_attempts_begins_no_other(job: Job) -> None:
    """The job's end comes as a signal to this process: no step is there to get it."""
    notice = "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T12:00:00 ***"
    job.fake("scontrol", answering())
    # A pause follows the second crash without a step.
    job.fake(
        "srun",
        f"""echo "$*" >> "$HERE/starts"
[ "$(wc -l < "$HERE/starts")" -gt 1 ] || exit 1
supervisor=$PPID
(
  until grep -c attempt_ended '{job.run.events_file}' | grep -q 2; do sleep 0.1; done
  echo '{notice}' >> '{job.run.batch_log}'
  kill "$supervisor"
) > /dev/null 2>&1 &
exit 1""",
    )
    assert job.start().returncode == 130
    assert len(job.events("attempt_started")) == 2
    assert job.requeues() == 0
    final = job.run.final()
    assert final is not None
    assert final.cause == "cancelled"


def test_a_cancel_just_before_another_attempt_begins_ends_that_one(job: Job) -> None:
    """It may come after the last look, and Slurm's word of it before the attempt's log begins."""
    asked = '{"time": 1, "event": "cancel_requested"}'
    hostnames = f"""
if [ "$1 $2" = "show hostnames" ]; then
  echo n1
  [ ! -e "$HERE/starts" ] || echo '{asked}' >> '{job.run.events_file}'
fi"""
    job.fake("scontrol", answering() + hostnames)
    job.fake("srun", 'echo "$*" >> "$HERE/starts"; exit 1')
    assert job.start().returncode == 130
    assert [event["cause"] for event in job.events("attempt_ended")] == ["crash", "cancelled"]
    assert job.requeues() == 0


@pytest.mark.parametrize(
    ("since", "code"),
    [
        (["cancel_requested"], 130),
        (["cancel_requested", "cancel_withdrawn"], 0),
        (["cancel_requested", "submitted"], 0),
        (["cancel_requested", "run_ended"], 0),
    ],
)
def test_a_cancel_that_a_requeue_has_undone_holds_at_the_next_start(
    job: Job, since: list[str], code: int
) -> None:
    """It came after the attempt's end had been judged, and before the job was asked for again."""
    job.fake("srun", "exit 75")
    assert job.start().returncode == 75
    for kind in since:
        job.run.append(kind, job_id="7", cluster="slurm")
    job.fake("srun", "exit 0")
    assert job.start().returncode == code
    assert len(job.events("attempt_started")) == (1 if code else 2)


def test_a_cancel_of_an_earlier_job_is_no_word_on_this_one(job: Job) -> None:
    """A job may start before what submits it has put that down."""
    job.fake("srun", "exit 75")
    assert job.start().returncode == 75
    job.run.append("cancel_requested")
    job.fake("srun", "exit 0")
    assert job.start(SLURM_JOB_ID="8").returncode == 0


# The ranks' last act: from now on the supervisor cannot write past ROOM bytes of any file.
FULL_DISK = """exec python3 -c '
import os, resource
resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
raise SystemExit(CODE)'
"""


@pytest.mark.parametrize("bytes_left", [0, 10])
def test_a_run_goes_on_though_the_disk_is_too_full_for_its_events(
    job: Job, bytes_left: int
) -> None:
    room = f'os.path.getsize(os.environ["MINIMIND_EVENTS"]) + {bytes_left}'
    job.fake("scontrol", '[ "$1" != requeue ] || echo "$*" >> "$HERE/requeues"')
    job.fake("srun", FULL_DISK.replace("ROOM", room).replace("CODE", "75"))
    done = job.start()
    assert done.returncode == 75, done.stderr
    assert job.requeues() == 1
    assert "not on record" in done.stdout
    assert not done.stderr
    job.fake("srun", "exit 0")
    assert job.start().returncode == 0
    assert [event["attempt"] for event in job.events("attempt_ended")] == [1, 2]


def test_an_end_that_cannot_be_marked_is_one_line(job: Job) -> None:
    job.fake("srun", FULL_DISK.replace("ROOM", "0").replace("CODE", "0"))
    done = job.start()
    assert done.returncode == 1
    assert done.stderr.startswith("launcher: error: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_one_line(job: Job) -> None:
    job.fake("srun", "exit 0")
    job.run.attempts.write_text("in the way")
    done = job.start()
    assert done.returncode == 1
    assert done.stderr.startswith("launcher: error: ")
    assert len(done.stderr.splitlines()) == 1


def cluster(job: Job, *, update: str, **fields: str) -> None:
    """Three nodes alike, two of which the job has; ``update``: what scontrol does with a list."""
    nodes = "NumNodes=2 Partition=low Requeue=1 ExcNodeList=n4"
    said = " ".join(f"{name}={value}" for name, value in fields.items())
    node = "Gres=gpu:8 CPUTot=8 RealMemory=1 State=IDLE Partitions=low"
    job.fake(
        "scontrol",
        f"""case "$*" in
  "show job"*) echo "JobId=7 JobState=RUNNING TimeLimit=UNLIMITED {said} {nodes}" ;;
  "show hostnames n4") echo n4 ;;
  "show hostnames"*) echo n1; echo n2 ;;
  "show node"*) for i in 1 2 3 4; do echo "NodeName=n$i {node}"; done ;;
  update*Exc*) echo "$*" >> "$HERE/updates"; {update} ;;
  requeue*) echo "$*" >> "$HERE/requeues" ;;
esac""",
    )


# It saves a new step each time: restarts in a row that do not come after growing pauses.
FAILS_ON_N2 = """
step=$(wc -l < "$MINIMIND_EVENTS")
echo '{"time": 1, "event": "checkpointed", "step": '$step'}' >> "$MINIMIND_EVENTS"
echo "srun: error: n2: task 1: Exited with exit code 1" >&2
echo "RuntimeError: boom" > "$(dirname "$SLURM_STDOUTMODE")/rank-1.log"
exit 1"""


# In srun's place: a look at both nodes, of which n2 reports FAULT; or the ranks.
LOOKED_AT = """
case "$*" in
  *preflight*)
    echo "$*" >> "$HERE/looks"
    echo '{"node": "n1", "folder": ""}'
    echo '{"node": "n2", "folder": "FAULT", "folder_code": "EROFS"}' ;;
  *) exit CODE ;;
esac"""


def looked_at(job: Job, fault: str, code: int, **changes: Any) -> int:
    """Starts a job of two nodes; returns its exit status."""
    job.run.write_spec(replace(job.run.spec(), **{"gpus": 1, "preflight": True, **changes}))
    job.fake("srun", LOOKED_AT.replace("FAULT", fault).replace("CODE", str(code)))
    return job.start(SLURM_JOB_NODELIST="n1,n2", SLURMD_NODENAME="n1").returncode


def looks(job: Job) -> int:
    file = job.bin / "looks"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_an_unfit_node_is_left_out_before_the_ranks_start_there(job: Job) -> None:
    cluster(job, update="exit 0")
    assert looked_at(job, "Read-only file system", 1, max_restarts=0) == 75
    assert [event["cause"] for event in job.events("attempt_ended")] == ["unfit_node"]
    assert job.requeues() == 1
    assert (job.bin / "updates").read_text() == "update JobId=7 ExcNodeList=n2,n4\n"
    cannot_write = "n2: it cannot write to the run folder (Read-only file system)"
    assert f"found a node unfit before its ranks started at step 0 ({cannot_write})" in "".join(
        explain(job.run).attempts
    )


@pytest.mark.parametrize("changes", [{"exclude_hours": 0}, {"nodes": 4}])
def test_ranks_start_on_an_unfit_node_that_cannot_be_left_out(
    job: Job, changes: dict[str, int]
) -> None:
    cluster(job, update="exit 0")
    assert looked_at(job, "Read-only file system", 0, **changes) == 0
    assert [event["cause"] for event in job.events("attempt_ended")] == ["done"]


def test_nodes_are_looked_at_once_in_a_job(job: Job) -> None:
    """A restart in place needs no second look, nor one that nobody wants a first."""
    cluster(job, update="exit 0")
    assert looked_at(job, "", 1, max_restarts=1) == 1
    assert len(job.events("attempt_ended")) == 2
    assert len(job.events("preflight")) == looks(job) == 1
    job.run.reopen()
    assert looked_at(job, "", 0, preflight=False) == 0
    assert looks(job) == 1


# As above, on nodes with GPUs, of which one of n2's is listed and cannot be used.
COMPUTE = """
echo "$*" >> "$HERE/asked"
case "$*" in
  *preflight.node*)
    echo '{"node": "n1", "gpus": 1, "gpus_given": 1}'
    echo '{"node": "n2", "gpus": 1, "gpus_given": 1}' ;;
  *preflight.compute*)
    [ -z "$MINIMIND_EVENTS$RANK" ] && [ "$MASTER_PORT" -gt 0 ] && [ "$MASTER_ADDR" = n1 ] || exit 9
    echo '{"node": "n1", "computing": 1, "computes": ""}'
    echo '{"node": "n2", "computing": 0, "computes": "cuda:0: CUDA error"}' ;;
esac"""


def test_gpus_are_tried_by_the_ranks_own_python(job: Job) -> None:
    cluster(job, update="exit 0")
    job.run.write_spec(replace(job.run.spec(), gpus=1, preflight=True))
    job.fake("srun", COMPUTE)
    assert job.start(SLURM_JOB_NODELIST="n1,n2", SLURMD_NODENAME="n1", RANK="5").returncode == 75
    assert [event["reason"] for event in job.events("node_suspected")] == ["cuda:0: CUDA error"]
    look, compute = (job.bin / "asked").read_text().splitlines()
    assert "preflight.node" in look
    assert compute.endswith("/opt/venv/bin/python -m launcher.preflight.compute n1,n2")
    assert "compute_seconds" in job.events("preflight")[0]


@pytest.mark.parametrize(
    "changes",
    [{"request_gpus": False}, {"module": "mine"}, {"container": "pyxis", "image": "mm:1"}],
)
def test_gpus_that_the_ranks_may_not_use_are_not_tried(job: Job, changes: dict[str, Any]) -> None:
    """pyxis fetches an image for every step."""
    cluster(job, update="exit 0")
    job.run.write_spec(replace(job.run.spec(), **{"gpus": 1, "preflight": True, **changes}))
    job.fake("srun", COMPUTE)
    assert job.start(SLURM_JOB_NODELIST="n1,n2", SLURMD_NODENAME="n1").returncode == 0
    look, _ranks = (job.bin / "asked").read_text().splitlines()
    assert "preflight.node" in look


def test_nodes_are_looked_at_again_once_one_was_to_blame(job: Job) -> None:
    cluster(job, update="exit 0")
    job.run.write_spec(replace(job.run.spec(), gpus=1, preflight=True))
    look = LOOKED_AT.replace("FAULT", "").replace("exit CODE", f"{FAILS_ON_N2} ")
    job.fake("srun", look)
    assert job.start(SLURM_JOB_NODELIST="n1,n2", SLURMD_NODENAME="n1").returncode == 1
    assert len(job.events("attempt_started")) == looks(job) == 2


def test_a_node_that_fails_alone_twice_is_left_out_of_the_next_attempt(job: Job) -> None:
    """The first crash is tried again in place; after the second the job goes to other nodes."""
    job.run.write_spec(replace(job.run.spec(), gpus=1))
    cluster(job, update="exit 0")
    job.fake("srun", FAILS_ON_N2)
    assert job.start().returncode == 1
    assert [event["cause"] for event in job.events("attempt_ended")] == ["crash", "crash"]
    assert len(job.events("restarted")) == job.requeues() == 1
    assert (job.bin / "updates").read_text() == "update JobId=7 ExcNodeList=n2,n4\n"
    (out,) = job.events("node_excluded")
    assert (out["node"], out["reason"]) == ("n2", "ranks crashed there alone")
    assert read_state(job.run, {}, Records.read(job.run)).excluded == ("n2",)
    assert explain(job.run).attempts[-1].startswith("n2 is left out until ")


def test_a_program_that_fails_at_the_same_step_twice_blames_no_node(job: Job) -> None:
    """Its rank is on the same node each time, and the others only miss it."""
    job.run.write_spec(replace(job.run.spec(), gpus=1, max_restarts=1))
    cluster(job, update="exit 0")
    metrics = job.run.root / "out" / "metrics.jsonl"
    metrics.parent.mkdir()
    point = '{"time": 1, "global_step": 437, "loss": 1.0}'
    fails = FAILS_ON_N2.splitlines()[3:]
    job.fake("srun", "\n".join([f"echo '{point}' >> '{metrics}'", *fails]))
    assert job.start().returncode == 1
    assert [event.get("step") for event in job.events("node_suspected")] == [437, 437]
    assert failed_nodes(job.run.events(), time.time(), 24) == {}


def test_a_job_is_asked_for_before_what_to_leave_out_of_it(job: Job) -> None:
    """It may be about to end, and a busy controller takes seconds for each question."""
    failed = {"node": "n2", "reason": "it was lost", "certain": True}
    job.run.append("node_suspected", attempt=1, **failed)
    cluster(job, update="exit 0")
    scontrol = (job.bin / "scontrol").read_text()
    job.fake("scontrol", f'echo "$*" >> "$HERE/asked"\n{scontrol}')
    job.fake("srun", "exit 75")
    assert job.start().returncode == 75
    asked = (job.bin / "asked").read_text().splitlines()
    assert asked.index("requeue 7") < asked.index("show node --oneliner --all")
    assert asked[-1] == "update JobId=7 ExcNodeList=n2,n4"


def test_a_node_is_left_out_of_one_task_of_an_array(job: Job) -> None:
    """The launcher knows the task by its array and index, whatever id Slurm has given it."""
    job.run.root.rename(job.run.root.with_name("2"))
    job.run = RunFolder(job.run.root.with_name("2"))
    job.run.write_spec(replace(job.run.spec(), gpus=1))
    job.run.append("submitted", job_id="1_2", cluster="slurm")
    cluster(job, update="exit 0", ArrayJobId="1", ArrayTaskId="2")
    job.fake("srun", FAILS_ON_N2)
    array = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "2"}
    assert job.start(job.run.root.parent, **array).returncode == 1
    assert (job.bin / "updates").read_text() == "update JobId=1_2 ExcNodeList=n2,n4\n"
    assert read_state(job.run, {}, Records.read(job.run)).excluded == ("n2",)


def test_a_list_that_the_site_refuses_is_a_line_and_moves_no_job_again(job: Job) -> None:
    job.run.write_spec(replace(job.run.spec(), gpus=1, max_restarts=9))
    cluster(job, update="echo Access denied >&2; exit 1")
    job.fake("srun", FAILS_ON_N2)
    done = job.start()
    said = "n2 failed and is not left out: Slurm refuses: Access denied"
    assert f"launcher: warning: {said}\n" in done.stdout
    assert said in explain(job.run).attempts
    # Where Slurm runs the job again, on the same nodes, a crash is tried again in place as ever.
    crashes_once = CRASH_ONCE.rstrip() + f" || {{ {FAILS_ON_N2}\n}}"
    job.fake("srun", crashes_once)
    assert job.start().returncode == 0
    assert job.requeues() == 1


@pytest.mark.parametrize("fields", [{"NumNodes": "3"}, {"ReqNodeList": "n1"}, {"Requeue": "0"}])
def test_a_job_that_could_not_start_elsewhere_keeps_its_nodes(
    job: Job, fields: dict[str, str]
) -> None:
    job.run.write_spec(replace(job.run.spec(), gpus=1, max_restarts=2))
    cluster(job, update="exit 0", **fields)
    job.fake("srun", FAILS_ON_N2)
    assert job.start().returncode == 1
    assert [event["cause"] for event in job.events("attempt_ended")] == ["crash"] * 3
    assert not (job.bin / "updates").exists()
    assert job.requeues() == 0


LOSES_N2 = """
case "$1 $2" in
  "show hostnames") echo "$3" | tr , '\\n' ;;
  "show job")
    left=n1,n2,n3; [ ! -e "$HERE/starts" ] || left=n1,n3
    echo "JobId=7 JobState=RUNNING TimeLimit=UNLIMITED EndTime=Unknown NodeList=$left" ;;
esac
"""
KILLED_WITH_N2 = """
case "$*" in *launcher.supervise.guard*) exit 0 ;; esac
echo "$*" >> "$HERE/starts"
[ "$(wc -l < "$HERE/starts")" -eq 1 ] || exit 0
echo "srun: error: Node failure on n2" >&2
exit 0
"""


@pytest.mark.parametrize(
    ("held", "ranks"),
    [
        ({"nodes": 3, "min_nodes": 2}, ["--nodelist=n1,n2,n3", "--nodelist=n1,n3"]),
        ({"nodes": 2, "spare_nodes": 1}, ["--nodelist=n1,n2", "--nodelist=n1,n3"]),
        ({"nodes": 3, "min_nodes": 3}, ["--nodelist=n1,n2,n3"]),
    ],
)
def test_a_job_that_has_nodes_left_goes_on_with_them(
    job: Job, held: dict[str, int], ranks: list[str]
) -> None:
    """srun calls the end of a step a success that a lost node has ended."""
    job.run.write_spec(replace(job.run.spec(), gpus=2, **held))
    job.fake("scontrol", f"{LOSES_N2}\n{COUNT_REQUEUES}")
    job.fake("srun", KILLED_WITH_N2)
    job.start(SLURM_JOB_NODELIST="n1,n2,n3", SLURMD_NODENAME="n1")
    starts = [line.split() for line in (job.bin / "starts").read_text().splitlines()]
    assert [words[3] for words in starts] == ranks
    sizes = [words[0:3] for words in starts]
    assert sizes == [
        [f"--nodes={n}", f"--ntasks={2 * n}", "--ntasks-per-node=2"]
        for n in (line.count(",") + 1 for line in ranks)
    ]
    assert job.requeues() == (len(ranks) == 1)
    first = job.events("attempt_ended")[0]
    assert (first["cause"], first["exit_code"]) == ("node_failure", 0)
    if len(ranks) == 1:
        return
    assert job.events("restarted")[0]["nodes"] == ["n1", "n3"]
    assert job.events("attempt_started")[1]["nodes"] == ["n1", "n3"]
    assert explain(job.run).attempts[0] == (
        "attempt 1 lost a node at step 0 (n2); restarted in the same job on n1,n3"
    )
    seconds = [float(str(event["time"])) for event in job.run.events()]
    kinds = [event["event"] for event in job.run.events()]
    assert seconds[kinds.index("restarted")] < seconds[-1] - FENCE_SECONDS


def test_the_guards_look_on_while_no_rank_runs(job: Job) -> None:
    """Between two attempts, too, the batch host may be lost, and with it the supervisor."""
    job.run.write_spec(replace(job.run.spec(), nodes=3, min_nodes=2))
    alive = '{ xargs -n1 kill -0 < "$HERE/guards" && echo on >> "$HERE/guarded"; }'
    keeps_all = LOSES_N2.replace("left=n1,n3", "left=n1,n2,n3")
    job.fake("scontrol", f'{keeps_all}\n[ "$1 $2" != "show step" ] || {alive}')
    watches = 'echo $$ >> "$HERE/guards"; exec sleep 600'
    job.fake("srun", f'case "$*" in *launcher.supervise.guard*) {watches} ;; esac\n{CRASH_ONCE}')
    done = job.start(SLURM_JOB_NODELIST="n1,n2,n3", SLURMD_NODENAME="n1")
    assert done.returncode == 0, done.stdout
    guards = [int(line) for line in (job.bin / "guards").read_text().splitlines()]
    assert len(guards) == 2
    assert {*(job.bin / "guarded").read_text().splitlines()} == {"on"}
    assert not any(Path(f"/proc/{pid}").exists() for pid in guards), "they end with the job"


LISTS_THE_STEP = """
case "$1 $2" in
  "show config") echo "KillWait = 1 sec"; echo "SlurmdTimeout = 300 sec" ;;
  "show step") echo "StepId=7.0" ;;
esac
"""
LISTS_UNTIL_IT_IS_LOST = """
case "$1 $2" in
  "show config") echo "SlurmdTimeout = 300 sec" ;;
  "show step") [ -e "$HERE/listed" ] || echo StepId=7.0; touch "$HERE/listed" ;;
esac
"""
NOTICE = "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T12:00:00 ***"


@pytest.mark.parametrize("asked", [True, False], ids=["launcher cancel", "scancel"])
def test_a_cancel_after_a_node_is_lost_ends_a_job_that_would_go_on(job: Job, asked: bool) -> None:
    """It comes while Slurm still lists the step of the lost node's ranks."""
    job.run.write_spec(replace(job.run.spec(), nodes=3, min_nodes=2))
    events, log = job.run.events_file, job.run.batch_log
    request = f"""echo '{{"time": 1, "event": "cancel_requested"}}' >> '{events}'"""
    job.fake("scontrol", f"{LOSES_N2}\n{LISTS_THE_STEP}\n{COUNT_REQUEUES}")
    job.fake(
        "srun",
        f"""case "$*" in *launcher.supervise.guard*) exit 0 ;; esac
echo "$*" >> "$HERE/starts"
supervisor=$PPID
(
  until grep -q attempt_ended '{events}'; do sleep 0.1; done
  {request if asked else ""}
  echo '{NOTICE}' >> '{log}'
  kill "$supervisor"
) > /dev/null 2>&1 &
echo "srun: error: Node failure on n2" >&2
exit 0""",
    )
    assert_cancelled_without_requeue(job)


def test_a_cancel_of_a_job_that_outlives_a_node_is_no_loss_of_it(job: Job) -> None:
    """It comes while the ranks of the nodes that are left still end."""
    job.run.write_spec(replace(job.run.spec(), nodes=3, min_nodes=2))
    job.fake("scontrol", f"{LOSES_N2}\n{LISTS_THE_STEP}\n{COUNT_REQUEUES}")
    job.fake(
        "srun",
        f"""case "$*" in *launcher.supervise.guard*) exit 0 ;; esac
echo "$*" >> "$HERE/starts"
echo "srun: error: Node failure on n2" >&2
echo '{NOTICE}' >> '{job.run.batch_log}'
kill "$PPID"
sleep 3""",
    )
    assert_cancelled_without_requeue(job)


def assert_cancelled_without_requeue(job: Job) -> None:
    done = job.start(SLURM_JOB_NODELIST="n1,n2,n3", SLURMD_NODENAME="n1")
    assert done.returncode == 130, done.stdout
    assert job.requeues() == 0
    assert [event["cause"] for event in job.events("attempt_ended")] == ["node_failure"]
    final = job.run.final()
    assert final is not None
    assert final.cause == "cancelled"


def test_a_node_that_slurm_finds_lost_after_a_crash_is_known_as_lost(job: Job) -> None:
    """The other ranks miss its ranks at once; Slurm waits for its slurmd."""
    job.run.write_spec(replace(job.run.spec(), nodes=3, min_nodes=2))
    later = f"grep -q attempt_ended '{job.run.events_file}'"
    job.fake("scontrol", f"""{LOSES_N2.replace('[ ! -e "$HERE/starts" ]', f"! {later}")}""")
    job.fake("srun", f'case "$*" in *launcher.supervise.guard*) exit 0 ;; esac\n{CRASH_ONCE}')
    done = job.start(SLURM_JOB_NODELIST="n1,n2,n3", SLURMD_NODENAME="n1")
    assert done.returncode == 0, done.stdout
    assert [event["cause"] for event in job.events("attempt_ended")] == ["crash", "done"]
    assert [event["nodes"] for event in job.events("node_failed")] == [["n2"]]
    (suspect,) = job.events("node_suspected")
    assert (suspect["node"], suspect["certain"]) == ("n2", True)


def test_a_crash_that_a_silent_node_may_have_caused_waits_for_slurms_word(job: Job) -> None:
    """Slurm lists the step until it finds the node lost; a crash would end this run."""
    job.run.write_spec(replace(job.run.spec(), nodes=3, min_nodes=2, max_restarts=0))
    found_lost = LOSES_N2.replace("starts", "listed")
    job.fake("scontrol", f"{found_lost}\n{LISTS_UNTIL_IT_IS_LOST}")
    job.fake("srun", f'case "$*" in *launcher.supervise.guard*) exit 0 ;; esac\n{CRASH_ONCE}')
    done = job.start(SLURM_JOB_NODELIST="n1,n2,n3", SLURMD_NODENAME="n1")
    assert done.returncode == 0, done.stdout
    assert [event["cause"] for event in job.events("attempt_ended")] == ["node_failure", "done"]
    assert [event["nodes"] for event in job.events("node_failed")] == [["n2"]]
    assert [event["nodes"] for event in job.events("restarted")] == [["n1", "n3"]]


def test_a_spare_node_replaces_an_unfit_one_though_slurm_still_lists_the_look(job: Job) -> None:
    job.run.write_spec(replace(job.run.spec(), nodes=2, spare_nodes=1, gpus=1, preflight=True))
    keeps_all = LOSES_N2.replace("left=n1,n3", "left=n1,n2,n3")
    job.fake("scontrol", f"{keeps_all}\n{LISTS_UNTIL_IT_IS_LOST}\n{COUNT_REQUEUES}")
    third = """echo '{"node": "n3", "folder": ""}'\n    echo "$*" """
    look = LOOKED_AT.replace('echo "$*"', third, 1).replace("FAULT", "Read-only file system")
    guards = 'case "$*" in *launcher.supervise.guard*) exit 0 ;; esac'
    job.fake("srun", f"{guards}\n{look.replace('CODE', '0')}")
    done = job.start(SLURM_JOB_NODELIST="n1,n2,n3", SLURMD_NODENAME="n1")
    assert done.returncode == 0, done.stdout
    assert [event["cause"] for event in job.events("attempt_ended")] == ["unfit_node", "done"]
    assert job.events("attempt_started")[1]["nodes"] == ["n1", "n3"]
    assert job.requeues() == 0


@pytest.mark.parametrize(
    ("held", "begins_on"),
    [({"nodes": 2, "spare_nodes": 1}, "n1,n3"), ({"nodes": 3, "min_nodes": 2}, "n1,n2,n3")],
)
def test_a_job_that_runs_again_begins_on_a_spare_node_instead_of_a_failed_one(
    job: Job, held: dict[str, int], begins_on: str
) -> None:
    """A small cluster has no other node, so the failed one is not left out."""
    job.run.write_spec(replace(job.run.spec(), **held))
    failed = {"node": "n2", "reason": "its GPU reported Xid 79", "certain": True}
    job.run.append("node_suspected", attempt=1, **failed)
    job.fake("scontrol", LOSES_N2)
    job.fake("srun", 'echo "$*" >> "$HERE/asked"')
    job.start(SLURM_JOB_NODELIST="n1,n2,n3", SLURMD_NODENAME="n1")
    asked = (job.bin / "asked").read_text().splitlines()
    (ranks,) = (line for line in asked if "launcher.supervise.guard" not in line)
    assert f"--nodelist={begins_on} " in ranks
