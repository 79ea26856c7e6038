"""What goes wrong around a run: disks, folders, other runs, ranks, numbers, memory."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from minimind.checkpoint import store as checkpoint
from minimind.config import TrainConfig
from minimind.errors import OutOfMemoryError
from minimind.rundir.metrics import read_metrics
from minimind.system import durable
from minimind.training.failure import explain
from minimind.training.trainer import Trainer
from tests.needs import lacks
from tests.runs import Run, assert_same_run, differences, rank_main, wait_until

MakeRun = Callable[..., Run]


def errors(run: Run) -> list[str]:
    return [line for line in run.output.splitlines() if "error:" in line]


def rank_with_a_slow_disk(argv: list[str], *rank: Any) -> None:
    """The body of a rank whose every write takes as long as the next optimiser step."""
    record = Path(argv[argv.index("--save_dir") + 1]) / "rows.rank0.jsonl"

    def slowly(*arguments: Any, **options: Any) -> None:
        done = record.read_bytes().count(b"\n") + 3
        # After the last step there is no next one to wait for.
        with contextlib.suppress(AssertionError):
            wait_until(lambda: record.read_bytes().count(b"\n") >= done, "the next step", 2)
        durable.write_durably(*arguments, **options)

    checkpoint.write_durably = slowly  # type: ignore[assignment]
    rank_main(argv, *rank)


def rank_that_waits_for_a_full_disk(argv: list[str], *rank: Any) -> None:
    """The body of a rank whose micro-steps after the eighth find one of its disks full."""
    folders = [argv[argv.index(flag) + 1] for flag in ("--save_dir", "--checkpoint_dir")]
    numbers = itertools.count(1)

    def is_full() -> bool:
        return min(shutil.disk_usage(folder).free for folder in folders) < 64 << 10

    def wait(trainer: Trainer) -> None:
        if next(numbers) > 8:
            wait_until(is_full, "a full disk")

    rank_main(argv, *rank, on_micro_batch=wait)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        lacks("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


class TestDisk:
    def test_a_slow_disk_puts_saves_off_but_at_most_to_the_next_one_due(
        self, make_run: MakeRun
    ) -> None:
        whole = make_run("whole", save_interval=3).complete(2)
        run = make_run("run", save_interval=3)
        events = run.folder.parent / "events.jsonl"
        run.environ["MINIMIND_EVENTS"] = str(events)
        assert run.finish(run.start(2, target=rank_with_a_slow_disk)) == [0, 0], run.output
        written = [json.loads(line) for line in events.read_text().splitlines()]
        steps = [event["step"] for event in written if event["event"] == "checkpointed"]
        due = list(range(1, whole.state()["global_step"] + 1))
        assert steps[0] == due[0]
        assert steps[-1] == due[-1]
        assert len(steps) < len(due), "each optimiser step had a save due"
        assert max(b - a for a, b in pairwise(steps)) <= 2
        assert_same_run(whole, run)

    def test_a_full_disk_spares_the_last_good_checkpoint(
        self, make_run: MakeRun, small_disk: Path
    ) -> None:
        whole = make_run("whole").complete()
        run = make_run("run", checkpoint_dir=small_disk, keep_checkpoints=1)
        processes = run.start(target=rank_that_waits_for_a_full_disk)
        newest = small_disk / "pretrain_32.pt"
        wait_until(newest.exists, "the first checkpoint")
        ballast = small_disk / "ballast"
        fill = ["dd", "if=/dev/zero", f"of={ballast}", "bs=64K", "oflag=append", "conv=notrunc"]

        def filled() -> bool:
            # A checkpoint that was whole by now still takes the old one's name, and frees its room.
            subprocess.run(fill, capture_output=True)
            return "not saved" in run.output or not processes[0].is_alive()

        wait_until(filled, "a save that fails")
        (code,) = run.finish(processes)
        assert code == 1
        assert "not saved" in run.output
        assert "No space left on device" in run.output
        stood_at = torch.load(newest, weights_only=True)["global_step"]
        assert stood_at < whole.state()["global_step"]
        assert not [p for p in small_disk.iterdir() if p.name.endswith(".tmp")]

        ballast.unlink()
        run.complete()
        assert f"resumed at optimiser step {stood_at}," in run.output
        shutil.copytree(small_disk, run.checkpoint_dir)
        assert_same_run(whole, run)

    def test_a_full_disk_stops_no_training(self, make_run: MakeRun, small_disk: Path) -> None:
        run = make_run(
            "run",
            epochs=1500,
            save_dir=small_disk / "out",
            checkpoint_dir=small_disk / "checkpoints",
            record_rows=False,
        )
        metrics = small_disk / "out" / "metrics.jsonl"
        processes = run.start()
        wait_until((small_disk / "checkpoints" / "pretrain_32.pt").exists, "the first checkpoint")
        ballast = small_disk / "ballast"
        subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=4K"], capture_output=True)
        wait_until(lambda: f"{metrics} cannot be written" in run.output, "an outage")
        lines = run.output.count("Epoch:")
        wait_until(lambda: run.output.count("Epoch:") > lines + 9, "training that goes on")
        ballast.unlink()
        wait_until(lambda: f"{metrics} is written again" in run.output, "the outage's end")
        os.kill(processes[0].pid, signal.SIGTERM)
        assert run.finish(processes) == [75], run.output
        assert "Traceback" not in run.output
        assert "Logging error" not in run.output
        assert run.output.count("train.log cannot be written") <= 2
        points = [p for p in read_metrics(metrics) if "loss" in p]
        iters = points[0]["iters"]
        places = [point["epoch"] * iters + point["step"] for point in points]
        assert places == list(range(1, len(places) + 1)), "no point is missing"

    def test_a_row_record_without_room_stops_the_run_in_one_line(
        self, make_run: MakeRun, small_disk: Path
    ) -> None:
        whole = make_run("whole", epochs=5).complete()
        run = make_run("run", epochs=5, save_dir=small_disk)
        processes = run.start(target=rank_that_waits_for_a_full_disk)
        wait_until((small_disk / "pretrain_32.pth").exists, "the first checkpoint")
        ballast = small_disk / "ballast"
        subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=4K"], capture_output=True)
        assert run.finish(processes) == [1], run.output
        (line,) = errors(run)
        assert "rows.rank0.jsonl cannot be written: No space left on device" in line
        ballast.unlink()
        run.complete()
        shutil.copytree(small_disk, run.save_dir)
        assert run.trained_rows() == whole.trained_rows()
        assert differences(whole.state()["model"], run.state()["model"]) == []

    def test_weights_that_cannot_be_written_fail_the_run_not_its_checkpoint(
        self, make_run: MakeRun
    ) -> None:
        run = make_run("run", max_steps=4)
        events = run.folder.parent / "events.jsonl"
        run.environ["MINIMIND_EVENTS"] = str(events)
        weights = run.save_dir / "pretrain_32.pth"
        # No file takes a folder's name: as on a full disk, for the weights alone.
        weights.mkdir(parents=True)
        assert run.finish(run.start()) == [1], run.output
        assert f"weights of step 4 not saved: {weights}" in run.output
        assert "checkpoint of step" not in run.output
        assert "done at" not in run.output
        assert run.state()["global_step"] == 4
        assert '"event": "checkpointed", "step": 4' in events.read_text()
        weights.rmdir()
        run.complete()
        assert "nothing left to train" in run.output
        assert weights.is_file()

    @pytest.mark.parametrize("flag", ["save_dir", "checkpoint_dir"])
    def test_a_read_only_folder_is_found_before_anything_starts(
        self, make_run: MakeRun, tmp_path: Path, flag: str
    ) -> None:
        folder = tmp_path / "read-only"
        folder.mkdir()
        bind = ["mount", "--bind", str(folder), str(folder)]
        if os.geteuid() != 0 or subprocess.run(bind, capture_output=True).returncode != 0:
            lacks("mounting needs root")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
            run = make_run("run", **{flag: folder})
            assert run.finish(run.start()) == [2]
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        assert len(errors(run)) == 1
        assert f"--{flag}" in errors(run)[0]

    def test_a_folder_that_is_a_file(self, make_run: MakeRun, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        run = make_run("run", save_dir=tmp_path / "file" / "out")
        assert run.finish(run.start()) == [2]
        assert "--save_dir" in errors(run)[0]


class TestCheckpoints:
    def test_a_damaged_newest_falls_back_and_ends_the_same(self, make_run: MakeRun) -> None:
        whole = make_run("whole").complete()
        run = make_run("run")
        run.interrupt(signal.SIGTERM, 20)
        newest = run.checkpoint_dir / "pretrain_32.pt"
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
        run.complete()
        assert "is damaged" in run.output
        assert "going on from" in run.output
        assert_same_run(whole, run)

    def test_nothing_but_damage_is_exit_2_and_touches_nothing(self, make_run: MakeRun) -> None:
        run = make_run("run")
        run.checkpoint_dir.mkdir(parents=True)
        newest = run.checkpoint_dir / "pretrain_32.pt"
        newest.write_text("garbage")
        assert run.finish(run.start()) == [2]
        assert "no checkpoint in" in errors(run)[0]
        assert newest.read_text() == "garbage"

    def test_a_second_run_on_the_folder_is_refused_while_the_first_lives(
        self, make_run: MakeRun
    ) -> None:
        first = make_run("first", epochs=100)
        processes = first.start()
        wait_until(lambda: len(first.records()) > 3, "the first run's steps")
        second = make_run("second", checkpoint_dir=first.checkpoint_dir)
        assert second.finish(second.start()) == [2]
        assert f"is in use by process {processes[0].pid}" in errors(second)[0]
        os.kill(processes[0].pid, signal.SIGTERM)
        assert first.finish(processes) == [75]
        assert not list(first.checkpoint_dir.glob("*.lock"))

    def test_runs_that_take_turns_in_one_save_dir_keep_their_records_apart(
        self, make_run: MakeRun
    ) -> None:
        whole = make_run("whole", save_weight="a", max_steps=6).complete()
        run = make_run("run", save_weight="a").complete(max_steps=4)
        run.complete(save_weight="b", seed=7, max_steps=9)
        theirs = run.trained_rows()
        run.complete(max_steps=6)
        run.complete(max_steps=6)
        assert "records of another run" in run.output
        steps = {p["global_step"] for p in read_metrics(run.save_dir / "metrics.jsonl")}
        assert steps == {4, 5, 6}
        assert run.trained_rows() == whole.trained_rows()[-len(run.trained_rows()) :]
        first, second = (
            read_metrics(run.save_dir / f"metrics.{number}.jsonl") for number in (1, 2)
        )
        assert max(point["global_step"] for point in first) == 4
        assert max(point["global_step"] for point in second) == 9
        (run.save_dir / "rows.rank0.2.jsonl").rename(run.save_dir / "rows.rank0.jsonl")
        assert run.trained_rows() == theirs

    def test_a_second_run_in_the_save_dir_is_refused_while_the_first_lives(
        self, make_run: MakeRun
    ) -> None:
        first = make_run("first", epochs=100)
        processes = first.start()
        wait_until(lambda: len(first.records()) > 3, "the first run's steps")
        second = make_run("second", save_dir=first.save_dir, save_weight="b")
        assert second.finish(second.start()) == [2]
        (line,) = errors(second)
        assert f"{first.save_dir} is in use by process {processes[0].pid}" in line
        assert "use another --save_dir" in line
        os.kill(processes[0].pid, signal.SIGTERM)
        assert first.finish(processes) == [75]
        assert not list(first.save_dir.glob("*.lock"))
        assert not list(second.checkpoint_dir.iterdir())

    def test_resume_with_another_model_is_exit_2(self, make_run: MakeRun) -> None:
        run = make_run("run")
        run.interrupt(signal.SIGTERM, 5)
        assert run.finish(run.start(num_hidden_layers=3)) == [2]
        assert "--num_hidden_layers 2, not 3" in errors(run)[0]

    def test_resume_with_other_data_is_exit_2(self, make_run: MakeRun, tmp_path: Path) -> None:
        from tests.corpus import write_corpus

        run = make_run("run")
        run.interrupt(signal.SIGTERM, 5)
        other = write_corpus(tmp_path / "other.jsonl", 50, seed=1)
        assert run.finish(run.start(data_path=other)) == [2]
        assert "other data or another tokenizer" in errors(run)[0]

    def test_the_same_data_elsewhere_resumes(
        self, make_run: MakeRun, tmp_path: Path, tiny_corpus: Path
    ) -> None:
        run = make_run("run")
        run.interrupt(signal.SIGTERM, 5)
        moved = tmp_path / "moved.jsonl"
        shutil.copyfile(tiny_corpus, moved)
        run.complete(data_path=moved)
        assert "resumed at" in run.output

    def test_a_fresh_start_keeps_the_earlier_run(self, make_run: MakeRun) -> None:
        run = make_run("run", max_steps=4).complete()
        run.complete(from_resume="0", max_steps=3)
        kept = torch.load(run.checkpoint_dir / "pretrain_32.replaced.pt", weights_only=True)
        assert kept["global_step"] == 4
        assert run.state()["global_step"] == 3
        weights = torch.load(run.save_dir / "pretrain_32.replaced.pth", weights_only=True)
        assert torch.equal(weights["lm_head.weight"], kept["model"]["lm_head.weight"].half())
        assert len(list(run.save_dir.glob("metrics*.jsonl"))) == 2
        run.complete(from_resume="0", max_steps=2)
        furthest = run.checkpoint_dir / "pretrain_32.furthest.replaced.pt"
        assert torch.load(furthest, weights_only=True)["global_step"] == 4

    def test_resuming_a_complete_run_changes_nothing(self, make_run: MakeRun) -> None:
        run = make_run("run", max_steps=4).complete()
        before = run.state()
        run.complete()
        assert "nothing left to train" in run.output
        assert differences(before, run.state()) == []

    def test_a_complete_run_writes_weights_that_are_absent_or_old(self, make_run: MakeRun) -> None:
        run = make_run("run", max_steps=4).complete()
        (weights,) = run.save_dir.glob("*.pth")
        right = torch.load(weights, weights_only=True)
        # As after a kill between the checkpoint and its weights.
        weights.write_bytes(b"those of an earlier save")
        run.complete()
        assert differences(right, torch.load(weights, weights_only=True)) == []
        # Nobody knows whose they were.
        kept = weights.with_suffix(".replaced.pth")
        assert kept.read_bytes() == b"those of an earlier save"
        elsewhere = run.folder / "elsewhere"
        run.complete(save_dir=elsewhere)
        assert differences(right, torch.load(elsewhere / weights.name, weights_only=True)) == []


class TestRanks:
    @pytest.mark.parametrize("victim", [0, 1])
    def test_a_killed_rank_takes_the_others_down_with_it(
        self, make_run: MakeRun, victim: int
    ) -> None:
        run = make_run("run", epochs=200)
        processes = run.start(2)
        wait_until(lambda: len(run.records()) > 5, "steps")
        processes[victim].kill()
        codes = run.finish(processes)
        assert codes[victim] == -signal.SIGKILL
        assert codes[1 - victim] == 1

    @pytest.mark.parametrize("victim", [0, 1])
    def test_a_rank_that_fails_says_why_and_ends_its_peers(
        self, make_run: MakeRun, victim: int
    ) -> None:
        run = make_run("run", epochs=200)
        run.environ["FAILING_RANK"] = str(victim)
        assert run.finish(run.start(2, target=rank_that_fails)) == [1, 1]
        assert not list(run.folder.glob("leaving.*"))
        last_words = [
            (run.folder / f"output.{rank}").read_text().splitlines()[-1] for rank in range(2)
        ]
        assert "minimind pretrain: crashed: RuntimeError: no such kernel" in last_words[victim]
        # In the exchange of gradients torch says it, in all others we do.
        assert last_words[1 - victim].startswith(
            ("minimind pretrain: crashed: ", "minimind pretrain: error: ")
        ), last_words

    def test_bad_data_ends_all_ranks_with_2(self, make_run: MakeRun, tmp_path: Path) -> None:
        (tmp_path / "empty.jsonl").write_text("")
        run = make_run("run", data_path=tmp_path / "empty.jsonl")
        assert run.finish(run.start(2)) == [2, 2]
        (line,) = errors(run)
        assert str(tmp_path / "empty.jsonl") in line

    def test_one_signalled_rank_stops_all_at_the_same_step(self, make_run: MakeRun) -> None:
        run = make_run("run", epochs=200)
        processes = run.start(2)
        wait_until(lambda: len(run.records()) > 5, "steps")
        os.kill(processes[1].pid, signal.SIGTERM)
        assert run.finish(processes) == [75, 75]
        assert run.records(0)[-1]["step"] == run.records(1)[-1]["step"]


class TestNumbers:
    def test_a_loss_that_is_not_finite_stops_with_step_rows_and_checkpoint(
        self, make_run: MakeRun
    ) -> None:
        run = make_run("run", learning_rate=1e30, save_interval=3, warmup_ratio=0)
        assert run.finish(run.start()) == [1]
        (line,) = errors(run)
        assert "not finite at epoch 1, step 6, rows" in line
        assert "last good checkpoint" in line
        assert "(optimiser step 1)" in line
        assert run.state()["global_step"] == 1
        trained = [row for r in run.records() if r["global_step"] == 1 for row in r["rows"]]
        assert f"rows {', '.join(map(str, trained))}" in line

    def test_such_steps_can_be_skipped_and_are_counted(self, make_run: MakeRun) -> None:
        run = make_run("run", learning_rate=1e30, warmup_ratio=0, skip_nonfinite=2)
        assert run.finish(run.start()) == [1]
        assert run.output.count("step skipped") == 2
        assert "step skipped (2 of 2)" in run.output

    def test_the_step_that_is_skipped_leaves_the_weights_alone(self, make_run: MakeRun) -> None:
        one = make_run("one", learning_rate=1e30, warmup_ratio=0, max_steps=1).complete()
        three = make_run(
            "three", learning_rate=1e30, warmup_ratio=0, max_steps=3, skip_nonfinite=2
        ).complete()
        assert three.state()["skipped_steps"] == 2
        ours, theirs = one.state()["model"], three.state()["model"]
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def rank_that_fails(argv: list[str], environ: dict[str, str], output: str) -> None:
    """A rank that fails in a step, or its peer.

    Destroying the group waits for all ranks here, as it does with NCCL while they exchange.
    """
    import torch.distributed as dist

    destroy = dist.destroy_process_group

    def fail(trainer: Trainer) -> None:
        step, rank = trainer.progress.global_step, trainer.world.rank
        if step == 3 and str(rank) == environ["FAILING_RANK"]:
            raise RuntimeError("no such kernel")

    def wait_for_all() -> None:
        folder = Path(output).parent
        (folder / f"leaving.{environ['RANK']}").touch()
        wait_until(lambda: len(list(folder.glob("leaving.*"))) == 2, "the other rank")
        destroy()

    dist.destroy_process_group = wait_for_all
    rank_main(argv, environ, output, on_micro_batch=fail)


def with_little_memory(argv: list[str], environ: dict[str, str], output: str) -> None:
    """A rank that gets half a gigabyte of address space more than it has by now."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + (512 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    rank_main(argv, environ, output)


class TestMemory:
    def test_a_run_without_enough_memory_says_what_to_lower(self, make_run: MakeRun) -> None:
        run = make_run("run", hidden_size=1024, num_hidden_layers=16, batch_size=64)
        assert run.finish(run.start(target=with_little_memory)) == [1]
        (line,) = errors(run)
        assert "out of memory" in line
        assert "lower --batch_size 64" in line
        assert "Traceback" in (run.save_dir / "train.log").read_text()

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate "),
            MemoryError("Unable to allocate 3 GiB"),
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        ],
    )
    def test_out_of_memory_names_what_to_lower(self, error: Exception) -> None:
        config = TrainConfig(batch_size=64, num_workers=3)
        explained = explain(error, config, torch.device("cpu"))
        assert isinstance(explained, OutOfMemoryError)
        assert explained.exit_code == 1
        for part in ("--batch_size 64", "--max_seq_len 512", "--num_workers 3", "GB"):
            assert part in str(explained)

    def test_other_errors_stay_what_they_are(self) -> None:
        error = RuntimeError("shape mismatch")
        assert explain(error, TrainConfig(), torch.device("cpu")) is error

    def test_a_real_failed_allocation_is_recognised(self) -> None:
        with pytest.raises(Exception, match="allocate") as raised:
            torch.empty(2**60, dtype=torch.uint8)
        explained = explain(raised.value, TrainConfig(), torch.device("cpu"))
        assert isinstance(explained, OutOfMemoryError)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_stop_before_training_is_75(make_run: MakeRun, number: Any, tmp_path: Path) -> None:
    """A signal while the corpus is being tokenised does not wait for its end."""
    from tests.corpus import write_corpus

    big = write_corpus(tmp_path / "big.jsonl", 60_000)
    run = make_run("run", data_path=big, cache_dir=tmp_path / "fresh-cache")
    (process,) = run.start()
    wait_until(lambda: any((tmp_path / "fresh-cache").glob("**/tokens*")), "a build under way")
    os.kill(process.pid, number)
    assert run.finish([process]) == [75]
    assert "before training began" in run.output
