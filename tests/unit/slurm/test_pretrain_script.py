"""``slurm/pretrain.sbatch``, run by a real shell; srun and scontrol are stand-ins."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "slurm" / "pretrain.sbatch"
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

    def start(self, ranks: str, **environment: str) -> int:
        """One attempt whose ranks do what the shell lines ``ranks`` say."""
        self.fake("srun", ranks)
        own = {"RUN_DIR": str(self.run_dir), "SLURM_JOB_ID": "7", "HERE": str(self.bin)}
        own["PATH"] = f"{self.bin}:{os.environ['PATH']}"
        with self.log.open("ab") as log:
            return subprocess.run(
                ["bash", str(SCRIPT), "--epochs", "1"],
                env={**os.environ, **own, **environment},
                stdout=log,
                stderr=log,
                timeout=60,
            ).returncode

    def requeues(self) -> int:
        asked = self.bin / "requeues"
        return len(asked.read_text().splitlines()) if asked.exists() else 0

    def stopped(self) -> str:
        marker = self.run_dir / "STOPPED"
        return marker.read_text().strip() if marker.exists() else ""


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


UNREACHABLE_ONCE = """
[ "$1" = requeue ] || exit 0
echo "$*" >> "$HERE/requeues"
[ "$(wc -l < "$HERE/requeues")" -gt 1 ] && exit 0
echo "slurm_requeue error: Unable to contact slurm controller (connect failure)" >&2
exit 1
"""


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
