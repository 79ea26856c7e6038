"""``slurm/pretrain.sbatch``, run by a real shell; srun and scontrol are stand-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.inspect import run_state as state
from launcher.inspect.control import requeue_run
from launcher.spec.run_folder import RunFolder
from minimind.errors import ConfigError
from minimind.report.read import read_run
from tests.e2e.lab import REPOSITORY, poll
from tests.slurm_answers import UNREACHABLE_ONCE

SCRIPT = REPOSITORY / "slurm" / "pretrain.sbatch"
SCONTROL = """
case "$*" in
  requeue*) echo "$*" >> "$HERE/requeues" ;;
  *"show job"*) echo "JobId=7 JobState=${STATE:-RUNNING} PreemptTime=${PREEMPTED:-None} Restarts=0"
esac
"""

AT = "CANCELLED AT 2026-01-01T12:00:00"
SCANCEL = f"slurmstepd-n1: error: *** JOB 7 ON n1 {AT} ***"


def save_after(*notices: str) -> str:
    """Ranks that are told to stop by what Slurm writes into the log, and save."""
    return "".join(f"echo '{notice}' >&2\n" for notice in notices) + "exit 75"


class Script:
    """The script as a job of Slurm's, whose output every attempt appends to one file."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.run_dir = folder / "a run"
        self.log = folder / "the log"
        self.fake("scontrol", SCONTROL)

    def fake(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def launch(self, ranks: str, *flags: str, **environment: str) -> subprocess.Popen[bytes]:
        """An attempt whose ranks do what the shell lines ``ranks`` say."""
        self.fake("srun", ranks)
        own = {
            "RUN_DIR": str(self.run_dir),
            "PYTHON": sys.executable,
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n1",
            "HERE": str(self.bin),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
        }
        with self.log.open("ab") as log:
            return subprocess.Popen(
                ["bash", str(SCRIPT), "--epochs", "1", *flags],
                env={**os.environ, **own, **environment},
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
            )

    def start(self, ranks: str, *flags: str, **environment: str) -> int:
        """One attempt, from its beginning to its end; returns its exit status."""
        return self.launch(ranks, *flags, **environment).wait(60)

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.run_dir)

    def events(self, kind: str) -> list[dict[str, object]]:
        return [event for event in self.run.events() if event["event"] == kind]

    def causes(self) -> list[object]:
        return [event["cause"] for event in self.events("attempt_ended")]

    def requeues(self) -> int:
        asked = self.bin / "requeues"
        return len(asked.read_text().splitlines()) if asked.exists() else 0

    def stopped(self) -> str:
        final = self.run.final()
        return "" if final is None or final.cause == "done" else final.reason


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def test_a_stop_on_request_is_run_again(script: Script) -> None:
    assert script.start("exit 75") == 75
    assert script.requeues() == 1
    assert not script.stopped()


@pytest.mark.parametrize(
    "notice",
    [SCANCEL, SCANCEL.replace(" ***", " DUE to SIGNAL Terminated ***")],
)
def test_scancel_stops_it_for_good(script: Script, notice: str) -> None:
    step = f"slurmstepd-n1: error: *** STEP 7.0 ON n1 {AT} ***"
    assert script.start(save_after(step, notice)) == 130
    assert script.requeues() == 0
    assert "cancelled" in script.stopped()


def test_a_cancelled_job_whose_log_is_elsewhere_is_stopped_too(script: Script) -> None:
    assert script.start("exit 143", STATE="CANCELLED") == 130
    assert script.requeues() == 0


@pytest.mark.parametrize(
    "notices",
    [
        (f"*** JOB 7 ON n1 {AT} DUE TO PREEMPTION ***",),
        (f"*** JOB 7 ON n1 {AT} DUE TO TIME LIMIT ***",),
        (f"*** JOB 7 ON n1 {AT} DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***",),
        (f"*** STEP 7.0 ON n1 {AT} DUE TO PREEMPTION ***", SCANCEL),
        # With GraceTime, and after scancel --signal, only the step is told.
        (f"*** STEP 7.0 ON n1 {AT} ***",),
        # Another job that writes into the same file.
        (SCANCEL.replace("JOB 7", "JOB 77"),),
    ],
)
def test_what_is_no_scancel_is_run_again(script: Script, notices: tuple[str, ...]) -> None:
    assert script.start(save_after(*notices)) == 75
    assert script.requeues() == 1
    assert not script.stopped()


def test_a_preemption_that_the_controller_knows_of_is_no_scancel(script: Script) -> None:
    assert script.start(save_after(SCANCEL), PREEMPTED="2026-01-01T11:59:58") == 75
    assert script.requeues() == 1


def test_an_earlier_attempts_scancel_does_not_count(script: Script) -> None:
    script.start(save_after(SCANCEL))
    (script.run_dir / "STOPPED").unlink()
    assert script.start("exit 75") == 75
    assert script.requeues() == 1
    assert not script.stopped()


def test_a_controller_that_does_not_answer_once_drops_no_run(script: Script) -> None:
    script.fake("scontrol", UNREACHABLE_ONCE)
    assert script.start("exit 75") == 75
    assert script.requeues() == 2


def test_a_job_that_is_cancelled_while_nobody_answers_stays_cancelled(script: Script) -> None:
    notice = f"[ \"$1\" = requeue ] && echo '{SCANCEL}' >> '{script.log}'"
    script.fake("scontrol", f"{notice}\n{UNREACHABLE_ONCE}")
    assert script.start("exit 75") == 130
    assert script.requeues() == 1
    assert "cancelled" in script.stopped()


def test_a_refused_requeue_is_not_asked_for_again(script: Script) -> None:
    silence = UNREACHABLE_ONCE.splitlines()[4]
    refusal = 'echo "Requested operation is presently disabled for job 7" >&2'
    script.fake("scontrol", UNREACHABLE_ONCE.replace(silence, refusal))
    assert script.start("exit 75") == 75
    assert script.requeues() == 1


def test_the_end_leaves_a_marker(script: Script) -> None:
    assert script.start("exit 0") == 0
    assert (script.run_dir / "DONE").exists()
    assert script.start("exit 1") == 0, "a finished run was started again"
    assert script.requeues() == 0


def test_ranks_inherit_no_place_from_the_submitters_shell(script: Script) -> None:
    place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    script.start('env > "$HERE/seen"', **place, MASTER_ADDR="elsewhere", MASTER_PORT="1")
    seen = dict(line.split("=", 1) for line in (script.bin / "seen").read_text().splitlines())
    assert not place.keys() & seen.keys()
    assert seen["MASTER_ADDR"] != "elsewhere"
    assert seen["MASTER_PORT"] != "1"


def test_a_run_that_is_stopped_says_what_to_remove(script: Script) -> None:
    script.start(save_after(SCANCEL))
    assert script.start("exit 0") == 130
    assert f"remove {script.run_dir / 'STOPPED'}" in script.log.read_text()
    assert script.run.attempt_numbers() == [1]


@pytest.mark.parametrize(
    ("marker", "text", "code"),
    [("DONE", "", 0), ("STOPPED", "crashed more than 3 times\n", 1)],
)
def test_an_end_that_the_script_marked_before_it_had_a_supervisor_holds(
    script: Script, marker: str, text: str, code: int
) -> None:
    script.run_dir.mkdir()
    (script.run_dir / marker).write_text(text)
    assert script.start("exit 9") == code
    assert text.strip() in script.log.read_text()
    assert script.run.attempt_numbers() == []


REAL_RANK = """
while [ "${1#-}" != "$1" ]; do shift; done
SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 exec "$@" 2> "$HERE/said"
"""


def test_flags_that_the_training_refuses_are_not_tried_again(script: Script) -> None:
    assert script.start(REAL_RANK, "--hidden_size", "-1") == 2
    assert "--hidden_size" in (script.bin / "said").read_text()
    assert script.causes() == ["config"]
    assert script.stopped()
    assert script.requeues() == 0


def test_the_ranks_train_in_the_run_folder_unless_a_flag_says_otherwise(script: Script) -> None:
    size = {"SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "4"}
    script.start('echo "$@" > "$HERE/words"', "--save_dir", "elsewhere", **size)
    words = (script.bin / "words").read_text().strip()
    assert words.endswith(f"{sys.executable} -u -m launcher.task {script.run_dir}")
    spec = script.run.spec()
    assert (spec.nodes, spec.gpus, spec.workdir) == (2, 4, str(REPOSITORY))
    assert spec.train_args[-4:] == ("--epochs", "1", "--save_dir", "elsewhere")
    assert spec.save_dir == str(REPOSITORY / "elsewhere")
    assert f"{script.run_dir}/checkpoints" in spec.train_args


def rank_says(event: str, **values: object) -> str:
    line = json.dumps({"time": 1.0, "event": event, **values})
    return f"echo '{line}' >> \"$MINIMIND_EVENTS\"\n"


LEAVE_A_CHECKPOINT = """
folder="$(dirname "$MINIMIND_EVENTS")/checkpoints"
mkdir -p "$folder" && touch "$folder/pretrain_512.pt"
"""


def test_a_run_under_way_is_seen_by_report_and_status(script: Script) -> None:
    saved = LEAVE_A_CHECKPOINT + "".join(rank_says(event, step=step) for event, step in SAVED)
    job = script.launch(f'{saved}while [ ! -e "$HERE/go" ]; do sleep 0.1; done; exit 75')
    poll(lambda: script.run_dir.exists() and script.events("checkpointed"), "the first save", 30)
    found = read_run(script.run_dir)
    assert found.state == "running"
    assert [each.number for each in found.account.attempts] == [1]
    assert state.job_state(script.run, {"7": {"JobState": "RUNNING"}})[0] == state.RUNNING
    (script.bin / "go").touch()
    assert job.wait(30) == 75
    assert script.start("exit 0") == 0
    found = read_run(script.run_dir)
    assert found.state == "done"
    assert [each.cause for each in found.account.attempts] == ["stop_requested", "done"]
    assert found.account.goodput is not None
    submitted = {"job_id": "7", "cluster": "slurm", "nodes": 1, "gpus": 1}
    (event,) = script.events("submitted")
    assert {key: event[key] for key in submitted} == submitted, "a requeued job submits nothing"


SAVED = (("started", 0), ("checkpointed", 5))


def test_a_checkpoint_that_is_gone_ends_it(script: Script) -> None:
    assert script.start(rank_says("checkpointed", step=5) + "exit 75") == 75
    assert script.start("exit 0") == 2
    assert "step 5 is on record" in script.stopped()
    assert script.causes() == ["stop_requested"]
    assert script.requeues() == 1


def test_a_hang_is_ended_and_tried_again(script: Script) -> None:
    script.fake("scontrol", f'[ "$2" != step ] || echo StepId=7.0 UserId=0\n{SCONTROL}')
    script.fake("scancel", 'echo "$*" >> "$HERE/signals"; kill -9 "$(cat "$HERE/pid")"')
    assert script.start('echo $$ > "$HERE/pid"; exec sleep 60', HANG_TIMEOUT="1") == 137
    assert script.causes() == ["hang"]
    assert (script.bin / "signals").read_text().startswith("--signal=QUIT 7.0\n")
    assert script.requeues() == 1


def test_crashes_have_a_budget(script: Script) -> None:
    assert script.start("exit 9", MAX_CRASHES="1") == 9
    assert script.requeues() == 1
    assert script.start("exit 9", MAX_CRASHES="1") == 9
    assert script.requeues() == 1
    assert "2 failed attempts" in script.stopped()


def test_attempts_without_progress_stop_it(script: Script) -> None:
    stuck = LEAVE_A_CHECKPOINT + rank_says("resumed", step=5) + "exit 75"
    for _ in range(2):
        assert script.start(stuck) == 75
    assert script.start(stuck) == 1
    assert script.requeues() == 2
    assert "3 attempts in a row saved no new step" in script.stopped()


def test_node_failures_have_a_budget(script: Script) -> None:
    lost = 'echo "srun: error: Node failure on n2" >&2; exit 143'
    assert script.start(lost) == 143
    for number in range(2, 11):
        script.run.append("attempt_ended", attempt=number, cause="node_failure")
    assert script.start(lost) == 143
    assert script.causes() == ["node_failure"] * 11
    assert script.requeues() == 1
    assert "11 node failures; 10 are allowed" in script.stopped()


@pytest.mark.parametrize("job", ["RUNNING", "PENDING", "COMPLETING", "TELEPORTING"])
def test_another_job_does_not_take_over_a_run_that_may_be_under_way(
    script: Script, job: str
) -> None:
    script.start("exit 75")
    script.fake("scontrol", f"echo JobId=7 JobState={job}")
    assert script.start("exit 0", SLURM_JOB_ID="8") == 2
    assert f"is the run of job 7, which is {job}" in script.log.read_text()
    script.fake("scontrol", "echo JobId=7 JobState=COMPLETED")
    assert script.start("exit 0", SLURM_JOB_ID="8") == 0
    assert [event["job_id"] for event in script.events("submitted")] == ["7", "8"]


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"MAX_CRASHES": "many"}, "MAX_CRASHES 'many': must be a whole number"),
        ({"HANG_TIMEOUT": "0"}, "--hang-timeout 0: must be 1 or more"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(
    script: Script, environment: dict[str, str], complaint: str
) -> None:
    assert script.start("exit 0", **environment) == 2
    assert script.log.read_text() == f"launcher: error: {complaint}\n"


def test_a_folder_that_others_can_write_is_refused(script: Script) -> None:
    script.run_dir.mkdir()
    script.run_dir.chmod(0o777)
    assert script.start("exit 0") == 2
    assert "can be written by others" in script.log.read_text()


def test_the_launcher_says_how_such_a_run_goes_on(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.start(save_after(SCANCEL))
    monkeypatch.setenv("PATH", f"{script.bin}:{os.environ['PATH']}")
    script.fake("scontrol", "exit 0")
    with pytest.raises(ConfigError, match="sbatch the script again"):
        requeue_run(script.run)


def test_without_a_job_it_says_what_to_do_instead(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    environment |= {"RUN_DIR": str(tmp_path / "run"), "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(SCRIPT)], env=environment, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("launcher: error: no job of Slurm's")
    assert not (tmp_path / "run").exists()
