"""Whatever moment the power fails at, and whatever of the last writes reached the disk: no loss.

Each durable file is written once by a real process whose calls are recorded. Then every folder
that a crash after any of these calls can leave (see :mod:`tests.shim.crash`) is made and
opened as the next attempt would open it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.spec.run_folder import RunFolder
from minimind.checkpoint.store import load_checkpoint
from minimind.data.packing import plan_rows
from minimind.data.token_store import TokenStore
from minimind.rundir.metrics import read_metrics
from minimind.system.jsonl import JsonLog
from minimind.weights.torch_file import load_torch_file
from tests.checkpoints import train_state
from tests.integration.crash_scenario import (
    CHECKPOINTS,
    RECORDS,
    SAVES,
    checkpointer,
)
from tests.runs import differences
from tests.shim import preload, recording
from tests.shim.crash import MARK, Crash, Operation, crashes, is_hidden, read_record


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Operation]]:
    folder = tmp_path_factory.mktemp("recorded").resolve()
    root, record = folder / "root", folder / "record"
    root.mkdir()
    subprocess.run(
        [sys.executable, "-m", "tests.integration.crash_scenario", str(root), str(record)],
        env={**os.environ, **preload(), **recording(root, record)},
        check=True,
    )
    return root, read_record(record)


def part(
    record: tuple[Path, list[Operation]], name: str, unread: Callable[[str], bool] = is_hidden
) -> Iterator[Crash]:
    """The crashes of one scenario, whose folder is all there is."""
    root, operations = record
    folder = root / name
    inside = str(folder) + os.sep
    names = [o.path for o in operations]
    first = names.index(str(folder)) + 1
    later = [i for i in range(first, len(names)) if operations[i].call == "mkdir"]
    end = next((i for i in later if os.path.dirname(names[i]) == str(root)), len(names))
    mine = [
        o
        for o in operations[first:end]
        if o.call == MARK or o.path.startswith(inside) or o.path == str(folder)
    ]
    return crashes(mine, folder, unread)


def steps(crash: Crash, word: str) -> list[int]:
    return [int(mark.split()[1]) for mark in crash.marks if mark.startswith(word)]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_the_newest_or_the_one_before_it(
    record: tuple[Path, list[Operation]], tmp_path: Path, name: str
) -> None:
    found_steps, count = set(), 0
    for count, crash in enumerate(part(record, name), start=1):
        folder = crash.write(tmp_path / str(count))
        saver = checkpointer(folder, CHECKPOINTS[name])
        newest = saver.find_newest()
        promised, begun = (
            max(steps(crash, "durable"), default=0),
            max(steps(crash, "begun"), default=0),
        )
        step = 0 if newest is None else load_checkpoint(newest)["global_step"]
        assert promised <= step <= begun, (crash.after, sorted(crash.files))
        assert begun - step <= 1
        if newest is not None:
            assert differences(load_checkpoint(newest), train_state(step).to_dict()) == []
        weights = folder / "run_8.pth"
        if weights.exists():
            value = float(load_torch_file(weights)["a.weight"][0, 0])
            assert promised <= value <= begun
        else:
            assert not promised
        saver.remove_leftovers()
        assert not list(folder.glob(".*"))
        found_steps.add(step)
    assert found_steps == set(range(SAVES + 1))
    assert count > 20, "the record has too few calls: is the library loaded?"


def test_a_run_goes_on_saving_after_any_crash(
    record: tuple[Path, list[Operation]], tmp_path: Path
) -> None:
    for count, crash in enumerate(part(record, "keep-3")):
        folder = crash.write(tmp_path / str(count))
        saver = checkpointer(folder, 3)
        saver.find_newest()
        saver.remove_leftovers()
        saver.save(train_state(9), lambda seconds: None)
        saver.wait()
        kept = sorted(folder.glob("*.pt"))
        assert len(kept) <= 3
        assert load_checkpoint(kept[0])["global_step"] == 9


def test_what_a_run_fell_back_to_stands_until_the_next_save_is_durable(
    record: tuple[Path, list[Operation]], tmp_path: Path
) -> None:
    found_steps = set()
    for count, crash in enumerate(part(record, "damaged")):
        if "damaged" not in crash.marks:
            continue
        saver = checkpointer(crash.write(tmp_path / str(count)), 2)
        newest = saver.find_newest()
        assert newest is not None
        step = load_checkpoint(newest)["global_step"]
        assert step >= max(steps(crash, "durable"), default=1), crash.after
        found_steps.add(step)
    assert found_steps == {1, 3, 4}


def test_every_metrics_record_survives_once_written(
    record: tuple[Path, list[Operation]], tmp_path: Path
) -> None:
    for count, crash in enumerate(part(record, "metrics")):
        path = crash.write(tmp_path / str(count)) / "metrics.jsonl"
        log = JsonLog(path)
        log.write({"event": "resumed", "time": 0})
        log.close()
        found = [r["global_step"] for r in read_metrics(path) if "loss" in r]
        promised = len(steps(crash, "durable"))
        assert found[:promised] == list(range(1, promised + 1)), crash.after
        assert len(found) <= RECORDS
        assert read_metrics(path)[-1]["event"] == "resumed"


def test_a_row_record_is_trimmed_or_as_it_was(
    record: tuple[Path, list[Operation]], tmp_path: Path
) -> None:
    for count, crash in enumerate(part(record, "rows")):
        if "written" not in crash.marks:
            continue
        path = crash.write(tmp_path / str(count)) / "rows.rank0.jsonl"
        lines = len(path.read_text().splitlines())
        assert lines == 2 if "trimmed" in crash.marks else lines in (2, 4)


def test_events_attempts_and_markers_of_a_run_folder(
    record: tuple[Path, list[Operation]], tmp_path: Path
) -> None:
    for count, crash in enumerate(part(record, "run")):
        run = RunFolder(crash.write(tmp_path / str(count)))
        promised = steps(crash, "event")
        run.append("attempt_ended", attempt=len(promised), cause="preempted")
        events = run.events()
        started = [e["attempt"] for e in events if e["event"] == "attempt_started"]
        assert started[: len(promised)] == promised, (crash.after, run.events_file.read_bytes())
        assert events[-1]["event"] == "attempt_ended"
        attempts = steps(crash, "attempt")
        if attempts:
            assert run.current_attempt() in (attempts[-1], attempts[-1] + 1)
            assert set(attempts) <= set(run.attempt_numbers())
        final = run.final()
        if "done" in crash.marks:
            assert final is not None
            assert final.cause == "done"
        elif "stopped" in crash.marks:
            assert final is None or final.cause in ("crash", "done")
        assert run.new_attempt() > max(attempts, default=0)


def is_being_built(path: str) -> bool:
    return is_hidden(path) or ".building" in path


def test_a_token_store_is_whole_or_absent(
    record: tuple[Path, list[Operation]], tmp_path: Path
) -> None:
    _, operations = record
    content_hash = next(o.path for o in operations if o.call == MARK and len(o.path) == 64)
    opened = 0
    for count, crash in enumerate(part(record, "cache", is_being_built)):
        cache = crash.write(tmp_path / str(count))
        found = [p for p in cache.iterdir() if not is_being_built(p.name)]
        for folder in found:
            store = TokenStore.open(folder)
            assert store.content_hash == content_hash
            assert len(store.tokens) == store.n_tokens
            opened += 1
            assert plan_rows(store, 64, "bestfit").n_rows > 0
        if content_hash in crash.marks:
            assert found
    assert opened
