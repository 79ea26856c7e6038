"""What Slurm does to a job before it runs: submission, waiting, holding."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from tests.e2e.lab import FAKE, Lab, poll
from tests.integration.launcher.test_local import AWKWARD

SMALL = ("--nodes", "1", "--gpus", "2", *FAKE)


def test_dry_run_prints_what_is_submitted(slurm: Lab) -> None:
    options = ("--name", "dry", *SMALL, "--partition", "low", "--time", "30", "--mem", "1G")
    script = slurm.ok("submit", *options, "--dry-run", "--", "--max_steps", "2")
    assert not (slurm.runs / "dry").exists()
    job = json.loads(slurm.ok("submit", *options, "--json", "--", "--max_steps", "2"))["job_id"]
    assert (slurm.runs / "dry" / "submitit" / f"{job}_submission.sh").read_text() == script
    slurm.wait("dry")


def test_what_the_site_refuses_is_not_submitted(slurm: Lab) -> None:
    for options, said in (
        (("--partition", "fast"), "choose high, low"),
        (("--gpus", "9"), "at most 8"),
        (("--nodes", "3"), "has 2"),
    ):
        done = slurm.launcher("submit", "--name", "refused", *SMALL, *options, "--")
        assert done.returncode == 2
        assert said in done.stderr
    assert not (slurm.runs / "refused").exists()
    assert "refused" not in slurm.command("squeue").stdout


def test_pending_run_says_why(slurm: Lab) -> None:
    busy = slurm.command(
        *("sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive"),
        *("--output=/dev/null", "--time=10", "--wrap=sleep 600"),
    ).stdout.strip()
    poll(lambda: "RUNNING" in slurm.command("scontrol", "show", "job", busy).stdout, "the blocker")
    slurm.submit("waits", *SMALL, train=("--max_steps", "3"))
    poll(lambda: "waits for nodes" in slurm.why("waits"), "a reason", 60)
    assert slurm.state("waits")["state"] == "PENDING"
    poll(lambda: "expects to start it at" in slurm.why("waits"), "an estimate", 60)
    slurm.ok("cancel", "waits")
    assert slurm.state("waits")["state"] == "CANCELLED"
    slurm.command("scancel", busy)


def test_folder_opened_to_others_while_waiting_runs_nothing(slurm: Lab) -> None:
    busy = slurm.command(
        *("sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive"),
        *("--output=/dev/null", "--time=10", "--wrap=sleep 600"),
    ).stdout.strip()
    poll(lambda: "RUNNING" in slurm.command("scontrol", "show", "job", busy).stdout, "the blocker")
    slurm.submit("opened", *SMALL, train=("--max_steps", "3"))
    folder = slurm.runs / "opened"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    slurm.command("scancel", busy)
    slurm.wait("opened", "INTERRUPTED")
    assert not slurm.events("opened", "attempt_started")
    assert f"chmod -R go-w {folder}" in slurm.why("opened")
    done = slurm.launcher("requeue", "opened")
    assert done.returncode == 2
    assert "can be written by others" in done.stderr
    folder.chmod(0o755)
    slurm.ok("requeue", "opened")
    slurm.wait("opened")


def test_run_that_slurm_holds_is_reported_and_released(slurm: Lab) -> None:
    """A node that cannot launch the batch script makes Slurm requeue the job held."""
    spool = slurm.folder / "slurm" / "spool" / "n1"
    away = spool.with_name("n1.away")
    slurm.command("scontrol", "update", "nodename=n2", "state=drain", "reason=test")
    spool.rename(away)
    spool.touch()
    try:
        slurm.submit("held", *SMALL, train=("--max_steps", "3"))
        slurm.wait("held", "HELD")
        assert "could not be launched, and Slurm holds it" in slurm.why("held")
    finally:
        spool.unlink()
        away.rename(spool)
        slurm.command("scontrol", "update", "nodename=n2", "state=resume")
    slurm.ok("requeue", "held")
    slurm.wait("held")
    assert not slurm.events("held", "requeued")


def test_submission_from_inside_a_job(slurm: Lab) -> None:
    """The outer job's task counts and CPU binding do not leak; SLURM_CONF does."""
    slurm.environment |= {"SLURM_NTASKS": "7", "SLURM_CPU_BIND": "map_cpu:0", "SLURM_JOB_ID": "1"}
    try:
        names = ("SLURM_CPU_BIND", "SLURM_NTASKS", "SLURM_CONF")
        train = ("--max_steps", "2", "--print_env", *names)
        slurm.submit("inner", *SMALL, train=train)
        slurm.wait("inner")
    finally:
        for name in ("SLURM_NTASKS", "SLURM_CPU_BIND", "SLURM_JOB_ID"):
            del slurm.environment[name]
    log = (slurm.runs / "inner/attempts/1/rank-0.log").read_text()
    seen = json.loads(next(line for line in log.splitlines() if line.startswith("{")))["env"]
    assert seen["SLURM_NTASKS"] == "2"
    assert seen["SLURM_CPU_BIND"] in (None, "quiet,none,", "none", "quiet,none")
    assert seen["SLURM_CONF"] == slurm.environment["SLURM_CONF"]


def test_values_reach_the_job_as_they_were_typed(slurm: Lab) -> None:
    folder = slurm.folder / "it's a $(touch executed) `x` 数据; &"
    folder.mkdir()
    entries = [word for i, value in enumerate(AWKWARD) for word in ("--env", f"V{i}={value}")]
    names = [f"V{i}" for i in range(len(AWKWARD))]
    flags = [f"--print_args={json.dumps(AWKWARD)}", "--print_env", *names, "--max_steps", "2"]
    done = slurm.launcher(
        *("submit", "--name", "awkward", *SMALL, *entries, "--wait", "--", *flags), cwd=folder
    )
    assert done.returncode == 0, done.stderr + logs_of(folder / "runs" / "awkward")
    log = (folder / "runs/awkward/attempts/1/rank-0.log").read_text()
    seen = json.loads(next(line for line in log.splitlines() if line.startswith("{")))
    assert [seen["env"][name] for name in names] == AWKWARD
    assert json.loads(seen["args"][0]) == AWKWARD
    assert not list(slurm.folder.rglob("executed"))


def logs_of(run: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in run.rglob("*.log"))


def test_names_that_could_be_read_as_something_else_are_refused(slurm: Lab) -> None:
    # The numbers alone: the states and times of earlier tests' jobs still change.
    numbers = ("squeue", "--noheader", "--states=all", "--format=%i")
    before = slurm.command(*numbers).stdout
    for name in ("-x", "a b", "$(touch executed)", "a;b", "../up", "a\nb", "数据", "a'b"):
        done = slurm.launcher("submit", f"--name={name}", *SMALL, "--")
        assert done.returncode == 2, name
        assert "--name" in done.stderr
    assert not list(slurm.folder.rglob("executed"))
    assert set(slurm.command(*numbers).stdout.split()) <= set(before.split())


def test_secret_is_in_no_file_and_no_job_record(slurm: Lab) -> None:
    slurm.environment["MY_TOKEN"] = "s3cret-value"
    try:
        job = slurm.submit(
            "secret",
            *(*SMALL, "--secret-env", "MY_TOKEN"),
            train=("--max_steps", "2"),
        )
        slurm.wait("secret")
    finally:
        del slurm.environment["MY_TOKEN"]
    records = slurm.command("scontrol", "show", "job", "-dd", job).stdout
    assert "s3cret-value" not in records
    holders = []
    for root in (slurm.runs / "secret", slurm.folder / "slurm"):
        for folder, _, names in os.walk(root):
            for path in (Path(folder, name) for name in names):
                # Slurm's daemons replace their files, and remove those of a job that has ended.
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file() and b"s3cret-value" in path.read_bytes():
                        holders.append(path.name)
    assert holders == ["secrets.json"]
