"""Checkpoints that vanish, or grow older, between two starts of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.runs import Run, differences


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def errors(run: Run) -> list[str]:
    return [line for line in run.output.splitlines() if "error:" in line]


def test_a_run_goes_on_from_no_less_than_it_has_saved(make_run: Callable[..., Run]) -> None:
    run = make_run("run", max_steps=4).complete()
    before, whole = contents(run.folder / "out"), run.state()
    elsewhere = run.checkpoint_dir.rename(run.folder / "unmounted")

    # Nothing is there: no rank trains, and nothing is touched.
    assert run.finish(run.start(2)) == [2, 2]
    (error,) = errors(run)
    assert "a checkpoint of optimiser step 4 is on record" in error
    assert f"{run.checkpoint_dir} holds no pretrain_32.pt" in error
    assert contents(run.folder / "out") == before
    assert not run.checkpoint_dir.exists()

    # An older one is there.
    run.checkpoint_dir.mkdir()
    (older,) = elsewhere.glob("pretrain_32.step*.pt")
    older.rename(run.checkpoint_dir / "pretrain_32.pt")
    assert run.finish(run.start()) == [2]
    assert "but the newest in" in errors(run)[-1]
    assert f"is of step {int(older.stem[-10:])}: bring the newer one back" in errors(run)[-1]
    after = contents(run.folder / "out")
    del after["train.log"], before["train.log"]
    assert after == before

    # It is meant.
    run.complete(from_resume="1")
    assert "all the same: what came after is lost" in run.output
    assert differences(run.state()["model"], whole["model"]) == []
