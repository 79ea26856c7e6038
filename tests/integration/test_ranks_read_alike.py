"""Two ranks that see different files under one name: they train from the same, or not at all."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.corpus import write_corpus
from tests.runs import Run, assert_same_run, rank_main, wait_until

MakeRun = Callable[..., Run]

FLAGS = {"save_interval": 1, "accumulation_steps": 1, "keep_checkpoints": 2, "max_steps": 9}


def in_own_folder(argv: list[str], environ: dict[str, str], output: str) -> None:
    """A rank whose relative paths are its own, as on a host that has something else mounted."""
    from minimind.distributed import alike

    os.chdir(Path(environ["RANK_FOLDERS"]) / environ["RANK"])
    alike.WAIT_SECONDS = float(environ["ALIKE_SECONDS"])
    rank_main(argv, environ, output)


@pytest.fixture
def forked(make_run: MakeRun, tmp_path: Path) -> Run:
    """An interrupted run; of its two ranks the second sees the checkpoint before the newest."""
    run = make_run("run", **FLAGS)
    assert run.interrupt(signal.SIGTERM, 6, world_size=2) == [75, 75]
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
    (tmp_path / "0/checkpoints").symlink_to(run.checkpoint_dir)
    (newest,) = (p for p in run.checkpoint_dir.glob("*.pt") if p.name.count(".") == 1)
    before = max(run.checkpoint_dir.glob("*.step*.pt"))
    (tmp_path / "1/checkpoints").mkdir()
    shutil.copy(before, tmp_path / "1/checkpoints" / newest.name)
    run.environ |= {"RANK_FOLDERS": str(tmp_path), "ALIKE_SECONDS": "1"}
    return run


def resume(run: Run) -> Any:
    return run.start(2, target=in_own_folder, checkpoint_dir="checkpoints")


def test_ranks_do_not_go_on_from_different_checkpoints(forked: Run) -> None:
    trained = forked.trained_rows()
    codes = forked.finish(resume(forked))
    assert codes == [2, 2], forked.output
    assert forked.trained_rows() == trained
    (error,) = (line for line in forked.output.splitlines() if "error:" in line)
    match = re.search(
        r"ranks read different checkpoints: rank 1 on \S+ sees optimiser step (\d+), "
        r"content \w{12} \(/.*/1/checkpoints/pretrain_32\.pt\), rank 0 on \S+ optimiser step "
        r"(\d+), content \w{12} \(/.*/0/checkpoints/pretrain_32\.pt\); mount the same "
        r"--checkpoint_dir on all hosts, then start again$",
        error,
    )
    assert match, error
    assert int(match[1]) < int(match[2])


def test_a_rank_that_sees_an_old_name_for_a_while_waits(make_run: MakeRun, forked: Run) -> None:
    forked.environ["ALIKE_SECONDS"] = "120"
    processes = resume(forked)
    waits = "[rank 1] WARNING: ranks read different checkpoints"
    wait_until(lambda: waits in forked.output, "rank 1's line")
    shown = next((forked.folder.parent / "1/checkpoints").iterdir())
    os.replace(shown, shown.with_name("older"))
    os.symlink(forked.checkpoint_dir / shown.name, shown)
    assert forked.finish(processes) == [0, 0], forked.output
    assert forked.output.count(waits) == 1
    assert_same_run(make_run("whole", **FLAGS).complete(2), forked)


@pytest.fixture
def apart(make_run: MakeRun, tmp_path: Path) -> Run:
    """A run whose two ranks have a folder each for what they call by relative names."""
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
    run = make_run("run", max_steps=2)
    run.environ |= {"RANK_FOLDERS": str(tmp_path), "ALIKE_SECONDS": "1"}
    return run


def test_ranks_do_not_train_on_different_text(apart: Run, tmp_path: Path) -> None:
    for rank in ("0", "1"):
        write_corpus(tmp_path / rank / "text.jsonl", count=60 - int(rank))
    codes = apart.finish(apart.start(2, target=in_own_folder, data_path="text.jsonl"))
    assert codes == [2, 2], apart.output
    assert "ranks read different text: rank 1 on " in apart.output
    assert " sees documents 59, " in apart.output
    assert "; let --data_path and --tokenizer_path hold the same on all hosts" in apart.output
    assert not apart.trained_rows()


def test_ranks_do_not_start_from_different_weights(
    make_run: MakeRun, apart: Run, tmp_path: Path
) -> None:
    trained = make_run("weights", max_steps=1).complete()
    weights = torch.load(trained.save_dir / "pretrain_32.pth", weights_only=True)
    torch.save(weights, tmp_path / "0/w.pth")
    weights["model.norm.weight"] += 1
    torch.save(weights, tmp_path / "1/w.pth")
    codes = apart.finish(apart.start(2, target=in_own_folder, from_weight="w.pth"))
    assert codes == [2, 2], apart.output
    assert "ranks read different weights: rank 1 on " in apart.output
    assert not apart.trained_rows()
