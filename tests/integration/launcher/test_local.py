"""The launcher where there is no Slurm: real processes, real signals, no cluster.

The training is the test double of ``tests/e2e``; one test has the real one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.inspect import run_state as state
from launcher.inspect.control import cancel_run, requeue_run
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import Final, RunFolder
from launcher.supervise import host
from minimind.errors import ConfigError
from minimind.system.process import is_alive
from tests.e2e.lab import FAKE, Lab, lab_environment, poll
from tests.integration.launcher.forked import ForkedLab

LOCAL = ("--cluster", "local", "--gpus", "2", *FAKE)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = ForkedLab(tmp_path, lab_environment() | {"XDG_CONFIG_HOME": str(tmp_path / "config")})
    yield made
    for spec in made.runs.glob("*/spec.json"):
        pid = supervisor(made, spec.parent.name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            poll(lambda pid=pid: not is_alive(pid), "the supervisor to end")
        for rank in host.living_ranks(RunFolder(spec.parent)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank, signal.SIGKILL)


def supervisor(lab: Lab, name: str) -> int | None:
    started = lab.events(name, "supervisor_started")
    return started[-1]["pid"] if started and is_alive(started[-1]["pid"]) else None


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def weights(steps: int) -> str:
    value = ""
    for step in range(1, steps + 1):
        value = hashlib.sha256(f"{value}{step}".encode()).hexdigest()
    return value


def assert_whole(lab: Lab, name: str, steps: int) -> None:
    lab.wait(name)
    assert json.loads((lab.runs / name / "out" / "weights.json").read_text()) == weights(steps)


def test_submit_status_logs_and_list(lab: Lab) -> None:
    done = lab.launcher("submit", "--name", "one", *LOCAL, "--wait", "--", "--max_steps", "8")
    assert done.returncode == 0, done.stderr
    assert "launcher status one" in done.stderr
    assert_whole(lab, "one", 8)
    state = lab.state("one")
    assert (state["step"], state["total_steps"], state["attempt"]) == (8, 8, 1)
    assert 0 < state["ledger"]["goodput"] < 1
    assert "8/8 (100%)" in lab.ok("status")
    assert state["epoch"] == 1
    assert "rank 1 of 2: from step 0" in lab.ok("logs", "one", "--rank", "1")
    assert list(json.loads(lab.ok("logs", "one", "--json"))["logs"]) == ["0", "1"]
    assert lab.ok("list").split("\t")[:2] == ["one", "DONE"]
    assert "finished" in lab.why("one")
    assert lab.launcher("logs", "one", "--rank", "5").returncode == 2


def test_a_name_is_used_once(lab: Lab) -> None:
    train = ("--max_steps", "3")
    lab.submit("twice", *LOCAL, train=train)
    lab.wait("twice")
    again = lab.launcher("submit", "--name", "twice", *LOCAL, "--", *train)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    resumed = lab.launcher("submit", "--name", "twice", "--resume", *LOCAL, "--", *train)
    assert resumed.returncode == 2
    assert "has finished" in resumed.stderr
    none = lab.launcher("submit", "--name", "none", "--resume", *LOCAL, "--", *train)
    assert none.returncode == 2
    assert not (lab.runs / "none").exists()


def test_running_run_is_not_submitted_twice(lab: Lab) -> None:
    lab.submit("busy", *LOCAL, train=("--max_steps", "5000"))
    lab.wait_for_step("busy", 1)
    again = lab.launcher("submit", "--name", "busy", "--resume", *LOCAL, "--", "--max_steps", "9")
    assert again.returncode == 2
    assert "RUNNING" in again.stderr
    assert lab.launcher("requeue", "busy").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_resume_goes_on(lab: Lab, number: signal.Signals) -> None:
    train = ("--max_steps", "40", "--save_interval", "1000", "--wait_at", "6")
    lab.submit("stopped", *LOCAL, train=train)
    lab.wait_for_step("stopped", 5)
    pid = supervisor(lab, "stopped")
    assert pid is not None
    os.kill(pid, number)
    assert lab.wait("stopped", "INTERRUPTED")["state"] == "INTERRUPTED"
    saved = lab.events("stopped", "preempted")[0]["step"]
    assert saved >= 5
    assert "launcher requeue stopped" in lab.why("stopped")
    lab.ok("submit", "--name", "stopped", "--resume", *LOCAL, "--", *train)
    assert_whole(lab, "stopped", 40)
    assert lab.steps("stopped") == list(range(1, 41))


def test_cancel_and_requeue(lab: Lab) -> None:
    train = ("--max_steps", "60", "--save_interval", "1000", "--wait_at", "4")
    lab.submit("cancelled", *LOCAL, train=train)
    lab.wait_for_step("cancelled", 3)
    lab.ok("cancel", "cancelled")
    assert lab.wait("cancelled", "CANCELLED")["exit_code"] == 130
    assert lab.causes("cancelled") == ["cancelled"]
    assert "over already" in lab.launcher("cancel", "cancelled").stderr
    lab.ok("requeue", "cancelled")
    assert_whole(lab, "cancelled", 60)
    assert lab.steps("cancelled") == list(range(1, 61)), "the cancelled attempt saved its steps"


def test_killed_supervisor_is_noticed_and_its_ranks_stand_back(lab: Lab) -> None:
    """The machine's own loss: nobody is left to record the end, and old ranks live on."""
    train = ("--max_steps", "80", "--save_interval", "5", "--wait_at", "13")
    lab.submit("killed", *LOCAL, train=train)
    lab.wait_for_step("killed", 12)
    pid = supervisor(lab, "killed")
    assert pid is not None
    ranks = children(pid)
    assert len(ranks) == 2
    os.kill(pid, signal.SIGKILL)
    poll(lambda: not is_alive(pid), "the supervisor to die")
    assert all(is_alive(rank) for rank in ranks)
    assert lab.state("killed")["state"] == "INTERRUPTED"
    lab.ok("requeue", "killed")
    poll(lambda: not any(is_alive(rank) for rank in ranks), "the old ranks to stand back", 30)
    assert_whole(lab, "killed", 80)
    assert lab.causes("killed") == ["lost", "done"]


def test_crash_is_restarted_and_a_crash_loop_stops(lab: Lab) -> None:
    once = ("--max_steps", "12", "--crash_at", "6", "--crash_rank", "1")
    lab.submit("once", *LOCAL, train=once)
    assert_whole(lab, "once", 12)
    assert lab.causes("once") == ["crash", "done"]
    loop = (*LOCAL, "--max-restarts", "1", "--wait")
    done = lab.launcher("submit", "--name", "loop", *loop, "--", *once, "--crash", "always")
    assert done.returncode == 1
    assert lab.causes("loop") == ["crash", "crash"]
    assert "RuntimeError: boom at step 6" in lab.why("loop")


def test_hang_is_dumped_and_restarted(lab: Lab) -> None:
    lab.submit("hang", *LOCAL, "--hang-timeout", "4", train=("--max_steps", "12", "--hang_at", "6"))
    assert_whole(lab, "hang", 12)
    assert lab.causes("hang") == ["hang", "done"]
    assert "hang_here" in (lab.runs / "hang" / "attempts" / "1" / "rank-1.log").read_text()


def test_suspended_run_goes_on_and_one_that_is_cancelled_saves_first(lab: Lab) -> None:
    """First its ranks are stopped, as one who wants the machine may do, then all of it."""
    train = ("--max_steps", "100000", "--save_interval", "100000")
    lab.submit("asleep", *LOCAL, "--hang-timeout", "5", train=train)
    lab.wait_for_step("asleep", 3)
    pid = supervisor(lab, "asleep")
    assert pid is not None
    ranks = children(pid)
    for process in ranks:
        os.kill(process, signal.SIGSTOP)
    poll(lambda: lab.events("asleep", "suspended"), "the watchdog to see it")
    shown = lab.state("asleep")
    assert (shown["state"], "is stopped" in shown["suspended"]) == ("RUNNING", True)
    assert "SUSPENDED" in lab.ok("status", "asleep")
    assert "RUNNING — suspended: process" in lab.why("asleep")
    for process in ranks:
        os.kill(process, signal.SIGCONT)
    poll(lambda: lab.events("asleep", "continued"), "the watchdog to see them go on")
    assert lab.state("asleep")["suspended"] == ""
    for process in (pid, *ranks):
        os.kill(process, signal.SIGSTOP)
    assert "is stopped" in lab.state("asleep")["suspended"]
    lab.ok("cancel", "asleep")
    assert lab.wait("asleep", "CANCELLED")["attempt"] == 1
    assert lab.causes("asleep") == ["cancelled"]
    assert lab.events("asleep", "preempted")[0]["step"] > 3


def test_bad_data_is_exit_2_and_not_tried_again(lab: Lab) -> None:
    done = lab.launcher("submit", "--name", "bad", *LOCAL, "--wait", "--", "--exit", "2")
    assert done.returncode == 2
    assert lab.causes("bad") == ["config"]


def test_run_whose_checkpoints_vanished_is_not_begun_again(lab: Lab) -> None:
    run = RunFolder(lab.runs / "gone")
    run.attempts.mkdir(parents=True)
    run.root.chmod(0o700)
    run.write_spec(JobSpec(name="gone", run_dir=str(run.root), workdir=str(lab.folder)))
    run.append("checkpointed", step=10)
    done = lab.launcher("run", "--name", "gone", "--resume", "--procs", "2", "--", "--epochs", "1")
    assert done.returncode == 2
    assert f"{run.checkpoints} holds no pretrain_512.pt: bring it back" in done.stdout
    assert run.attempt_numbers() == []
    assert "step 10 is on record" in lab.why("gone")
    done = lab.launcher("requeue", "gone")
    assert "as seen from this machine, a checkpoint of optimiser step 10" in done.stderr
    assert lab.wait("gone", "FAILED")["exit_code"] == 2


def test_python_that_is_not_there_is_said(lab: Lab) -> None:
    options = ("--name", "none", *LOCAL, "--python", "/nonexistent/python", "--wait")
    assert lab.launcher("submit", *options, "--", "--max_steps", "3").returncode == 2
    assert lab.causes("none") == ["config"]
    said = lab.why("none")
    assert "launcher: error: cannot start /nonexistent/python: No such file or directory" in said
    assert "Traceback" not in said
    assert "Traceback" not in "".join(p.read_text() for p in lab.runs.glob("none/submitit/*.err"))
    options = ("--name", "here", "--procs", "2", *FAKE, "--python", "/nonexistent/python")
    done = lab.launcher("run", *options)
    assert done.returncode == 2
    assert "cannot start /nonexistent/python" in done.stdout


def test_secret_reaches_the_ranks_and_no_file_but_its_own(lab: Lab) -> None:
    lab.environment["MY_TOKEN"] = "s3cret-value"
    lab.environment["MY_PIN"] = "12"
    names = ("--secret-env", "MY_TOKEN", "--secret-env", "MY_PIN")
    train = ("--max_steps", "3", "--print_env", "MY_TOKEN", "MY_PIN")
    lab.submit("secret", *LOCAL, *names, train=train)
    lab.wait("secret")
    printed = json.loads((lab.runs / "secret/attempts/1/rank-0.log").read_text().splitlines()[0])
    # So short a value is left: it stands in many a number, too.
    assert printed["env"] == {"MY_TOKEN": "***", "MY_PIN": "12"}
    holders = []
    for path in (lab.runs / "secret").rglob("*"):
        if path.is_file() and b"s3cret-value" in path.read_bytes():
            holders.append(path.name)
    assert holders == ["secrets.json"]


AWKWARD = [
    "two words",
    'it\'s "quoted"',
    "$(touch executed)",
    "`touch executed`; touch executed",
    "line\nbreak",
    "naïve 数据 🚀",
    "-n",
    "--",
    "",
    "back\\slash %j *",
]


def test_values_reach_the_job_as_they_were_typed(lab: Lab) -> None:
    folder = lab.folder / "it's a $(touch executed) `x` 数据; &"
    folder.mkdir()
    entries = [word for i, value in enumerate(AWKWARD) for word in ("--env", f"V{i}={value}")]
    names = [f"V{i}" for i in range(len(AWKWARD))]
    flags = [f"--print_args={json.dumps(AWKWARD)}", "--print_env", *names, "--max_steps", "2"]
    done = lab.launcher(
        *("submit", "--name", "awkward", *LOCAL, *entries, "--wait", "--", *flags), cwd=folder
    )
    assert done.returncode == 0, done.stderr
    log = (folder / "runs/awkward/attempts/1/rank-0.log").read_text()
    seen = json.loads(next(line for line in log.splitlines() if line.startswith("{")))
    assert [seen["env"][name] for name in names] == AWKWARD
    assert json.loads(seen["args"][0]) == AWKWARD
    assert not list(lab.folder.rglob("executed"))


def test_the_terminal_may_close(lab: Lab) -> None:
    """The run is in a session of its own: what kills the shell's whole group leaves it alone."""
    command = [sys.executable, "-m", "launcher", "submit", "--name", "alone", *LOCAL]
    shell = subprocess.Popen(
        [*command, "--wait", "--", "--max_steps", "30"],
        cwd=lab.folder,
        env=lab.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    lab.wait_for_step("alone", 2)
    os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()
    assert_whole(lab, "alone", 30)


def test_follow_prints_the_log_to_the_end(lab: Lab) -> None:
    lab.submit("followed", *LOCAL, train=("--max_steps", "15"))
    poll(lambda: lab.events("followed", "attempt_started"), "the start")
    done = lab.launcher("logs", "followed", "-f")
    assert done.returncode == 0
    assert "rank 0 of 2: from step 0" in done.stdout
    assert lab.state("followed")["state"] == "DONE"


def test_code_snapshot_is_what_runs(lab: Lab, tmp_path: Path) -> None:
    """An edit after the submission does not reach a run that goes on."""
    train = ("--max_steps", "200", "--save_interval", "1")
    lab.submit("snapshot", *LOCAL, train=train)
    lab.wait_for_step("snapshot", 2)
    marker = lab.runs / "snapshot" / "code" / "launcher" / "task.py"
    before = marker.stat().st_ino
    pid = supervisor(lab, "snapshot")
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    lab.wait("snapshot", "INTERRUPTED")
    lab.ok("requeue", "snapshot")
    lab.wait_for_step("snapshot", 5, attempt=2)
    assert marker.stat().st_ino == before
    environment = Path(f"/proc/{supervisor(lab, 'snapshot')}/cwd").resolve()
    assert environment == lab.runs / "snapshot" / "code"
    assert time.time() > marker.stat().st_mtime


def test_run_in_the_foreground(lab: Lab) -> None:
    words = ("run", "--name", "here", "--procs", "2", *FAKE, "--")
    done = lab.launcher(*words, "--max_steps", "6")
    assert done.returncode == 0, done.stderr
    assert "rank 0 of 2: from step 0" in done.stdout
    assert_whole(lab, "here", 6)
    assert lab.launcher(*words, "--max_steps", "6").returncode == 2, "the name is taken"
    both = lab.launcher("run", "--procs", "2", "--gpus", "2", *FAKE, "--")
    assert both.returncode == 2


def test_interrupted_foreground_run_is_saved_and_resumed(lab: Lab) -> None:
    words = ["run", "--name", "ctrl-c", "--procs", "2", *FAKE]
    train = ["--", "--max_steps", "40", "--save_interval", "1000", "--wait_at", "6"]
    shell = subprocess.Popen(
        [sys.executable, "-m", "launcher", *words, *train],
        cwd=lab.folder,
        env=lab.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    lab.wait_for_step("ctrl-c", 5)
    # What Ctrl-C does: the whole foreground group gets it. Ranks are not in it.
    os.killpg(shell.pid, signal.SIGINT)
    assert shell.wait(60) == 75
    assert lab.launcher(*words, "--resume", *train).returncode == 0
    assert_whole(lab, "ctrl-c", 40)
    assert lab.steps("ctrl-c") == list(range(1, 41))


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal of its own: this end of it, and the one where a program runs."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    for end in (ours, theirs):
        with contextlib.suppress(OSError):
            os.close(end)


def run_on_terminal(lab: Lab, end: int, *words: str) -> subprocess.Popen[bytes]:
    """Starts the launcher as the program that a terminal belongs to."""
    return subprocess.Popen(
        [sys.executable, "-m", "launcher", *words],
        cwd=lab.folder,
        env=lab.environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        stdin=end,
        stdout=end,
        stderr=end,
    )


def test_foreground_run_is_saved_when_its_terminal_closes(
    lab: Lab, terminal: tuple[int, int]
) -> None:
    """A dropped connection: the kernel sends SIGHUP, and nothing can be printed any more."""
    ours, theirs = terminal
    words = ("run", "--name", "dropped", "--procs", "2", *FAKE)
    train = ("--", "--max_steps", "40", "--save_interval", "1000", "--wait_at", "6")
    shell = run_on_terminal(lab, theirs, *words, *train)
    lab.wait_for_step("dropped", 5)
    ranks = children(shell.pid)
    assert len(ranks) == 2
    os.close(theirs)
    os.close(ours)
    assert shell.wait(60) == 75
    assert not any(is_alive(rank) for rank in ranks)
    assert lab.causes("dropped") == ["stop_requested"]
    assert lab.launcher(*words, "--resume", *train).returncode == 0
    assert_whole(lab, "dropped", 40)
    assert lab.steps("dropped") == list(range(1, 41))


def test_run_that_is_told_to_outlive_its_terminal_does(lab: Lab, terminal: tuple[int, int]) -> None:
    """nohup lets a program ignore SIGHUP; this one prints into a terminal that is gone, besides."""
    ours, theirs = terminal
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        words = ("run", "--name", "nohup", "--procs", "1", *FAKE, "--", "--max_steps", "30")
        shell = run_on_terminal(lab, theirs, *words)
    finally:
        signal.signal(signal.SIGHUP, before)
    lab.wait_for_step("nohup", 2)
    os.close(theirs)
    os.close(ours)
    assert shell.wait(60) == 0
    assert_whole(lab, "nohup", 30)


def test_run_goes_on_when_the_reader_of_its_output_leaves(lab: Lab) -> None:
    words = ["run", "--name", "piped", "--procs", "1", *FAKE, "--", "--max_steps", "6"]
    shell = subprocess.Popen(
        [sys.executable, "-m", "launcher", *words],
        cwd=lab.folder,
        env=lab.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert shell.stdout is not None
    shell.stdout.close()
    said = shell.stderr.read().decode() if shell.stderr is not None else ""
    assert shell.wait(60) == 0
    assert "Traceback" not in said
    assert "Exception" not in said


def test_cancel_stops_the_ranks_of_a_killed_supervisor(lab: Lab) -> None:
    train = ("--max_steps", "60", "--save_interval", "1000", "--wait_at", "6")
    lab.submit("orphaned", *LOCAL, train=train)
    lab.wait_for_step("orphaned", 5)
    pid = supervisor(lab, "orphaned")
    assert pid is not None
    ranks = children(pid)
    assert len(ranks) == 2
    os.kill(pid, signal.SIGKILL)
    poll(lambda: not is_alive(pid), "the supervisor to die")
    assert "its ranks train on" in lab.why("orphaned")
    said = lab.launcher("cancel", "orphaned")
    assert said.returncode == 0
    assert "saves a checkpoint and stops" in said.stderr
    poll(lambda: not any(is_alive(rank) for rank in ranks), "the ranks to stop", 30)
    assert lab.events("orphaned", "preempted")
    assert lab.state("orphaned")["state"] == "CANCELLED"
    lab.ok("requeue", "orphaned")
    assert_whole(lab, "orphaned", 60)
    assert lab.steps("orphaned") == list(range(1, 61))


def test_run_on_another_machine_is_seen_to_live_and_left_alone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is shared, process numbers are not. Only this test's own name is made up."""
    lab.submit("shared", *LOCAL, train=("--max_steps", "5000", "--save_interval", "1000"))
    lab.wait_for_step("shared", 2)
    run = RunFolder(lab.runs / "shared")
    here = socket.gethostname()
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert state.job_state(run, None) == (state.RUNNING, f"on {here}", None)
    with pytest.raises(ConfigError, match=f"runs on {here}: cancel it there"):
        cancel_run(run)
    with pytest.raises(ConfigError, match=f"is RUNNING .*on {here}"):
        requeue_run(run)
    assert not lab.events("shared", "cancel_requested")
    pid = supervisor(lab, "shared")
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    poll(lambda: not is_alive(pid), "the supervisor to end")
    assert state.job_state(run, None)[:2] == (state.INTERRUPTED, "its supervisor does not run")


def test_run_of_a_machine_that_fell_silent_goes_on_elsewhere(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And if that machine was only cut off, its supervisor stands back like its ranks."""
    train = ("--max_steps", "40", "--save_interval", "5", "--wait_at", "13")
    lab.submit("silent", *LOCAL, train=train)
    lab.wait_for_step("silent", 12)
    run = RunFolder(lab.runs / "silent")
    pid = supervisor(lab, "silent")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        os.utime(run.supervisor_lock, (0, 0))
        monkeypatch.setattr(socket, "gethostname", lambda: "another")
        now, reason, _ = state.job_state(run, None)
        assert now == state.INTERRUPTED
        assert "has been silent" in reason
        # Locks of this machine would hold the other supervisor back.
        run.supervisor_lock.unlink()
        monkeypatch.chdir(lab.folder)
        for name, value in lab.environment.items():
            monkeypatch.setenv(name, value)
        requeue_run(run)
        poll(lambda: len(lab.events("silent", "attempt_started")) == 2, "the other attempt")
    finally:
        os.kill(pid, signal.SIGCONT)
    poll(lambda: not is_alive(pid), "the first supervisor to stand back")
    monkeypatch.undo()
    assert_whole(lab, "silent", 40)
    assert lab.causes("silent") == ["lost", "done"]


def test_rank_that_nobody_can_signal_stops_when_its_run_is_over(lab: Lab) -> None:
    """As one in a container does, or one on another machine: it sees the end in the run folder."""
    lab.submit("over", *LOCAL, train=("--max_steps", "5000", "--save_interval", "1000"))
    lab.wait_for_step("over", 5)
    pid = supervisor(lab, "over")
    assert pid is not None
    ranks = children(pid)
    os.kill(pid, signal.SIGKILL)
    RunFolder(lab.runs / "over").finish(Final("cancelled", 130, "cancelled by the user"))
    poll(lambda: not any(is_alive(rank) for rank in ranks), "the ranks to stop", 30)
    assert lab.events("over", "preempted")


def test_sweep_is_one_run_a_point(lab: Lab) -> None:
    (lab.folder / "grid.toml").write_text("save_interval = [2, 3]\n")
    answer = lab.ok(
        *("sweep", "--name", "grid", *LOCAL, "--grid", "grid.toml", "--vary", "max_steps=3,5"),
        *("--json", "--", "--step_seconds", "0.05"),
    )
    points = json.loads(answer)
    assert [point["flags"] for point in points] == [
        {"save_interval": interval, "max_steps": steps}
        for interval in ("2", "3")
        for steps in ("3", "5")
    ]
    for index, steps in enumerate((3, 5, 3, 5)):
        assert_whole(lab, f"grid/{index}", steps)
    names = [line.split("\t")[0] for line in lab.ok("list").splitlines()]
    assert sorted(names) == [f"grid/{i}" for i in range(4)]
    assert lab.launcher("sweep", "--name", "grid", *LOCAL, "--vary", "a=1", "--").returncode == 2


def test_point_of_a_sweep_is_cancelled_and_continued_alone(lab: Lab) -> None:
    # The point with index 1 ends before it comes to wait.
    train = ("--step_seconds", "0.1", "--save_interval", "1000", "--wait_at", "7")
    lab.ok("sweep", "--name", "two", *LOCAL, "--vary", "max_steps=40,6", "--", *train)
    lab.wait_for_step("two/0", 3)
    assert lab.state("two/1")["state"] == "PENDING"
    lab.ok("cancel", "two/0")
    lab.wait("two/0", "CANCELLED")
    assert_whole(lab, "two/1", 6)
    lab.ok("requeue", "two/0")
    assert_whole(lab, "two/0", 40)
    assert lab.steps("two/0") == list(range(1, 41))


def test_doctor_without_slurm(lab: Lab) -> None:
    lab.environment["PATH"] = "/usr/sbin:/sbin"
    answer = lab.launcher("doctor", "--json", "--runs-dir", str(lab.runs))
    findings = {f["subject"]: f for f in json.loads(answer.stdout)}
    assert answer.returncode == 0
    assert {"slurm", "rename", "fsync", "lock", "disk", "containers"} <= findings.keys()
    assert findings["rename"]["level"] == "ok"
    (lab.folder / "file").touch()
    bad = lab.launcher("doctor", "--runs-dir", str(lab.folder / "file" / "runs"))
    assert bad.returncode == 1
    assert "run folder" in bad.stdout


def test_doctor_measures_as_a_job(lab: Lab) -> None:
    (lab.folder / "p.toml").write_text('cluster = "local"\n')
    options = ("--nodes", "1", "--gpus", "2", "--cpu", "--profile", "p.toml", "--json")
    answer = lab.launcher("doctor", *options)
    findings = {f["subject"]: f for f in json.loads(answer.stdout)}
    assert answer.returncode == 0, answer.stdout
    assert "gloo over 2 ranks" in findings["all-reduce"]["text"]
    assert findings["clocks"]["level"] == "ok"


def test_drill_passes_here_bit_for_bit(lab: Lab) -> None:
    (lab.folder / "p.toml").write_text('cluster = "local"\n')
    options = ("--cpu", "--only", "term", "--only", "kill", "--only", "node", "--profile", "p.toml")
    answer = lab.launcher("drill", *options, "--json")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    results = {r["part"]: r for r in json.loads(answer.stdout)}
    assert results["term"]["verdict"] == "PASS"
    assert "0 steps trained twice" in results["term"]["text"]
    assert results["kill"]["verdict"] == "PASS"
    assert "crash → done" in results["kill"]["text"]
    assert results["node"]["verdict"] == "SKIP"
    assert lab.launcher("drill", "--only", "nothing").returncode == 2


def test_run_prints_the_container_command_that_it_uses(lab: Lab, tmp_path: Path) -> None:
    """A docker that is not there: it writes its words down, and leaves as the training would."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "docker").write_text('#!/bin/sh\n[ "$1" = run ] && echo "$@" >> "$0.words"\nexit 2\n')
    (tools / "docker").chmod(0o755)
    lab.environment["PATH"] = f"{tools}{os.pathsep}{lab.environment['PATH']}"
    words = ("run", "--name", "boxed", "--procs", "1", "--image", "minimind", *FAKE)
    done = lab.launcher(*words, "--container", "docker")
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("Each rank: docker run ")]
    used = (tools / "docker.words").read_text().split()
    printed = line.removeprefix("Each rank: docker ").replace("''", "").split()
    assert used[:3] == printed[:3]
    assert used[-4:] == printed[-4:]
    assert "minimind" in used


def test_watched_status_follows_the_run_on_a_terminal(lab: Lab) -> None:
    # However fast the machine is, the run goes on until it has been seen to run.
    lab.submit("watched", *LOCAL, train=("--max_steps", "100000"))
    poll(lambda: lab.events("watched", "attempt_started"), "the start")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher", "status", "--watch"],
        cwd=lab.folder,
        env=lab.environment | {"TERM": "xterm", "COLUMNS": "160"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)

    def read_until(word: bytes) -> None:
        drawn = b""
        while word not in drawn:
            assert select.select([ours], [], [], 60)[0], f"no {word!r} in {drawn!r}"
            drawn += os.read(ours, 65536)
            assert len(drawn) < 1 << 20, f"no {word!r} in {drawn[-4096:]!r}"

    read_until(b"RUNNING")
    lab.ok("cancel", "watched")
    read_until(b"CANCELLED")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    os.close(ours)
