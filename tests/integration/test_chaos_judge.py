"""The adversary's judge sees what it is there to see, and says how to see it again."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minimind.training.audit import RowRecord
from tests.chaos import judge as judging
from tests.chaos.driver import Driver, insist_allowed, lend_compiled
from tests.chaos.faults.long_work import WORKS
from tests.chaos.faults.registry import ALL, Fault
from tests.chaos.judge import judge
from tests.chaos.local import LaunchedRun
from tests.chaos.places import sitecustomize
from tests.chaos.plain import PlainRun
from tests.chaos.report import Report
from tests.chaos.target import Ending, Lost
from tests.e2e.lab import REPOSITORY
from tests.runs import Run, wait_until


@pytest.fixture(scope="module")
def undisturbed(tiny_flags: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("chaos") / "undisturbed"
    scored = {"eval_data_path": tiny_flags["data_path"], "eval_interval": 6, "sample_interval": 6}
    return Run(folder, {**tiny_flags, **scored, "max_steps": 4}).complete()


def target(folder: Path, left: Callable[[], list[str]] = list) -> Any:
    """What the judge asks of a run that is over."""
    run = Run(folder, {})
    return SimpleNamespace(
        folder=folder,
        save_dir=run.save_dir,
        checkpoint_dir=run.checkpoint_dir,
        world_size=1,
        leftovers=left,
    )


@pytest.fixture
def copied(undisturbed: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed.folder, tmp_path / "copied"))


def flip_a_bit(path: Path, *keys: str) -> None:
    """Turn the lowest bit of a tensor's first number."""
    state = torch.load(path, weights_only=True)
    inner = state
    for key in keys:
        inner = inner[key]
    tensor = next(iter(inner.values()))
    tensor.view(torch.int16 if tensor.element_size() == 2 else torch.int32).view(-1)[0] ^= 1
    torch.save(state, path)


def change_lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def checkpoint(folder: Path) -> Path:
    (path,) = (p for p in (folder / "checkpoints").glob("*.pt") if p.name.count(".") == 1)
    return path


def weight(folder: Path) -> Path:
    (path,) = (folder / "out").glob("*.pth")
    return path


def other_loss(lines: list[str]) -> list[str]:
    points = [json.loads(line) for line in lines]
    next(point for point in points if "grad_norm" in point)["grad_norm"] += 1e-12
    return [json.dumps(point) + "\n" for point in points]


def without_a_score(lines: list[str]) -> list[str]:
    first = next(line for line in lines if "eval_loss" in line)
    return [line for line in lines if line is not first]


ROWS, METRICS, SAMPLES = "out/rows.rank0.jsonl", "out/metrics.jsonl", "out/samples.jsonl"


def test_a_run_that_is_equal_is_whole(copied: Path, undisturbed: Run) -> None:
    judge(target(copied), undisturbed)


@pytest.mark.parametrize(
    "harm, finding",
    [
        (lambda f: flip_a_bit(checkpoint(f), "model"), "the checkpoint differs"),
        (lambda f: flip_a_bit(weight(f)), "the weight file differs"),
        (lambda f: change_lines(f / ROWS, lambda lines: lines[:-1]), "trained other rows"),
        (lambda f: change_lines(f / ROWS, lambda lines: [lines[0], *lines]), "trained other rows"),
        (lambda f: change_lines(f / METRICS, other_loss), "the losses differ"),
        (lambda f: change_lines(f / METRICS, without_a_score), "the held-out losses differ"),
        (lambda f: change_lines(f / SAMPLES, lambda lines: lines[1:]), "the samples differ"),
        (lambda f: (f / "checkpoints" / ".half.tmp").touch(), "left half-written"),
        (lambda f: (f / "out" / "x.lock").touch(), "left half-written"),
    ],
    ids=[
        *("model", "weights", "row lost", "row twice", "loss", "score lost", "sample lost"),
        *("temporary file", "lock"),
    ],
)
def test_the_smallest_difference_is_found(
    harm: Callable[[Path], None], finding: str, copied: Path, undisturbed: Run
) -> None:
    harm(copied)
    with pytest.raises(Lost, match=finding):
        judge(target(copied), undisturbed)


def test_a_row_of_an_epoch_that_both_trained_twice_is_found(copied: Path) -> None:
    change_lines(copied / ROWS, lambda lines: [lines[0], *lines])
    with pytest.raises(Lost, match="trained twice or never"):
        judge(target(copied), Run(copied, {}))


def test_what_lives_on_is_found(
    copied: Path, undisturbed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "GONE_SECONDS", 0.0)
    with pytest.raises(Lost, match=r"lives on after the end: \['process 7'\]"):
        judge(target(copied, lambda: ["process 7"]), undisturbed)


def test_an_attempt_may_end_only_as_its_faults_let_it() -> None:
    stop = [fault for fault in ALL if fault.name == "container_stopped"]
    insist_allowed(Ending(cause="crash"), stop)
    insist_allowed(Ending(codes=(75,)), stop)
    for ending in (Ending(cause="config"), Ending(codes=(0, 1))):
        with pytest.raises(Lost, match="container_stopped may end an attempt otherwise"):
            insist_allowed(ending, stop)


def test_a_loss_comes_with_the_command_that_repeats_its_case(tmp_path: Path) -> None:
    said: list[str] = []

    @contextlib.contextmanager
    def make(name: str, flags: dict[str, Any], world_size: int) -> Iterator[Any]:
        def lost() -> None:
            raise Lost("a row is gone")

        answers = {
            "is_over": lambda: True,
            "is_running": lambda: True,
            "stacks": lambda: "in a wait",
        }
        yield SimpleNamespace(folder=tmp_path / name, complete=lost, **answers)

    layer: Any = SimpleNamespace(name="plain", world_sizes=(1,), faults=(1, 1), flags={}, make=make)
    driver = Driver(layer, tmp_path, seed=7, say=said.append, variant="moe", faults=2)
    driver._undisturbed = lambda *_: None  # type: ignore[assignment, method-assign]
    faults = [fault for fault in ALL if fault.name == "clock_step"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.chaos.driver.applicable", lambda *_: faults)
        assert not driver.case(12)
    assert driver.report.count == 0
    (told,) = said
    assert told.startswith(
        "LOST: python -m tests.chaos --seed 7 --layer plain --case 12 --faults 2 "
    )
    assert " --variant moe\n" in told
    assert "a row is gone\nin a wait" in told


@pytest.mark.parametrize("place", [f"{work.file} {work.function}" for work in WORKS])
def test_the_adversary_knows_long_work_by_its_right_name(place: str) -> None:
    file, function = place.split()
    (path,) = (p for p in REPOSITORY.glob("minimind/**/*.py") if str(p).endswith(file))
    defined = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef))
    assert function in [node.name for node in defined]


@contextlib.contextmanager
def ranks_at_work(tmp_path: Path, order: Path, count: int) -> Iterator[list[Any]]:
    """Processes in a long work that are there for orders; they live until the end at most."""
    script = tmp_path / "work.py"
    script.write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('struck', flush=True))\n"
        "def long_work():\n    print('begun', flush=True)\n    sys.stdin.read()\n"
        "long_work()\n"
    )
    folder = Path(sitecustomize.__file__).parent
    variables = {"PYTHONPATH": str(folder), sitecustomize.ORDER: str(order)}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script)],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(count)
    ]
    try:
        for rank in ranks:
            assert rank.stdout is not None
            assert rank.stdout.readline() == b"begun\n"
        yield ranks
    finally:
        # The end of its input ends the work of who has got no signal.
        for rank in ranks:
            rank.communicate()


def test_of_all_ranks_one_follows_an_order_whenever_it_comes(tmp_path: Path) -> None:
    order = tmp_path / "order"
    with ranks_at_work(tmp_path, order, 2) as both:
        (file,) = sitecustomize.give(order, [f"work.py long_work 3 {int(signal.SIGTERM)}"])
        wait_until(lambda: any(rank.poll() is not None for rank in both), "the signal")
        assert not file.exists()
    assert sorted(rank.returncode for rank in both) == [-signal.SIGTERM, 0]


def test_orders_are_followed_in_turn(tmp_path: Path) -> None:
    numbers = (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM)
    orders = [f"work.py long_work 1 {int(number)}" for number in numbers]
    with ranks_at_work(tmp_path, tmp_path / "order", 1) as (rank,):
        files = sitecustomize.give(tmp_path / "order", orders)
        assert rank.wait(60) == -signal.SIGTERM
        assert [file for file in files if file.exists()] == []


def test_micro_batches_wait_as_long_as_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowRecord, "write", RowRecord.write)
    sitecustomize.keep_pace(str(tmp_path / "order"))
    waited: list[float] = []
    monkeypatch.setattr(sitecustomize.time, "sleep", waited.append)
    record = RowRecord(tmp_path / "rows.jsonl")
    for seconds in (None, 0.25, 0):
        if seconds is not None:
            sitecustomize.set_pace(tmp_path / "order", seconds)
        record.write(epoch=0, step=1, global_step=0, rows=[1])
    assert waited == [0.25, 0.0]
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3


def test_ranks_draw_their_loss_so_that_a_stop_may_fall_into_it(tmp_path: Path) -> None:
    assert "LOSS_CURVE" in PlainRun(tmp_path / "run", {"num_workers": 0}, 1).run.environ


def test_a_fault_that_strikes_twice_counts_twice(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(endings=[], is_over=lambda: False)
    twice = Fault(
        *("first", lambda *_: ["first SIGTERM", "second (never came)", "third SIGHUP"]),
        *(("plain",), frozenset(), frozenset(), False, 1.0, lambda run: True),
    )
    layer: Any = SimpleNamespace(name="plain", faults=(1, 1))
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.chaos.driver.applicable", lambda *_: [twice])
        Driver(layer, tmp_path, seed=1)._interfere(run, Random(1), done)
    report = Report("plain", 1)
    report.add(1.0, done, [])
    assert report.count == 2


def test_a_case_gets_so_many_of_each_fault_in_any_order(tmp_path: Path) -> None:
    layer: Any = SimpleNamespace(name="plain")
    driver = Driver(layer, tmp_path, seed=1, only=["clock_step", "hangup"], each=5)
    first, second = driver._plan(Random(1)), driver._plan(Random(2))
    assert first != second
    assert sorted(first) == sorted(second) == ["clock_step"] * 5 + ["hangup"] * 5


def test_the_end_that_is_waited_for_is_that_of_the_attempt_that_was_looked_at() -> None:
    run = LaunchedRun.__new__(LaunchedRun)
    run._attempt, ended = 1, {"event": "attempt_ended", "attempt": 1}
    begun = [{"event": "attempt_started", "attempt": number} for number in (1, 2)]
    launched: Any = SimpleNamespace(events=lambda: [begun[0], ended, begun[1]])
    run.launched, run.gives_up_seconds = launched, 0.0
    run.settle()


def test_drivers_share_undisturbed_runs_where_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[Path] = []

    def complete(run: Run, world_size: int) -> Run:
        began.append(run.folder)
        run.folder.mkdir(parents=True)
        return run

    monkeypatch.setattr(Run, "complete", complete)
    layer: Any = SimpleNamespace(name="plain")
    for number in range(2):
        driver = Driver(layer, tmp_path / f"driver{number}", seed=1, keep=tmp_path / "kept")
        for world_size in (1, 2):
            driver._undisturbed("dense", {"epochs": 2}, world_size)
    assert len(began) == 2
    assert {folder.parent for folder in began} == {tmp_path / "kept"}


def test_compiled_code_is_lent_and_nothing_else(tmp_path: Path) -> None:
    source, cache = tmp_path / "source", tmp_path / "cache"
    for name in ("compiled-0/lent", "tokens-1/data"):
        (source / name).parent.mkdir(parents=True)
        (source / name).touch()
    (cache / "compiled-0").mkdir(parents=True)
    (cache / "compiled-0" / "own").touch()
    lend_compiled(source, cache)
    assert sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file()) == [
        "compiled-0/lent",
        "compiled-0/own",
    ]


def test_a_place_is_a_function_of_a_file_on_any_stack() -> None:
    here = Path(__file__).name

    def long_work(file: str) -> bool:
        return sitecustomize.runs(file, "long_work")

    assert long_work(here)
    assert not long_work("other.py")
    assert not sitecustomize.runs(here, "long_work")
