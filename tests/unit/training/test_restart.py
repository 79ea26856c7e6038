"""What is found at a start, held against what is on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minimind.checkpoint.store import Checkpointer, Identity, steps_of_weights
from minimind.config import TrainConfig
from minimind.errors import ConfigError
from minimind.rundir import env
from minimind.rundir.events import append_event
from minimind.rundir.layout import OutputPaths
from minimind.system.durable import temporary_name
from minimind.training.restart import (
    find_newest,
    keep_others_weights,
    on_record,
    record_save,
    record_start,
    refuse_silent_restart,
)
from minimind.weights.torch_file import content_digest
from tests.checkpoints import train_state


class Found:
    """A checkpointer that has found the checkpoint of ``step``."""

    def __init__(self, step: int | None, digest: str = "abc", fell_back: bool = False) -> None:
        self.found_identity = None if step is None else Identity(step, digest)
        self.fell_back = fell_back

    def find_newest(self) -> Path | None:
        return None if self.found_identity is None else Path("found.pt")


def find(config: TrainConfig, step: int | None, **found: Any) -> Path | None:
    checkpointer: Any = Found(step, **found)
    return find_newest(config, checkpointer)


def make(tmp_path: Path, from_resume: str = "auto") -> TrainConfig:
    return TrainConfig(
        save_dir=str(tmp_path),
        checkpoint_dir=str(tmp_path / "gone"),
        from_resume=from_resume,  # type: ignore[arg-type]
    )


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """Of a run that has step 10 on record, and no checkpoint."""
    config = make(tmp_path)
    record_start(config, Identity(10, "abc"))
    return config


@pytest.mark.parametrize("from_resume", ["auto", "1"])
def test_a_vanished_checkpoint_is_no_fresh_start(
    config: TrainConfig, tmp_path: Path, from_resume: str
) -> None:
    config = make(tmp_path, from_resume)
    with pytest.raises(ConfigError, match="step 10 is on record"):
        refuse_silent_restart(config)
    with pytest.raises(ConfigError, match="step 10 is on record"):
        find(config, None)


def test_a_fresh_start_on_purpose_is_asked_nothing(config: TrainConfig, tmp_path: Path) -> None:
    refuse_silent_restart(make(tmp_path, "0"))
    record_start(config, None)
    refuse_silent_restart(config)
    assert find(config, None) is None


def test_a_near_miss_is_no_fresh_start(tmp_path: Path) -> None:
    config = make(tmp_path, "1")
    Path(config.checkpoint_dir).mkdir()
    refuse_silent_restart(config)
    (Path(config.checkpoint_dir) / "pretrain_64.pt").touch()
    with pytest.raises(ConfigError, match=r"holds no pretrain_512\.pt, but pretrain_64\.pt"):
        refuse_silent_restart(config)


def test_upstreams_resume_file_is_named_beside_its_weights_and_our_metrics(tmp_path: Path) -> None:
    config = make(tmp_path, "1")
    for folder in (config.checkpoint_dir, config.save_dir):
        Path(folder).mkdir(exist_ok=True)
    (Path(config.save_dir) / "metrics.jsonl").write_text("{}\n")
    config.weight_file.touch()
    with pytest.raises(ConfigError, match=r"is on record .*pretrain_512\.pth"):
        refuse_silent_restart(config)
    (Path(config.checkpoint_dir) / "pretrain_512_resume.pth").touch()
    with pytest.raises(ConfigError, match="which upstream MiniMind wrote"):
        refuse_silent_restart(config)


def test_a_vanished_checkpoint_is_named_before_others(config: TrainConfig, tmp_path: Path) -> None:
    config = make(tmp_path, "1")
    Path(config.checkpoint_dir).mkdir(exist_ok=True)
    (Path(config.checkpoint_dir) / "pretrain_64.pt").touch()
    with pytest.raises(ConfigError, match="step 10 is on record"):
        refuse_silent_restart(config)


def test_an_older_checkpoint_is_refused(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"the newest in .* is of step 5"):
        find(config, 5)
    assert find(config, 10)
    assert find(config, 12)


def test_an_older_checkpoint_is_taken_where_it_is_meant(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert find(make(tmp_path, "1"), 5)
    assert "step 10 is on record" in caplog.text
    assert "going on from step 5" in caplog.text


def test_an_older_checkpoint_is_taken_where_the_newer_does_not_verify(
    config: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    assert find(config, 5, fell_back=True)
    assert "going on from step 5" in caplog.text


def test_a_launched_run_asks_its_event_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tmp_path / "events.jsonl"
    append_event(events, "checkpointed", step=10)
    refuse_silent_restart(make(tmp_path))
    monkeypatch.setenv(env.EVENTS, str(events))
    with pytest.raises(ConfigError, match=r"step 10 is on record \(.*events.jsonl\)"):
        refuse_silent_restart(make(tmp_path))


def test_another_checkpoint_of_the_same_step_is_told(
    config: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    assert find(config, 10)
    assert find(config, 11, digest="def")
    assert "other content" not in caplog.text
    assert find(config, 10, digest="def")
    assert "step 10 is on record" in caplog.text
    assert "found.pt has other content" in caplog.text


def test_a_save_is_on_record_with_its_content(tmp_path: Path) -> None:
    config = make(tmp_path)
    record_save(config, 10)
    saved = on_record(config)
    assert saved is not None
    assert (saved.step, saved.digest) == (10, "")
    config.checkpoint_file.parent.mkdir()
    config.checkpoint_file.write_bytes(b"a checkpoint")
    record_save(config, 10)
    saved = on_record(config)
    assert saved is not None
    assert saved.digest == content_digest(config.checkpoint_file)


def test_a_start_removes_what_killed_writes_left(config: TrainConfig, tmp_path: Path) -> None:
    out = OutputPaths(tmp_path)
    for path in (out.saved(config.run_stem), out.loss_curve, out.environment, out.config):
        temporary_name(path).touch()
    record_start(config, None)
    assert [path.name for path in tmp_path.iterdir()] == ["pretrain_512.saved.json"]


def train(config: TrainConfig, *steps: int) -> Checkpointer:
    """Save what a run saves at ``steps``."""
    Path(config.checkpoint_dir).mkdir(exist_ok=True)
    saver = Checkpointer(config.checkpoint_file, config.weight_file, keep=2)
    for step in steps:
        saver.save(train_state(step), lambda seconds, step=step: record_save(config, step))
        saver.wait()
    return saver


def replaced(config: TrainConfig) -> Path:
    return config.weight_file.with_suffix(".replaced.pth")


def test_a_run_that_goes_on_writes_over_its_own_weights(tmp_path: Path) -> None:
    config = make(tmp_path)
    train(config, 3, 4)
    keep_others_weights(config, train_state(4))
    assert not replaced(config).exists()
    # As an older version left it: nothing on record.
    OutputPaths(config.save_dir).saved(config.run_stem).unlink()
    keep_others_weights(config, train_state(4))
    assert not replaced(config).exists()


def test_weights_that_a_kill_left_a_save_behind_are_its_own(tmp_path: Path) -> None:
    config = make(tmp_path)
    saver = train(config, 3)
    earlier = config.weight_file.read_bytes()
    saver.save(train_state(4), lambda seconds: None)
    saver.wait()
    config.weight_file.write_bytes(earlier)
    keep_others_weights(config, train_state(4))
    assert not replaced(config).exists()


def test_a_run_that_goes_on_keeps_the_weights_of_another(tmp_path: Path) -> None:
    theirs = make(tmp_path)
    train(theirs, 50)
    mine = TrainConfig(save_dir=theirs.save_dir, checkpoint_dir=str(tmp_path / "elsewhere"))
    keep_others_weights(mine, train_state(7))
    assert steps_of_weights(replaced(mine)) == 50
    train(mine, 8)
    assert steps_of_weights(replaced(mine)) == 50
    assert steps_of_weights(mine.weight_file) == 8


@pytest.mark.parametrize("content", [b"of another program", b""])
def test_weights_that_nobody_can_read_are_kept(tmp_path: Path, content: bytes) -> None:
    config = make(tmp_path)
    train(config, 4)
    config.weight_file.write_bytes(content)
    keep_others_weights(config, train_state(4))
    assert replaced(config).read_bytes() == content
