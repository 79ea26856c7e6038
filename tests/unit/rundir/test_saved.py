"""What is on record as saved, and what is refused where it is not there any more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minimind.errors import ConfigError
from minimind.rundir.events import append_event
from minimind.rundir.layout import OutputPaths, earlier_checkpoint
from minimind.rundir.saved import (
    Saved,
    check_not_older,
    check_still_there,
    record_saved,
    saved_on_record,
)


@pytest.fixture
def out(tmp_path: Path) -> OutputPaths:
    (tmp_path / "out").mkdir()
    return OutputPaths(tmp_path / "out")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints" / "pretrain_32.pt"


def write_events(folder: Path, *events: tuple[str, int]) -> Path:
    path = folder / "events.jsonl"
    for kind, step in events:
        append_event(path, kind, step=step)
    return path


def step_on_record(out: OutputPaths, checkpoint: Path, events: Path | None = None) -> int | None:
    saved = saved_on_record(out, checkpoint, events)
    return None if saved is None else saved.step


def test_nothing_is_on_record_before_the_first_save(out: OutputPaths, checkpoint: Path) -> None:
    assert saved_on_record(out, checkpoint, None) is None
    record_saved(out, checkpoint, None)
    assert saved_on_record(out, checkpoint, None) is None
    check_still_there(None, checkpoint)


def test_a_save_is_on_record_until_the_run_begins_anew(out: OutputPaths, checkpoint: Path) -> None:
    record_saved(out, checkpoint, 10)
    assert saved_on_record(out, checkpoint, None) == Saved(
        10, out.saved("pretrain_32"), str(checkpoint)
    )
    record_saved(out, checkpoint, 5)
    assert step_on_record(out, checkpoint) == 5
    record_saved(out, checkpoint, None)
    assert step_on_record(out, checkpoint) is None


def test_each_checkpoint_has_a_record_of_its_own(out: OutputPaths, checkpoint: Path) -> None:
    record_saved(out, checkpoint, 10)
    assert saved_on_record(out, checkpoint.with_name("pretrain_64.pt"), None) is None


def test_a_vanished_checkpoint_is_refused_in_one_line(out: OutputPaths, checkpoint: Path) -> None:
    record_saved(out, checkpoint, 10)
    saved = saved_on_record(out, checkpoint, None)
    with pytest.raises(ConfigError) as refused:
        check_still_there(saved, checkpoint)
    assert str(refused.value) == (
        f"a checkpoint of optimiser step 10 is on record ({out.saved('pretrain_32')}, "
        f"{checkpoint}), but {checkpoint.parent} holds no pretrain_32.pt: bring it back or "
        "correct --checkpoint_dir to go on, or begin anew with --from_resume 0"
    )
    checkpoint.parent.rmdir()
    with pytest.raises(ConfigError, match="is on record"):
        check_still_there(saved, checkpoint)


@pytest.mark.parametrize("earlier", [False, True])
def test_any_checkpoint_that_is_left_is_gone_on_from(checkpoint: Path, earlier: bool) -> None:
    (earlier_checkpoint(checkpoint, 4) if earlier else checkpoint).touch()
    check_still_there(Saved(10, Path("events.jsonl")), checkpoint)


def test_what_a_run_has_put_aside_is_no_checkpoint_to_go_on_from(checkpoint: Path) -> None:
    for name in ("damaged.pt", "replaced.pt", "furthest.replaced.pt", "lock"):
        checkpoint.with_suffix(f".{name}").touch()
    checkpoint.with_name("pretrain_64.pt").touch()
    with pytest.raises(ConfigError, match="is on record"):
        check_still_there(Saved(10, Path("events.jsonl")), checkpoint)


def test_only_an_older_step_than_the_one_on_record_is_refused(checkpoint: Path) -> None:
    saved = Saved(10, Path("events.jsonl"))
    for found in (10, 11):
        check_not_older(saved, found, checkpoint)
    check_not_older(Saved(None, Path("pretrain_32.pth")), 0, checkpoint)
    with pytest.raises(ConfigError) as refused:
        check_not_older(saved, 9, checkpoint)
    assert str(refused.value) == (
        "a checkpoint of optimiser step 10 is on record (events.jsonl), but the newest in "
        f"{checkpoint.parent} is of step 9: bring the newer one back, or go on from step 9 with "
        "--from_resume 1, or begin anew with --from_resume 0"
    )


def test_a_launched_run_knows_what_it_saved_in_its_whole_life(
    tmp_path: Path, out: OutputPaths, checkpoint: Path
) -> None:
    events = write_events(tmp_path, ("started", 0), ("checkpointed", 10))
    append_event(events, "submitted", job_id="8")
    append_event(events, "failed", error="…")
    assert saved_on_record(out, checkpoint, events) == Saved(10, events)
    write_events(tmp_path, ("started", 5), ("resumed", 5))
    assert step_on_record(out, checkpoint, events) == 5, "the newest word, not the furthest step"
    write_events(tmp_path, ("checkpointed", 7))
    assert step_on_record(out, checkpoint, events) == 7
    write_events(tmp_path, ("started", 0))
    assert step_on_record(out, checkpoint, events) is None, "begun anew"


def test_a_launched_run_is_not_asked_for_another_run_s_checkpoint(
    tmp_path: Path, out: OutputPaths, checkpoint: Path
) -> None:
    """They may share a save_dir, one after the other."""
    events = write_events(tmp_path)
    record_saved(out, tmp_path / "another" / checkpoint.name, 10)
    assert saved_on_record(out, checkpoint, events) is None
    record_saved(out, checkpoint, 10)
    assert step_on_record(out, checkpoint, events) == 10, "trained by hand before"


def test_the_further_of_two_records_of_one_checkpoint_counts(
    tmp_path: Path, out: OutputPaths, checkpoint: Path
) -> None:
    events = write_events(tmp_path, ("checkpointed", 10))
    for own, expected in ((8, 10), (12, 12)):
        record_saved(out, checkpoint, own)
        assert step_on_record(out, checkpoint, events) == expected


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"global_step": "x", "checkpoint": 5}', "\0"])
def test_a_damaged_record_still_says_that_there_was_a_save(
    out: OutputPaths, checkpoint: Path, text: str
) -> None:
    out.saved(checkpoint.stem).write_text(text)
    saved = saved_on_record(out, checkpoint, None)
    assert saved == Saved(None, out.saved(checkpoint.stem))
    with pytest.raises(ConfigError, match="a checkpoint is on record"):
        check_still_there(saved, checkpoint)


def test_a_folder_of_a_version_without_the_record_is_known_by_weights_and_metrics(
    out: OutputPaths, checkpoint: Path
) -> None:
    weights = out.weight_file(checkpoint.stem)
    weights.touch()
    assert saved_on_record(out, checkpoint, None) is None, "put there for --from_weight"
    out.metrics.write_text('{"global_step": 4}\n')
    assert saved_on_record(out, checkpoint, None) == Saved(None, weights)
    weights.unlink()
    assert saved_on_record(out, checkpoint, None) is None, "killed before its first save"
    weights.touch()
    record_saved(out, checkpoint, None)
    assert saved_on_record(out, checkpoint, None) is None, "the record knows better"


def test_a_record_that_cannot_be_written_stops_no_run(
    out: OutputPaths, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out.folder.rmdir()
    record_saved(out, checkpoint, 10)
    assert "pretrain_32.saved.json cannot be written" in caplog.text


def test_the_record_is_a_line_of_json(out: OutputPaths, checkpoint: Path) -> None:
    record_saved(out, checkpoint, 10, digest="abc")
    found = json.loads(out.saved(checkpoint.stem).read_text())
    assert found.pop("time") > 0
    assert found == {"global_step": 10, "checkpoint": str(checkpoint), "digest": "abc"}
