"""What follows a run asks its folder all the time, and Slurm seldom and for this one job."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.inspect import follow as following
from launcher.inspect import run_state as state
from launcher.inspect.follow import StateWatch, follow
from launcher.inspect.logs import print_log
from launcher.spec.run_folder import Final, RunFolder

SCONTROL = """#!/bin/sh
echo "$*" >> "$0.asked"
cat "$0.answer"
"""


class Controller:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "scontrol"
        self.path.write_text(SCONTROL)
        self.path.chmod(0o755)
        self.says("JobId=5 JobState=RUNNING")

    def says(self, text: str) -> None:
        self.path.with_suffix(".answer").write_text(text + "\n")

    def asked(self) -> list[str]:
        log = self.path.with_suffix(".asked")
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Controller(tmp_path)


@pytest.fixture
def run(submitted: RunFolder) -> RunFolder:
    submitted.append("attempt_started", attempt=submitted.new_attempt(), nodes=["n1"])
    return submitted


def test_slurm_is_asked_for_one_job_and_seldom(run: RunFolder, controller: Controller) -> None:
    watch = StateWatch(run)
    assert {watch.look()[0] for _ in range(20)} == {state.RUNNING}
    assert controller.asked() == ["show job --oneliner --all 5"]


def test_slurm_is_asked_again_in_time(
    run: RunFolder, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "ASK_SECONDS", 0.0)
    watch = StateWatch(run)
    watch.look()
    watch.look()
    assert len(controller.asked()) == 2


def test_slurm_is_asked_at_once_when_an_attempt_has_ended(
    run: RunFolder, controller: Controller
) -> None:
    watch = StateWatch(run)
    watch.look()
    controller.says("JobId=5 JobState=PENDING Reason=BeginTime")
    run.append("attempt_ended", attempt=1, cause="preempted")
    assert watch.look()[0] == state.REQUEUED


def test_the_end_in_the_folder_is_seen_at_once(run: RunFolder, controller: Controller) -> None:
    watch = StateWatch(run)
    watch.look()
    run.finish(Final("done", 0, "finished"))
    assert watch.look()[0] == state.DONE
    assert len(controller.asked()) == 1


def test_an_end_that_only_slurm_knows_is_confirmed_by_fresh_answers(
    run: RunFolder, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)
    controller.says("JobId=5 JobState=CANCELLED")
    assert follow(str(run.root)) == 130
    assert len(controller.asked()) == following.CONFIRMATIONS


def test_a_run_that_is_followed_gets_nodes_back_while_it_waits(
    run: RunFolder,
    controller: Controller,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Slurm gives one answer to all questions here: that the job waits, without n2."""
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)
    job = "JobId=5 JobState=PENDING ExcNodeList=n2 ReqNodeList=(null) NodeName=n2 State=IDLE"
    script = f"""#!/bin/sh
case "$1 $2" in
  "show hostnames") echo "$3" ;;
  update*) echo "$*" >> "$0.updates" ;;
  *) [ -e "$0.updates" ] && echo "JobId=5 JobState=CANCELLED" || echo "{job}" ;;
esac
"""
    controller.path.write_text(script)
    run.append("node_excluded", node="n2", job_id="5", reason="it was lost", until=1.0, attempt=1)
    monkeypatch.setattr(following, "ASK_SECONDS", 0.0)
    assert follow(str(run.root)) == 130
    assert controller.path.with_suffix(".updates").read_text() == "update JobId=5 ExcNodeList=\n"
    assert "n2 may be used again: its hours have passed" in capsys.readouterr().err


def test_a_followed_log_asks_slurm_seldom_too(
    run: RunFolder, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.rank_log(1, 0).write_text("a line\n")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 20:
            assert controller.asked() == ["show job --oneliner --all 5"]
            run.finish(Final("done", 0, "finished"))

    monkeypatch.setattr("launcher.inspect.logs.time", SimpleNamespace(sleep=pause))
    print_log(run, 0, None, follow=True)
    assert len(pauses) == 20
