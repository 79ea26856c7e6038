from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from launcher.cli.output import state_text, step_text
from launcher.containers.runtimes import detect
from launcher.inspect import run_state as state
from launcher.inspect.explain import TRACEBACK, explain, first_error, pending_words
from launcher.slurm import client as slurm
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import Final, RunFolder
from launcher.supervise import attempt_log as attempt
from minimind.rundir.layout import OutputPaths


@pytest.fixture
def run(submitted: RunFolder, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(slurm, "available", lambda: True)
    return submitted


@pytest.mark.parametrize(
    "job, started, expected",
    [
        ({"JobState": "PENDING", "Reason": "Priority"}, False, state.PENDING),
        ({"JobState": "PENDING", "Reason": "BeginTime"}, True, state.REQUEUED),
        ({"JobState": "PENDING", "Reason": "JobHoldMaxRequeue"}, True, state.HELD),
        ({"JobState": "PENDING", "Reason": "launch_failed_requeued_held"}, False, state.HELD),
        ({"JobState": "PENDING", "Reason": "JobHeldUser"}, False, state.HELD),
        ({"JobState": "COMPLETING", "Reason": "None"}, True, state.RUNNING),
        ({"JobState": "CANCELLED", "Reason": "None"}, False, state.CANCELLED),
        ({"JobState": "TIMEOUT", "Reason": "TimeLimit"}, True, state.INTERRUPTED),
        ({"JobState": "SPECIAL_EXIT", "Reason": "None"}, True, state.HELD),
        ({"JobState": "POWER_UP_NODE", "Reason": "None"}, False, state.PENDING),
        # It may run in another cluster of a federation, or be in a state of a newer Slurm's.
        ({"JobState": "REVOKED", "Reason": "None"}, True, state.UNKNOWN),
        ({"JobState": "TELEPORTING", "Reason": "None"}, True, state.UNKNOWN),
        ({}, True, state.UNKNOWN),
    ],
)
def test_state_of_a_job(job: dict[str, str], started: bool, expected: str) -> None:
    assert state.slurm_state(job, started)[0] == expected


def test_held_by_max_batch_requeue_is_said_in_plain_words(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"5": {"JobState": "PENDING", "Reason": "JobHoldMaxRequeue"}}
    monkeypatch.setattr(slurm, "job_states", lambda: held)
    found = explain(run)
    assert found.state == state.HELD
    assert "MaxBatchRequeue" in found.summary
    assert found.advice == ["release it: launcher requeue demo"]


def test_refused_start_is_said_until_one_is_not_refused(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"5": {"JobState": "FAILED", "Reason": "NonZeroExitCode"}}
    monkeypatch.setattr(slurm, "job_states", lambda: job)
    with run.batch_log.open("w") as log:
        log.write("launcher: error: demo can be written by others: chmod -R go-w demo\n")
    assert "refused: demo can be written" in explain(run).advice[0]
    with run.batch_log.open("a") as log:
        log.write("launcher: attempt 1 on n1\n")
    assert len(explain(run).advice) == 1


def test_silent_controller_is_not_taken_for_an_end(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "job_states", lambda: None)
    assert explain(run).state == state.UNKNOWN


def test_job_that_slurm_forgot_can_be_continued(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "job_states", dict)
    found = explain(run)
    assert found.state == state.INTERRUPTED
    assert "launcher requeue demo" in found.advice[-1]


def test_the_end_on_disk_wins_over_what_slurm_says(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = {"5": {"JobState": "RUNNING", "Reason": "None"}}
    monkeypatch.setattr(slurm, "job_states", lambda: running)
    run.finish(Final("done", 0, "finished"))
    assert explain(run).state == state.DONE


def test_first_error_is_that_of_the_rank_that_fell_first(run: RunFolder) -> None:
    number = run.new_attempt()
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\n{}\n'
    for rank, (error, age) in enumerate([("ConnectionError: peer", 100), ("ValueError: 3", 50)]):
        path = run.rank_log(number, rank)
        path.write_text("starting\n" + trace.format(error))
        os.utime(path, (age, age))
    said = first_error(run, number)
    assert "ValueError: 3" in said
    assert "rank-1.log" in said
    assert "ConnectionError" not in said


def test_without_a_traceback_the_end_of_the_log_is_shown(run: RunFolder) -> None:
    number = run.new_attempt()
    (run.attempt_dir(number) / "srun.log").write_text("srun: error: n1: task 3: Killed\n")
    assert "task 3: Killed" in first_error(run, number)


def test_a_ranks_own_words_say_more_than_the_exit_code_that_srun_has_seen(run: RunFolder) -> None:
    number = run.new_attempt()
    srun = run.attempt_dir(number) / "srun.log"
    srun.write_text(
        "srun: cluster configuration lacks support for cpu binding\n"
        "srun: error: n1: tasks 0-1: Exited with exit code 255\n"
    )
    assert "exit code 255" in first_error(run, number)
    run.rank_log(number, 0).write_text("FATAL: stat /shared/image.sif: no such file\n")
    said = first_error(run, number)
    assert "FATAL: stat /shared/image.sif" in said
    assert "exit code 255" not in said
    srun.write_text("srun: error: n1: task 0: Out Of Memory\n")
    assert "Out Of Memory" in first_error(run, number)


def test_a_mistake_is_one_line(run: RunFolder) -> None:
    number = run.new_attempt()
    run.append("attempt_started", attempt=number)
    log = "minimind pretrain: error: /x.jsonl: no such file; check --data_path\nTraceback (most "
    log += 'recent call last):\n  File "x.py", line 1, in f\nSystemExit: 2\n'
    run.rank_log(number, 0).write_text("starting\n" + log)
    run.append("attempt_ended", attempt=number, cause="config", exit_code=2)
    run.finish(Final("config", 2, "the training refused its flags or data; see `why`"))
    found = explain(run)
    assert found.summary == "the training refused its flags or data"
    assert found.traceback.splitlines()[1:] == [log.splitlines()[0]]


def test_reasons() -> None:
    assert pending_words("Resources") == "it waits for nodes to become free (Resources)"
    assert pending_words("None") == ""
    assert pending_words("SomethingNew") == "Slurm's reason: SomethingNew"
    assert pending_words("Nodes_are_DOWN") == "Slurm's reason: Nodes are DOWN"
    assert pending_words("cancelled in Slurm") == "cancelled in Slurm"
    assert pending_words("finished") == "finished"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("QOSMaxGRESPerUser", "with it there would be more GPUs than its QOS allows"),
        ("QOSMaxCpuPerJob", "it asks for more CPUs than its QOS allows a job"),
        ("AssocMaxNodePerJobLimit", "it asks for more nodes than your account allows a job"),
        ("QOSMinGRES", "it asks for less than the minimum of GPUs that its QOS sets"),
        ("QOSMaxSubmitJobPerUserLimit", "with it there would be more jobs than its QOS allows"),
        (
            "AssocGrpCPUMinutesLimit",
            "with it there would be more time on CPUs than your account allows",
        ),
        ("AssocGrpMemLimit", "with it there would be more memory than your account allows"),
        ("AssocMaxSomethingNew", "with it there would be more resources than your account allows"),
    ],
)
def test_a_limit_is_in_plain_words_whatever_it_counts(reason: str, said: str) -> None:
    """A single job may be beyond it: nothing is said of others that run."""
    assert pending_words(reason) == f"{said} ({reason})"


def test_container_is_detected_by_file_then_by_program() -> None:
    def only(*programs: str) -> Callable[[str], str | None]:
        return lambda name: name if name in programs else None

    assert detect(None) == "none"
    assert detect("/x/a.sqsh", only()) == "enroot"
    assert detect("/x/a.sif", only("docker")) == "apptainer"
    assert detect("repo/image:1", only("docker", "podman")) == "docker"
    assert detect("repo/image:1", only("podman")) == "podman"


def test_what_a_run_prepares_is_shown_until_it_trains(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = {"5": {"JobState": "RUNNING", "Reason": "None"}}
    monkeypatch.setattr(slurm, "job_states", lambda: running)

    def shown() -> tuple[str, str]:
        now = state.read_state(run, running, state.Records.read(run))
        return step_text(now), explain(run).summary

    run.append("attempt_started", attempt=run.new_attempt(), nodes=["n1"])
    assert shown() == ("0", "")
    run.append("preparing", what="tokenising: 1 of 2 MB (50%)")
    assert shown() == ("tokenising: 1 of 2 MB (50%)", "tokenising: 1 of 2 MB (50%)")
    run.append("started", step=0)
    assert shown() == ("0", "")
    run.append("preparing", what="tokenising: again")
    run.append("attempt_started", attempt=run.new_attempt(), nodes=["n1"])
    assert shown() == ("0", "")


@pytest.mark.parametrize("slurm_says", ["RUNNING", "PENDING"])
def test_a_node_that_holds_up_a_run_is_named_while_it_does(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, slurm_says: str
) -> None:
    monkeypatch.setattr(slurm, "job_states", lambda: {"5": {"JobState": slurm_says}})
    out = OutputPaths(run.spec().save_dir)
    out.folder.mkdir(parents=True)
    slow = {"slowest_rank": 3, "slowest_node": "n2", "slowest_share": 0.25}
    points = [{"time": 1.0, "global_step": step, "loss": 2.0, **slow} for step in range(6)]
    out.metrics.write_text("".join(json.dumps(point) + "\n" for point in points))
    said = (
        "steadily slow: rank 3 on n2 was the slowest in 6 of 6 log lines; "
        "the others waited 25% of the time for it"
    )
    assert (said in explain(run).attempts) == (slurm_says == "RUNNING")
    run.append("attempt_started", attempt=run.new_attempt(), nodes=["n1", "n3"])
    out.metrics.write_text("".join(json.dumps({**p, "attempt": 0}) + "\n" for p in points))
    assert said not in explain(run).attempts, "the run has left n2"


@pytest.mark.parametrize("slurm_says", ["RUNNING", "PENDING"])
def test_a_node_whose_hours_have_passed_is_let_into_a_job_that_waits(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, slurm_says: str
) -> None:
    lists: list[list[str]] = []
    job = {"JobState": slurm_says, "ExcNodeList": "n2"}
    monkeypatch.setattr(slurm, "job_states", lambda *asked: {"5": job})
    monkeypatch.setattr(slurm, "show_nodes", lambda: {"n2": slurm.Node("n2")})
    monkeypatch.setattr(slurm, "expand_nodes", lambda nodes: nodes.split())
    monkeypatch.setattr(slurm, "exclude_nodes", lambda job_id, nodes: lists.append(nodes))
    failed = {"node": "n2", "reason": "it was lost", "attempt": 1}
    run.append("node_excluded", **failed, job_id="5", until=time.time() - 1)
    said = explain(run).attempts
    assert ("n2 may be used again: its hours have passed" in said) == (slurm_says == "PENDING")
    assert lists == ([[]] if slurm_says == "PENDING" else [])


@pytest.mark.parametrize("slurm_says", ["RUNNING", "SUSPENDED", "STOPPED"])
def test_who_suspends_a_run_is_shown_until_it_goes_on(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, slurm_says: str
) -> None:
    jobs = {"5": {"JobState": slurm_says, "Reason": "None"}}
    monkeypatch.setattr(slurm, "job_states", lambda: jobs)

    def shown() -> tuple[str, str, str]:
        now = state.read_state(run, jobs, state.Records.read(run))
        return state_text(now)[0], now.suspended, explain(run).summary

    run.append("attempt_started", attempt=run.new_attempt(), nodes=["n1"])
    run.append("preparing", what="tokenising")
    if slurm_says != "RUNNING":
        said = f"Slurm says that its job is {slurm_says}"
        assert shown() == ("SUSPENDED", said, f"suspended: {said}")
        jobs["5"]["JobState"] = "RUNNING"
    assert shown() == ("RUNNING", "", "tokenising")
    run.append("suspended", attempt=1, reason="process 7 is stopped")
    said = "process 7 is stopped"
    assert shown() == ("SUSPENDED", said, f"suspended: {said}")
    run.append("continued", attempt=1)
    assert shown() == ("RUNNING", "", "tokenising")


def end(run: RunFolder, cause: str, said: str) -> None:
    """An attempt that ended so, and what its rank wrote."""
    number = run.new_attempt()
    run.append("attempt_started", attempt=number)
    run.rank_log(number, 0).write_text(f"{TRACEBACK}\n{said}\n")
    run.append("attempt_ended", attempt=number, cause=cause)


def test_the_error_shown_is_the_newest_since_a_person_said_go_on(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "job_states", dict)
    end(run, "crash", "ValueError: old")
    assert "ValueError: old" in explain(run).traceback
    run.append("submitted", job_id="6", cluster="slurm")
    assert explain(run).traceback == ""
    end(run, "crash", "ValueError: first")
    end(run, "preempted", "")
    end(run, "hang", "ValueError: second")
    found = explain(run)
    assert "ValueError: second" in found.traceback
    assert len(found.attempts) == 4


def test_a_job_that_ended_before_its_supervisor_began_shows_what_it_wrote(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"5": {"JobState": "FAILED", "Reason": "NonZeroExitCode"}}
    monkeypatch.setattr(slurm, "job_states", lambda: job)
    assert explain(run).traceback == ""
    said = "module: command not found\n/opt/venv/bin/python: No such file or directory\n"
    run.batch_log.write_text(said)
    assert explain(run).traceback == f"[{run.batch_log}]\n{said.rstrip()}"


def test_what_an_earlier_job_wrote_is_not_shown_for_a_later_one(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "job_states", dict)
    run.batch_log.write_text("the job before\n")
    os.utime(run.batch_log, (1, 1))
    assert explain(run).traceback == ""


def test_a_run_that_may_not_go_on_says_why(run: RunFolder) -> None:
    """An earlier attempt's error, which the next one was to make good, is not the reason."""
    number = run.new_attempt()
    run.rank_log(number, 0).write_text(f"{TRACEBACK}\nOSError: disk\n")
    run.append("attempt_ended", attempt=number, cause="crash", step=10)
    attempt.refuse(run, "a checkpoint is on record, and none is there")
    found = explain(run)
    assert (found.state, found.summary) == (
        state.FAILED,
        "a checkpoint is on record, and none is there",
    )
    assert found.traceback == ""
    assert "launcher requeue demo" in found.advice[-1]


def test_an_attempt_that_the_same_job_tries_again_is_named(run: RunFolder) -> None:
    run.append("attempt_started", attempt=1)
    run.append("attempt_ended", attempt=1, cause="crash", step=10)
    run.append("restarted", attempt=1, cause="crash")
    assert explain(run).attempts == ["attempt 1 crashed at step 10; restarted in the same job"]


def test_an_attempt_that_went_back_is_named(run: RunFolder) -> None:
    for number, begun_at in ((1, 0), (2, 5)):
        run.append("attempt_started", attempt=number)
        run.append("started", step=begun_at)
        run.append("checkpointed", step=begun_at + 10)
        run.append("attempt_ended", attempt=number, cause="crash", step=begun_at + 10)
    assert explain(run).attempts == [
        "attempt 1 crashed at step 10",
        "attempt 2 crashed at step 15",
        "attempt 2 went back from step 10 to step 5",
    ]


@pytest.mark.parametrize("begun", [False, True])
def test_a_container_whose_ranks_never_began_points_to_what_it_was_given(
    begun: bool, run: RunFolder, make_spec: Callable[..., JobSpec]
) -> None:
    """podman's init does not say which program is missing: "failed to exec pid1"."""
    run.write_spec(make_spec(container="podman", image="mm:1", python="no-such-python"))
    run.append("attempt_started", attempt=1)
    if begun:
        run.append("started", attempt=1)
    run.append("attempt_ended", attempt=1, cause="crash", exit_code=1)
    run.finish(Final("crash", 1, "1 failed attempt"))
    told = any("--python (here no-such-python)" in line for line in explain(run).advice)
    assert told != begun


@pytest.mark.parametrize(("hours", "said"), [(24, True), (1, False)])
def test_a_node_that_is_kept_is_named_until_its_failure_is_forgotten(
    run: RunFolder, hours: int, said: bool
) -> None:
    two_hours_ago = {"time": time.time() - 7200, "attempt": 1, "node": "n2"}
    suspected = {"event": "node_suspected", "reason": "it was lost", "certain": True}
    kept = {"event": "node_kept", "reason": "the job asks for it by name"}
    with run.events_file.open("a") as file:
        for event in (suspected, kept):
            file.write(json.dumps({**two_hours_ago, **event}) + "\n")
    run.write_spec(replace(run.spec(), exclude_hours=hours))
    line = "n2 failed and is not left out: the job asks for it by name"
    assert (line in explain(run).attempts) == said
