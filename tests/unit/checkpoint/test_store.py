"""Saving, rotating, verifying and falling back; files that are damaged in every way."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import random
import resource
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minimind.checkpoint.run_lock import FolderLock, LockLostError
from minimind.checkpoint.state import TrainState
from minimind.checkpoint.store import (
    Checkpointer,
    half_precision,
    host_buffer,
    load_checkpoint,
    steps_of_weights,
)
from minimind.errors import WeightsError
from minimind.system import durable
from minimind.weights.torch_file import verify_file
from tests.checkpoints import train_state
from tests.runs import differences


def state(step: int) -> TrainState:
    return train_state(step, shape=(64, 32))


@pytest.fixture
def saver(tmp_path: Path) -> Checkpointer:
    return Checkpointer(tmp_path / "run_8.pt", tmp_path / "run_8.pth", keep=3)


def save(saver: Checkpointer, *steps: int) -> None:
    for step in steps:
        saver.save(state(step), lambda seconds: None)
        saver.wait()


@pytest.fixture
def file_limit() -> Iterator[int]:
    """The bytes that a file may have, as `ulimit -f` sets them."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield 1 << 16
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_refused_write_has_its_true_reason(
    saver: Checkpointer, file_limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    saver.save(train_state(1, shape=(256, file_limit // 256)), lambda seconds: None)
    with pytest.raises(OSError, match="File too large"):
        saver.wait()
    assert f"checkpoint of step 1 not saved: {saver.checkpoint_file}: File too large" in caplog.text
    assert names(saver.checkpoint_file.parent) == []


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_saved_state_comes_back(saver: Checkpointer) -> None:
    save(saver, 7)
    loaded = load_checkpoint(saver.checkpoint_file)
    assert loaded["global_step"] == 7
    assert torch.equal(loaded["model"]["a.weight"], torch.full((64, 32), 7.0))


def test_the_newest_and_the_ones_before_it_are_kept(saver: Checkpointer, tmp_path: Path) -> None:
    save(saver, 1, 2, 3, 4, 5)
    assert names(tmp_path) == [
        "run_8.pt",
        "run_8.pth",
        "run_8.step0000000003.pt",
        "run_8.step0000000004.pt",
    ]
    assert load_checkpoint(saver.checkpoint_file)["step"] == 5
    assert load_checkpoint(tmp_path / "run_8.step0000000004.pt")["step"] == 4


def refuse_links(*paths: object) -> None:
    raise OSError(errno.EPERM, "no hard links on this file system")


def test_rotation_without_hard_links(
    saver: Checkpointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refuse_links)
    save(saver, 1, 2)
    assert load_checkpoint(saver.checkpoint_file)["step"] == 2
    assert load_checkpoint(tmp_path / "run_8.step0000000001.pt")["step"] == 1


def test_training_may_change_the_tensors_while_they_are_written(saver: Checkpointer) -> None:
    live = state(1)
    saver.save(live, lambda seconds: None)
    live.model["a.weight"].fill_(99.0)
    saver.wait()
    assert float(load_checkpoint(saver.checkpoint_file)["model"]["a.weight"][0, 0]) == 1.0


def test_tied_tensors_are_written_once_and_stay_tied(saver: Checkpointer) -> None:
    save(saver, 1)
    for path in (saver.checkpoint_file, saver.weight_file):
        with zipfile.ZipFile(path) as archive:
            sizes = [i.file_size for i in archive.infolist() if "/data/" in i.filename]
        assert sum(s >= 64 * 32 * 2 for s in sizes) == 1
    model = load_checkpoint(saver.checkpoint_file)["model"]
    assert model["a.weight"].data_ptr() == model["tied.weight"].data_ptr()


def test_weight_file_is_a_flat_half_precision_dict(saver: Checkpointer) -> None:
    save(saver, 3)
    weights = torch.load(saver.weight_file, weights_only=True)
    assert set(weights) == {"a.weight", "tied.weight"}
    assert weights["a.weight"].dtype == torch.float16


def test_tied_weights_are_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    halve, seen = torch.Tensor.half, []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(tensor)
        return halve(tensor)

    monkeypatch.setattr(torch.Tensor, "half", note)
    assert len(half_precision(state(1).model)) == 2
    assert len(seen) == 1


def test_checkpoint_is_full_precision(saver: Checkpointer) -> None:
    live = state(1)
    live.model["a.weight"][0, 0] = 1 + 2**-20
    saver.save(live, lambda seconds: None)
    saver.wait()
    assert float(load_checkpoint(saver.checkpoint_file)["model"]["a.weight"][0, 0]) == 1 + 2**-20


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_the_end(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.write_text("this is not a checkpoint\n")


def another_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "world")


def other_dict(path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, path)


def a_tensor(path: Path) -> None:
    torch.save(torch.ones(3), path)


class Code:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def malicious(path: Path) -> None:
    torch.save({**state(9).to_dict(), "x": Code(f"touch {path.parent / 'executed'}")}, path)


def malicious_bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Code(f"touch {path.parent / 'executed'}")))


DAMAGES = [
    truncate,
    cut_the_end,
    empty,
    foreign,
    another_zip,
    other_dict,
    a_tensor,
    malicious,
    malicious_bare_pickle,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_named_and_the_one_before_it_is_used(
    saver: Checkpointer, tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    save(saver, 1, 2)
    # A hard link to the newest would be damaged with it; generations are links to older files.
    damage(saver.checkpoint_file)
    found = saver.find_newest()
    assert found == tmp_path / "run_8.step0000000001.pt"
    assert str(saver.checkpoint_file) in caplog.text
    assert saver.newest_step == 1
    assert not (tmp_path / "executed").exists()


def test_a_save_after_a_fallback_keeps_what_it_went_on_from(
    saver: Checkpointer, tmp_path: Path
) -> None:
    saver.keep = 2
    save(saver, 1, 2)
    truncate(saver.checkpoint_file)
    saver.find_newest()
    save(saver, 3)
    assert names(tmp_path) == [
        "run_8.damaged.pt",
        "run_8.pt",
        "run_8.pth",
        "run_8.step0000000001.pt",
    ]
    assert load_checkpoint(tmp_path / "run_8.step0000000001.pt")["step"] == 1
    assert load_checkpoint(saver.checkpoint_file)["step"] == 3
    save(saver, 4)
    assert load_checkpoint(tmp_path / "run_8.step0000000003.pt")["step"] == 3


def test_no_damaged_generation_outlives_a_good_one(saver: Checkpointer, tmp_path: Path) -> None:
    save(saver, 1, 2, 3)
    truncate(saver.checkpoint_file)
    empty(tmp_path / "run_8.step0000000002.pt")
    saver.keep = 2
    saver.find_newest()
    save(saver, 4)
    assert [n for n in names(tmp_path) if "step" in n] == ["run_8.step0000000001.pt"]
    assert load_checkpoint(tmp_path / "run_8.step0000000001.pt")["step"] == 1
    # Of the damaged ones the newest is kept, for who wants to see what happened to it.
    assert (tmp_path / "run_8.damaged.pt").stat().st_size > 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_usable_is_an_error_not_a_fresh_start(
    saver: Checkpointer, tmp_path: Path, damage: Any
) -> None:
    save(saver, 1)
    damage(saver.checkpoint_file)
    with pytest.raises(WeightsError, match=r"no checkpoint in .* can be used"):
        saver.find_newest()
    assert not (tmp_path / "executed").exists()


def test_code_is_refused_and_named(saver: Checkpointer) -> None:
    malicious(saver.checkpoint_file)
    with pytest.raises(WeightsError, match=r"refused: .*carries code: .*system"):
        load_checkpoint(saver.checkpoint_file)


def test_bit_flips_are_found_or_change_nothing(saver: Checkpointer) -> None:
    """Flip one bit anywhere in the file: either it is refused, or the same state comes back."""
    save(saver, 5)
    whole = saver.checkpoint_file.read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(300):
        broken = bytearray(whole)
        broken[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        saver.checkpoint_file.write_bytes(broken)
        try:
            loaded = load_checkpoint(saver.checkpoint_file)
        except WeightsError:
            refused += 1
            continue
        assert loaded["global_step"] == 5
        assert torch.equal(loaded["model"]["a.weight"], torch.full((64, 32), 5.0))
    assert refused > 150


def test_truncation_at_any_length_is_found(saver: Checkpointer) -> None:
    save(saver, 5)
    whole = saver.checkpoint_file.read_bytes()
    for length in range(0, len(whole), 97):
        saver.checkpoint_file.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            verify_file(saver.checkpoint_file)


def test_what_was_found_is_handed_over_and_not_kept(saver: Checkpointer) -> None:
    save(saver, 1, 2)
    truncate(saver.checkpoint_file)
    found = saver.find_newest()
    assert found is not None
    saved = saver.hand_over()
    assert saved is not None
    assert differences(saved, load_checkpoint(found)) == []
    assert saver.hand_over() is None


def test_a_checkpoint_whose_step_is_no_number_is_found_and_then_refused(
    saver: Checkpointer,
) -> None:
    torch.save({**state(1).to_dict(), "global_step": [1]}, saver.checkpoint_file)
    assert saver.find_newest() == saver.checkpoint_file
    found = saver.hand_over()
    assert found is not None
    with pytest.raises(WeightsError, match="its global_step cannot be used"):
        TrainState.from_dict(found, saver.checkpoint_file)


def test_no_checkpoint_is_none(saver: Checkpointer) -> None:
    assert saver.find_newest() is None


def test_failed_write_leaves_the_last_good_one(
    saver: Checkpointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(saver, 1)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "sync_file", full)
    saver.save(state(2), lambda seconds: None)
    with pytest.raises(OSError, match="No space left"):
        saver.wait()
    monkeypatch.undo()
    assert load_checkpoint(saver.checkpoint_file)["step"] == 1
    assert saver.newest_step == 1
    assert not [n for n in names(tmp_path) if n.endswith(".tmp")]
    save(saver, 3)
    assert load_checkpoint(saver.checkpoint_file)["step"] == 3


def test_weights_that_fail_are_named_and_written_by_the_next_try(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A weight file's folder that is not there is a disk that refuses, on any machine.
    saver = Checkpointer(tmp_path / "run_8.pt", tmp_path / "out" / "run_8.pth", keep=2)
    durable_after: list[float] = []
    saver.save(state(1), durable_after.append)
    with pytest.raises(OSError, match="No such file"):
        saver.wait()
    assert f"weights of step 1 not saved: {saver.weight_file}" in caplog.text
    assert "checkpoint of step" not in caplog.text
    assert (saver.newest_step, saver.written_step) == (1, None)
    assert len(durable_after) == 1, "the checkpoint is durable all the same"
    (tmp_path / "out").mkdir()
    before = saver.checkpoint_file.stat()
    save(saver, 1)
    assert saver.written_step == 1
    assert saver.weight_file.exists()
    assert saver.checkpoint_file.stat().st_mtime_ns == before.st_mtime_ns
    assert "run_8.step0000000001.pt" not in names(tmp_path)


def test_a_resumed_run_knows_nothing_of_its_weights_until_it_has_written_them(
    saver: Checkpointer, tmp_path: Path
) -> None:
    save(saver, 1, 2)
    truncate(saver.checkpoint_file)
    after = Checkpointer(saver.checkpoint_file, saver.weight_file, keep=3)
    after.find_newest()
    assert (after.newest_step, after.written_step) == (1, None)
    save(after, 1)
    # The damaged one has this name still: the same step is written again.
    assert load_checkpoint(after.checkpoint_file)["step"] == 1
    assert after.written_step == 1


def test_an_old_checkpoint_that_cannot_be_deleted_keeps_no_weights_from_being_written(
    saver: Checkpointer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(saver, 1, 2, 3)
    (tmp_path / "run_8.step0000000001.pt").unlink()
    (tmp_path / "run_8.step0000000001.pt").mkdir()
    save(saver, 4)
    assert saver.written_step == 4
    assert "cannot be deleted" in caplog.text


def test_a_run_that_lost_its_lock_writes_nothing(tmp_path: Path) -> None:
    def lost() -> None:
        raise LockLostError("taken over")

    saver = Checkpointer(tmp_path / "r.pt", tmp_path / "r.pth", keep=2, may_write=lost)
    saver.save(state(1), lambda seconds: None)
    with pytest.raises(LockLostError):
        saver.wait()
    assert names(tmp_path) == []


STALLS = {"checkpoint": "run_8.pt", "generation": "run_8.step0000000002.pt", "weights": "run_8.pth"}


@pytest.mark.parametrize("name", STALLS.values(), ids=STALLS)
def test_a_straggler_that_held_the_lock_a_moment_ago_saves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process of an earlier attempt stalls at a rename until the next attempt has saved."""
    folder = tmp_path / "run"
    folder.mkdir()
    save(Checkpointer(folder / "run_8.pt", folder / "run_8.pth", keep=3), 2)
    fork = multiprocessing.get_context("fork")
    stalled, go_on = fork.Event(), fork.Event()
    straggler = fork.Process(target=_stall_and_save, args=(folder, name, stalled, go_on))
    monkeypatch.setenv("MINIMIND_EVENTS", str(tmp_path / "events.jsonl"))
    monkeypatch.setenv("LAUNCHER_ATTEMPT", "1")
    straggler.start()
    assert stalled.wait(60)
    monkeypatch.setenv("LAUNCHER_ATTEMPT", "2")
    lock, successor = _owner(folder)
    save(successor, 7, 9)
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}
    go_on.set()
    straggler.join(60)
    assert straggler.exitcode == 0, "it did not hear that it has lost the lock"
    now = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}
    assert now == kept
    lock.release()


def _owner(folder: Path) -> tuple[FolderLock, Checkpointer]:
    """Who starts as a training does: takes the lock, clears up, and looks what there is."""
    lock = FolderLock(folder / "lock")
    lock.acquire()
    files = (folder / "run_8.pt", folder / "run_8.pth")
    saver = Checkpointer(*files, keep=3, may_write=lock.ensure_mine)
    saver.remove_leftovers()
    saver.find_newest()
    return lock, saver


def _stall_and_save(folder: Path, name: str, stalled: Any, go_on: Any) -> None:
    """Saves step 5, and stops for a while right before the rename to ``name``."""
    _, saver = _owner(folder)
    rename = os.replace

    def stalling(source: Path, target: Path) -> None:
        if Path(target).name == name:
            stalled.set()
            go_on.wait()
        rename(source, target)

    os.replace = stalling  # type: ignore[assignment]
    try:
        save(saver, 5)
    except LockLostError:
        os._exit(0)
    os._exit(1)


def test_leftovers_of_killed_saves_are_removed(saver: Checkpointer, tmp_path: Path) -> None:
    save(saver, 1)
    (tmp_path / ".run_8.pt.host.123.tmp").write_bytes(b"half")
    (tmp_path / ".run_8.pth.host.123.tmp").write_bytes(b"half")
    (tmp_path / ".other.pt.host.123.tmp").write_bytes(b"not ours")
    saver.remove_leftovers()
    assert names(tmp_path) == [".other.pt.host.123.tmp", "run_8.pt", "run_8.pth"]


def test_a_fresh_run_keeps_the_earlier_runs_checkpoint(saver: Checkpointer, tmp_path: Path) -> None:
    save(saver, 1, 2)
    saver.set_aside()
    assert names(tmp_path) == ["run_8.pth", "run_8.replaced.pt", "run_8.replaced.pth"]
    assert load_checkpoint(tmp_path / "run_8.replaced.pt")["step"] == 2
    assert saver.find_newest() is None


def restart(saver: Checkpointer, *steps: int) -> Checkpointer:
    """A fresh start over what is there, which then saves ``steps``."""
    fresh = Checkpointer(saver.checkpoint_file, saver.weight_file, keep=saver.keep)
    fresh.set_aside()
    save(fresh, *steps)
    return fresh


def test_fresh_starts_never_lose_the_furthest_run(saver: Checkpointer, tmp_path: Path) -> None:
    save(saver, 19, 20)
    for last in (2, 3, 1):
        restart(saver, last)
    restart(saver)
    kept = ["run_8.furthest.replaced.pt", "run_8.replaced.pt"]
    assert names(tmp_path) == sorted([*kept, *(f"{name}h" for name in kept), "run_8.pth"])
    assert steps_of_weights(tmp_path / "run_8.furthest.replaced.pth") == 20
    assert steps_of_weights(tmp_path / "run_8.replaced.pth") == 1
    assert load_checkpoint(tmp_path / "run_8.furthest.replaced.pt")["step"] == 20
    assert load_checkpoint(tmp_path / "run_8.replaced.pt")["step"] == 1


def test_a_further_run_takes_the_place_of_the_furthest_only_when_it_is_replaced_itself(
    saver: Checkpointer, tmp_path: Path
) -> None:
    save(saver, 20)
    for last in (2, 30, 4):
        restart(saver, last)
    assert load_checkpoint(tmp_path / "run_8.furthest.replaced.pt")["step"] == 20
    assert load_checkpoint(tmp_path / "run_8.replaced.pt")["step"] == 30
    restart(saver)
    assert load_checkpoint(tmp_path / "run_8.furthest.replaced.pt")["step"] == 30
    assert load_checkpoint(tmp_path / "run_8.replaced.pt")["step"] == 4


def test_a_fresh_start_keeps_the_newest_that_verifies(saver: Checkpointer, tmp_path: Path) -> None:
    save(saver, 1, 2)
    truncate(saver.checkpoint_file)
    fresh = restart(saver)
    replaced = ["run_8.replaced.pt", "run_8.replaced.pth"]
    assert names(tmp_path) == ["run_8.damaged.pt", "run_8.pth", *replaced]
    assert load_checkpoint(tmp_path / "run_8.replaced.pt")["step"] == 1
    assert fresh.newest_step is None
    assert fresh.find_newest() is None


def test_a_fresh_start_over_nothing_but_damage_keeps_what_was_replaced_before(
    saver: Checkpointer, tmp_path: Path
) -> None:
    save(saver, 5)
    restart(saver, 6)
    truncate(saver.checkpoint_file)
    restart(saver)
    replaced = ["run_8.replaced.pt", "run_8.replaced.pth"]
    assert names(tmp_path) == ["run_8.damaged.pt", "run_8.pth", *replaced]
    assert load_checkpoint(tmp_path / "run_8.replaced.pt")["step"] == 5


def test_a_killed_fresh_start_leaves_the_weights_under_both_names(
    saver: Checkpointer, tmp_path: Path
) -> None:
    """``--from_weight`` may name them, and the next attempt reads them anew."""
    save(saver, 5)
    restart(saver)
    restart(saver)
    assert names(tmp_path) == ["run_8.pth", "run_8.replaced.pt", "run_8.replaced.pth"]
    assert steps_of_weights(saver.weight_file) == 5
    restart(saver, 1)
    assert steps_of_weights(saver.weight_file) == 1
    assert steps_of_weights(tmp_path / "run_8.replaced.pth") == 5


@pytest.mark.parametrize("links", [True, False])
def test_weights_of_unknown_worth_are_all_kept(
    saver: Checkpointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Another program's, or an older version's: nobody knows how long they were trained."""
    if not links:
        monkeypatch.setattr(os, "link", refuse_links)
    for number in range(3):
        torch.save({"w": torch.full((9,), float(number))}, saver.weight_file)
        restart(saver, 100)
    restart(saver, 3)
    found = [tmp_path / f"run_8.replaced.{number}.pth" for number in (2, 3, 4)]
    assert [torch.load(file, weights_only=True)["w"][0].item() for file in found] == [0, 1, 2]
    assert steps_of_weights(tmp_path / "run_8.replaced.pth") == 100
    assert sum(name.endswith(".pth") for name in names(tmp_path)) == 5


def test_another_runs_generations_are_left_alone(tmp_path: Path) -> None:
    first = Checkpointer(tmp_path / "a_8.pt", tmp_path / "a_8.pth", keep=2)
    second = Checkpointer(tmp_path / "a_8_moe.pt", tmp_path / "a_8_moe.pth", keep=2)
    save(first, 1, 2, 3)
    save(second, 1, 2, 3)
    assert load_checkpoint(first.checkpoint_file)["step"] == 3
    assert "a_8.step0000000002.pt" in names(tmp_path)
    assert "a_8_moe.step0000000002.pt" in names(tmp_path)


def test_without_page_locked_memory_a_copy_from_a_gpu_takes_plain_memory(monkeypatch):
    real, asked = torch.empty, []

    def refuse(*args, pin_memory=False, **kwargs):
        asked.append(pin_memory)
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(torch, "empty", refuse)
    of_gpu = SimpleNamespace(device=torch.device("cuda"), shape=(2, 3), dtype=torch.float64)
    buffer = host_buffer(of_gpu)
    assert (buffer.shape, buffer.dtype, buffer.is_pinned()) == ((2, 3), torch.float64, False)
    assert asked == [True, False]
