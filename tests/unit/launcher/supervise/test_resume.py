"""A launched run goes on: it begins anew neither twice, nor without a word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.cli.output import warn_of_lost_checkpoint
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.supervise.resume import keep_going, lost_checkpoint

FLAGS = ("--save_dir", "out", "--checkpoint_dir", "checkpoints", "--from_resume", "auto")


@pytest.fixture
def run(submitted: RunFolder, tmp_path: Path) -> RunFolder:
    """A run that has step 10 on record; its checkpoint's folder is not there."""
    spec = replace(submitted.spec(), workdir=str(tmp_path), train_args=FLAGS)
    submitted.write_spec(spec)
    submitted.append("attempt_started", attempt=1, job_id="5")
    submitted.append("started", step=0)
    submitted.append("checkpointed", step=10)
    return submitted


def with_flags(run: RunFolder, *words: str, **changes: Any) -> JobSpec:
    return replace(run.spec(), train_args=(*FLAGS, *words), **changes)


def test_a_vanished_checkpoint_is_named_with_the_way_on(run: RunFolder, tmp_path: Path) -> None:
    assert lost_checkpoint(run, run.spec()) == (
        f"a checkpoint of optimiser step 10 is on record ({run.events_file}), but "
        f"{tmp_path}/checkpoints holds no pretrain_512.pt: bring it back or correct "
        "--checkpoint_dir to go on, or begin anew with "
        "`launcher submit --name demo --resume … -- FLAGS --from_resume 0`"
    )


@pytest.mark.parametrize("name", ["pretrain_512.pt", "pretrain_512.step0000000005.pt"])
def test_any_checkpoint_that_is_there_is_the_ranks_business(
    run: RunFolder, tmp_path: Path, name: str
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).touch()
    assert lost_checkpoint(run, run.spec()) == ""


def test_a_run_that_has_saved_nothing_may_begin(run: RunFolder) -> None:
    run.append("started", step=0)
    assert lost_checkpoint(run, run.spec()) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"module": "my.trainer"},
        {"train_args": ("--no_such_flag",)},
        {"train_args": ("--help",)},
        {"train_args": ("--config", "gone.toml")},
    ],
)
def test_flags_that_nobody_here_can_read_are_the_ranks_business(
    run: RunFolder, changes: dict[str, Any]
) -> None:
    assert lost_checkpoint(run, replace(run.spec(), **changes)) == ""


def test_a_config_file_is_looked_for_where_the_ranks_find_it(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text('checkpoint_dir = "saved"\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    spec = replace(run.spec(), train_args=("--from_resume", "auto", "--config", "mine.toml"))
    assert f"{tmp_path}/saved holds no pretrain_512.pt" in lost_checkpoint(run, spec)


@pytest.mark.parametrize(
    ("mounts", "arguments", "seen"),
    [
        ((), (), None),
        (("{0}/scratch:/data",), (), "{0}/scratch/ck"),
        (("{0}:/data", "{0}/scratch:/data/ck"), (), "{0}/scratch"),
        (("{0}/scratch:/data",), ("--volume=/other:/data/ck",), None),
    ],
)
def test_a_container_s_folders_are_looked_for_on_the_host(
    run: RunFolder,
    tmp_path: Path,
    mounts: tuple[str, ...],
    arguments: tuple[str, ...],
    seen: str | None,
) -> None:
    from launcher.spec.mount import Mount

    spec = with_flags(
        run,
        "--checkpoint_dir",
        "/data/ck",
        container="docker",
        image="minimind",
        mounts=tuple(Mount.parse(text.format(tmp_path)) for text in mounts),
        container_args=arguments,
    )
    lost = lost_checkpoint(run, spec)
    assert f"{seen.format(tmp_path)} holds no" in lost if seen else lost == ""


@pytest.mark.parametrize("wish", ["0", "1"])
def test_a_wish_about_the_start_is_for_one_start(run: RunFolder, wish: str) -> None:
    spec = with_flags(run, "--from-resume", wish)
    assert keep_going(run, spec, "6") == spec, "another job's training"
    going = keep_going(run, spec, "5")
    assert going.train_args[-2:] == ("--from_resume", "auto")
    assert run.spec() == going, "ranks read it there"
    assert keep_going(run, spec, None) == going, "requeued by hand"


def test_a_run_that_has_not_begun_to_train_still_has_its_wish(submitted: RunFolder) -> None:
    spec = replace(submitted.spec(), train_args=("--from_resume=0",))
    submitted.append("attempt_started", attempt=1, job_id="5")
    submitted.append("failed", error="…")
    for job_id in ("5", None):
        assert keep_going(submitted, spec, job_id) == spec


def test_who_submits_a_run_anew_may_wish_again(run: RunFolder) -> None:
    run.append("submitted", job_id="6", cluster="slurm")
    spec = with_flags(run, "--from_resume", "0")
    for job_id in ("6", None):
        assert keep_going(run, spec, job_id) == spec
    run.append("supervisor_started", pid=5)
    assert keep_going(run, spec, "5") == spec, "a number that a supervisor had before"


def test_a_job_that_started_before_its_submission_was_on_record(run: RunFolder) -> None:
    run.append("submitted", job_id="5", cluster="slurm")
    spec = with_flags(run, "--from_resume", "0")
    assert keep_going(run, spec, "5") != spec


def test_a_login_node_only_warns(
    run: RunFolder, capsys: pytest.CaptureFixture[str], make_spec: Callable[..., JobSpec]
) -> None:
    warn_of_lost_checkpoint(run, run.spec(), new_code=True)
    said = capsys.readouterr().err
    assert "warning: as seen from this machine, a checkpoint of optimiser step 10" in said
    assert "looks again where it runs" in said
    warn_of_lost_checkpoint(run, run.spec(), new_code=False)
    assert "without a checkpoint it begins at step 0" in capsys.readouterr().err
    warn_of_lost_checkpoint(run, make_spec(module="my.trainer"), new_code=True)
    assert capsys.readouterr().err == ""
