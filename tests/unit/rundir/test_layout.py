from __future__ import annotations

import json
from pathlib import Path

import pytest

from minimind.config import TrainConfig
from minimind.rundir.layout import (
    OutputPaths,
    RunPaths,
    earlier_checkpoint,
    earlier_step,
    find_output,
    flags_of_checkpoint,
    stem_of_flags,
)


def test_where_the_output_folder_of_a_run_is(tmp_path: Path) -> None:
    run, own = tmp_path / "run", tmp_path / "own"
    run.mkdir()
    own.mkdir()
    assert find_output(run) is None
    RunPaths(run).spec_file.write_text(json.dumps({"save_dir": str(own)}))
    assert find_output(run) is None
    OutputPaths(own).metrics.touch()
    found = find_output(run)
    assert found is not None
    assert found.folder == own
    found = find_output(own)
    assert found is not None
    assert found.folder == own


@pytest.mark.parametrize("text", ["", "[]", '{"save_dir": 5}', "{" * 100_000])
def test_a_damaged_spec_names_no_folder(tmp_path: Path, text: str) -> None:
    RunPaths(tmp_path).spec_file.write_text(text)
    assert find_output(tmp_path) is None
    RunPaths(tmp_path).output.mkdir()
    OutputPaths(RunPaths(tmp_path).output).metrics.touch()
    assert find_output(tmp_path) is not None


def test_a_point_of_a_sweep_is_named_after_both(tmp_path: Path) -> None:
    point = RunPaths(tmp_path / "sweep" / "3")
    assert point.name == "3"
    point.root.mkdir(parents=True)
    RunPaths(tmp_path / "sweep").sweep_file.touch()
    assert point.name == "sweep/3"


def test_logs_of_ranks_in_order_and_nothing_else(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    assert run.rank_logs(1) == {}
    run.attempt_dir(1).mkdir(parents=True)
    for name in ("rank-10.log", "rank-2.log", "rank-x.log", "srun.log", "rank-1.log.gz"):
        (run.attempt_dir(1) / name).touch()
    assert list(run.rank_logs(1).items()) == [(2, run.rank_log(1, 2)), (10, run.rank_log(1, 10))]


def test_the_flags_of_a_run_name_its_files() -> None:
    config = TrainConfig(save_weight="a.b", hidden_size=64, use_moe=1)
    assert config.weight_file.name == "a.b_64_moe.pth"
    assert config.checkpoint_file.name == "a.b_64_moe.pt"
    assert stem_of_flags(config.to_dict()) == config.run_stem
    flags = {"save_weight": "a.b", "hidden_size": 64, "use_moe": 1}
    newest = config.checkpoint_file
    for name in (newest.name, earlier_checkpoint(newest, 70).name):
        assert flags_of_checkpoint(name) == flags
    for name in (config.weight_file.name, newest.with_suffix(".replaced.pt").name, "a.pt"):
        assert flags_of_checkpoint(name) is None


def test_earlier_checkpoints_are_known_by_their_names() -> None:
    newest = Path("checkpoints/a.b_64.pt")
    earlier = earlier_checkpoint(newest, 70)
    assert earlier == Path("checkpoints/a.b_64.step0000000070.pt")
    assert earlier_step(newest, earlier) == 70
    for other in (newest, Path("checkpoints/a_64.step0000000070.pt"), newest.with_suffix(".x.pt")):
        assert earlier_step(newest, other) is None
