"""What a run computes and leaves behind."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import minimind
from minimind.checkpoint.store import Checkpointer
from minimind.config import TrainConfig
from minimind.data.tokenizer import load_tokenizer
from minimind.rundir.metrics import read_metrics
from minimind.telemetry import preparation
from minimind.training import stop
from minimind.training.audit import RowRecord
from minimind.training.trainer import Trainer
from minimind.weights.origin import Origin
from minimind.weights.state_dict import read_weights
from tests.corpus import write_corpus
from tests.runs import (
    STATE_KEYS,
    Run,
    assert_same_run,
    differences,
    rank_main,
    wait_until,
)

MakeRun = Callable[..., Run]

STEP_LINE = re.compile(
    r"^Epoch:\[\d+/\d+\]\(\d+/\d+\), loss: \d+\.\d{4}, logits_loss: \d+\.\d{4}, "
    r"aux_loss: \d+\.\d{4}, learning_rate: \d\.\d{8}, epoch_time: \d+\.\d{3}min"
    r", tok/s: [\d,]+, MFU: \d+\.\d%, data/compute/optimizer/checkpoint: \d+/\d+/\d+/\d+%"
    r", memory: \d+\.\dGB, time_left: (?:\d+[dhm])?\d+[hms]$"
)


def points(run: Run) -> list[dict[str, Any]]:
    lines = (run.save_dir / "metrics.jsonl").read_text().splitlines()
    return [p for p in map(json.loads, lines) if "loss" in p]


def scores(run: Run) -> list[dict[str, Any]]:
    lines = (run.save_dir / "metrics.jsonl").read_text().splitlines()
    return [p for p in map(json.loads, lines) if "eval_loss" in p]


def test_console_line_and_files_of_the_design(make_run: MakeRun) -> None:
    run = make_run("run", use_moe=1, log_interval=5, epochs=1)
    run.environ["LOSS_CURVE"] = "1"
    run.complete()
    lines = [line for line in run.output.splitlines() if line.startswith("Epoch:")]
    iters = points(run)[-1]["iters"]
    assert len(lines) == math.ceil(iters / 5)
    for line in lines:
        assert STEP_LINE.match(line), line
    assert f"Epoch:[1/1]({iters}/{iters})" in lines[-1]

    stem = "pretrain_32_moe"
    weights = torch.load(run.save_dir / f"{stem}.pth", weights_only=True)
    assert {t.dtype for t in weights.values()} == {torch.float16}
    assert "model.layers.1.mlp.experts.3.down_proj.weight" in weights
    assert weights["lm_head.weight"].data_ptr() == weights["model.embed_tokens.weight"].data_ptr()
    state = torch.load(run.checkpoint_dir / f"{stem}.pt", weights_only=True)
    assert {"model", "optimizer", "scaler", "epoch", "step", "wandb_id"} <= state.keys()
    assert {t.dtype for t in state["model"].values()} == {torch.float32}
    for name in ("metrics.jsonl", "config.toml", "train.log", "loss.png"):
        assert (run.save_dir / name).stat().st_size > 0
    assert (run.save_dir / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_loss_is_logits_loss_plus_aux_loss(make_run: MakeRun) -> None:
    run = make_run("run", use_moe=1, max_steps=4).complete()
    for point in points(run):
        assert point["aux_loss"] > 0
        assert point["loss"] == pytest.approx(point["logits_loss"] + point["aux_loss"], abs=1e-12)


def test_the_command_of_the_design_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Section 4.1 with only the data path changed, and the files of section 4.2."""
    from minimind.train_pretrain import main

    (tmp_path / "trainer").mkdir()
    monkeypatch.chdir(tmp_path / "trainer")
    monkeypatch.setenv("MINIMIND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    corpus = write_corpus(tmp_path / "corpus.jsonl", 2)
    command = (
        "--epochs 3 --batch_size 32 --learning_rate 2e-4 --hidden_size 512 --num_hidden_layers 8 "
        f"--max_seq_len 512 --use_moe 0 --data_path {corpus} --use_wandb"
    )
    assert main(command.split()) == 0
    here = tmp_path / "trainer"
    assert (here / "out/pretrain_512.pth").exists()
    state = torch.load(here / "checkpoints/pretrain_512.pt", weights_only=True)
    assert state["epoch"] == 2
    assert state["wandb_id"]
    assert list((here / "out/swanlog").iterdir())


def test_a_resumed_run_stays_one_experiment(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("run", use_wandb=True)
    run.environ["SWANLAB_MODE"] = "offline"
    assert run.interrupt(signal.SIGTERM, 5) == [75]
    first = run.state()["wandb_id"]
    run.complete()
    assert first
    assert run.state()["wandb_id"] == first


def count_reductions(argv: list[str], environ: dict[str, str], output: str) -> None:
    """A rank that writes down how often DDP exchanges gradients."""
    import torch.distributed.algorithms.ddp_comm_hooks.default_hooks as hooks
    from torch.nn.parallel import DistributedDataParallel

    from tests.runs import rank_main

    original = DistributedDataParallel.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)

        def hook(state, bucket):
            with open(f"{output}.reductions", "a") as file:
                file.write(f"{bucket.is_last()}\n")
            return hooks.allreduce_hook(state, bucket)

        self.register_comm_hook(None, hook)

    DistributedDataParallel.__init__ = init
    rank_main(argv, environ, output)


def test_gradients_are_exchanged_once_an_optimiser_step(make_run: MakeRun) -> None:
    run = make_run("run", max_steps=5, accumulation_steps=3)
    assert run.finish(run.start(2, target=count_reductions)) == [0, 0]
    lines = (run.folder / "output.0.reductions").read_text().split()
    # Five steps, and the pass over filler rows before the first.
    assert lines.count("True") == 6


def test_two_ranks_learn_what_one_learns(make_run: MakeRun) -> None:
    """Same rows an update, shared out over ranks: the same losses to rounding.

    The epoch's tail fills neither the last window nor the last micro-step, and one rank may
    have no row in it: scaling by real token counts makes up for that.
    """
    one = make_run("one", accumulation_steps=6).complete(1)
    two = make_run("two", accumulation_steps=3).complete(2)
    a, b = points(one), points(two)
    last_a = {p["global_step"]: p for p in a}
    last_b = {p["global_step"]: p for p in b}
    assert last_a.keys() == last_b.keys()
    for step in last_a:
        assert last_a[step]["grad_norm"] == pytest.approx(last_b[step]["grad_norm"], rel=1e-3)
    assert differences(one.state()["rows_done"], two.state()["rows_done"]) == []
    ours, theirs = one.state()["model"], two.state()["model"]
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], atol=2e-3), name


def test_accumulation_equals_one_large_batch(make_run: MakeRun) -> None:
    small = make_run("small", batch_size=1, accumulation_steps=6, epochs=1).complete()
    large = make_run("large", batch_size=6, accumulation_steps=1, epochs=1).complete()
    ours, theirs = small.state()["model"], large.state()["model"]
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], atol=2e-3), name


def test_the_model_learns(make_run: MakeRun) -> None:
    run = make_run("run", epochs=13, accumulation_steps=1).complete()
    losses = [p["loss"] for p in points(run)]
    assert losses[0] > 5.5
    assert sum(losses[-10:]) / 10 < 2.5


def test_held_out_loss_at_intervals_and_at_the_end(make_run: MakeRun, tmp_path: Path) -> None:
    held_out = write_corpus(tmp_path / "held_out.jsonl", 8, seed=9)
    run = make_run("run", eval_data_path=held_out, eval_interval=12, epochs=1).complete()
    two = make_run("two", eval_data_path=held_out, eval_interval=12, epochs=1)
    two.complete(2, accumulation_steps=3, batch_size=1)

    found = scores(run)
    steps = [p["step"] for p in found]
    assert steps[:-1] == [s for s in range(12, points(run)[-1]["iters"] + 1, 12) if s in steps[:-1]]
    assert steps[-1] == points(run)[-1]["iters"]
    assert found[-1]["eval_loss"] < found[0]["eval_loss"]
    assert 0 < found[-1]["bits_per_byte"] < found[-1]["eval_loss"]
    assert scores(two)[-1]["eval_loss"] == pytest.approx(found[-1]["eval_loss"], rel=1e-3)


@pytest.mark.timeout(1200)  # compiling is slow
def test_compiled_runs_are_exact_and_their_checkpoints_load_either_way(
    make_run: MakeRun,
) -> None:
    def patient(name: str) -> Run:
        run = make_run(name, num_hidden_layers=1, max_steps=6)
        run.patience = 600
        return run

    whole = patient("whole").complete(compile="on")
    pieces = patient("pieces")
    assert pieces.interrupt(signal.SIGTERM, 6, compile="on") == [75]
    assert not [n for n in pieces.state()["model"] if "_orig_mod" in n or n.startswith("module.")]
    to_eager = patient("to-eager")
    shutil.copytree(pieces.folder, to_eager.folder)

    pieces.complete(compile="on")
    assert differences(whole.state()["model"], pieces.state()["model"]) == []
    assert differences(whole.state()["optimizer"], pieces.state()["optimizer"]) == []
    assert whole.losses() == pieces.losses()

    to_eager.complete(compile="off")
    to_compiled = patient("to-compiled")
    assert to_compiled.interrupt(signal.SIGTERM, 6, compile="off") == [75]
    to_compiled.complete(compile="on")
    for other in (to_eager, to_compiled):
        assert "resumed at" in other.output
        ours, theirs = whole.state()["model"], other.state()["model"]
        assert all(torch.allclose(ours[n], theirs[n], atol=1e-3) for n in ours)


def test_batch_size_auto_keeps_the_rows_of_an_update_and_a_resume_keeps_its_size(
    make_run: MakeRun,
) -> None:
    flags = {"batch_size": "auto", "accumulation_steps": 1, "max_steps": 3, "log_interval": 1}
    run = make_run("run", **flags).complete(2)
    config = run.state()["config"]
    assert config["batch_size"] > 0
    assert config["batch_size"] * config["accumulation_steps"] == 32
    assert run.state()["rows_per_update"] == 64
    assert "--batch_size auto: " in run.output
    stored = (run.save_dir / "config.toml").read_text()
    assert f"batch_size = {config['batch_size']}" in stored

    run.complete(2, max_steps=5, from_resume="1")
    again = run.state()["config"]
    same = ("batch_size", "accumulation_steps")
    assert [again[name] for name in same] == [config[name] for name in same]
    assert run.output.count("--batch_size auto: ") == 1


TRACED_STEPS = 6
"""Of a profile of two micro-steps: three are skipped, one warms up, two are traced."""


def profiled_rank(argv: list[str], environ: dict[str, str], output: str) -> None:
    """A rank that writes down what is under way between ranks as a step of the profile ends.

    The second one votes only once the first one waits for its vote, or has ended a step without.
    """
    from minimind.distributed.stop_consensus import Agreement
    from minimind.training.profiler import StepProfiler
    from minimind.training.stop import StopDecision

    turns = Path(output).with_name("turns")
    poll, settle, step = Agreement.poll, StopDecision.settle, StepProfiler.step
    votes: list[Any] = []

    def take_turn(what: str) -> None:
        with turns.open("a") as file:
            file.write(f"{what}\n")

    def poll_in_turn(self: Any, *wishes: float) -> list[float]:
        votes.append(self)
        if environ["RANK"] == "1" and len(votes) <= TRACED_STEPS:
            wait_until(
                lambda: turns.exists() and len(turns.read_text().splitlines()) >= len(votes),
                f"the first rank's turn {len(votes)}",
            )
        return poll(self, *wishes)

    def noted_settle(self: Any) -> None:
        take_turn("waits")
        settle(self)

    def noted_step(self: Any) -> None:
        if not votes[-1]._pending[0].is_completed():
            take_turn("ends a step beside a vote")
        step(self)

    Agreement.poll, StopDecision.settle, StepProfiler.step = poll_in_turn, noted_settle, noted_step
    rank_main(argv, environ, output)


def test_no_exchange_is_under_way_as_a_trace_is_closed(make_run: MakeRun) -> None:
    run = make_run("run", max_steps=3, accumulation_steps=3, profile=2)
    assert run.finish(run.start(2, target=profiled_rank)) == [0, 0]
    # No step is watched after these.
    assert (run.folder / "turns").read_text().splitlines() == ["waits"] * TRACED_STEPS


def test_a_profile_of_a_real_run(make_run: MakeRun) -> None:
    run = make_run("run", max_steps=4).complete(profile=2)
    summary = (run.save_dir / "profile" / "summary.txt").read_text()
    assert "profile of 2 micro-steps" in summary
    assert "loop: compute" in summary
    assert (run.save_dir / "profile" / "trace.json.gz").stat().st_size > 1000


class TestFromWeight:
    def test_starts_from_a_weight_file(self, make_run: MakeRun) -> None:
        first = make_run("first", epochs=4, accumulation_steps=1).complete()
        path = first.save_dir / "pretrain_32.pth"
        second = make_run("second", from_weight=path, max_steps=1).complete()
        assert points(second)[0]["loss"] < points(first)[0]["loss"] - 1
        assert f"weights from {path}" in second.output

    @pytest.mark.parametrize("use_moe", [0, 1])
    def test_starts_from_a_hugging_face_folder(
        self, make_run: MakeRun, tmp_path: Path, use_moe: int
    ) -> None:
        from minimind.cli import main

        suffix = "_moe" if use_moe else ""
        first = make_run("first", use_moe=use_moe, max_steps=4).complete()
        folder = tmp_path / "exported"
        weight = str(first.checkpoint_dir / f"pretrain_32{suffix}.pt")
        words = ["export", "--weight", weight, "--format", "hf", "--out", str(folder)]
        words += ["--tokenizer_path", str(first.flags["tokenizer_path"])]
        assert main(words) == 0

        from_file = make_run("file", use_moe=use_moe, from_weight=weight, max_steps=1).complete()
        from_folder = make_run("hf", use_moe=use_moe, from_weight=folder, max_steps=1).complete()
        assert f"weights from {folder}" in from_folder.output
        assert from_file.losses() == from_folder.losses()

    def test_a_name_means_a_weight_in_save_dir(self, make_run: MakeRun) -> None:
        run = make_run("run", max_steps=2).complete()
        run.complete(from_weight="pretrain", save_weight="again", max_steps=1)
        assert "weights from" in run.output
        assert (run.save_dir / "again_32.pth").exists()

    def test_another_shape_names_the_tensors(self, make_run: MakeRun) -> None:
        first = make_run("first", max_steps=1).complete()
        path = first.save_dir / "pretrain_32.pth"
        absent = first.folder / "absent.jsonl"
        second = make_run("second", from_weight=path, num_hidden_layers=3, data_path=absent)
        assert second.finish(second.start()) == [2]
        assert "model.layers.2." in second.output

    def test_weights_know_their_tokenizer(self, make_run: MakeRun, tmp_path: Path) -> None:
        first = make_run("first", max_steps=1).complete()
        path = first.save_dir / "pretrain_32.pth"
        tokenizer = load_tokenizer(str(first.flags["tokenizer_path"]))
        said = replace(Origin.of_tokenizer(tokenizer), step=1)
        assert read_weights(path).origin == said
        assert read_weights(first.checkpoint_dir / "pretrain_32.pt").origin == said

        folder = tmp_path / "bare"
        folder.mkdir()
        shutil.copy(Path(first.flags["tokenizer_path"]) / "tokenizer.json", folder)
        second = make_run("second", from_weight=path, max_steps=1, tokenizer_path=folder)
        assert second.finish(second.start()) == [2]
        assert "names no token that begins a document" in second.output
        assert "another tokenizer" in second.output
        assert "the begin token is none, not" in second.output
        second.complete(bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token)
        assert read_weights(second.save_dir / "pretrain_32.pth").origin == said

    def test_a_missing_weight_is_missed_before_the_text_is_looked_for(
        self, make_run: MakeRun, tmp_path: Path
    ) -> None:
        run = make_run("run", from_weight="nothing", data_path=tmp_path / "absent.jsonl")
        assert run.finish(run.start()) == [2]
        assert "nothing_32.pth" in run.output


def test_max_minutes_ends_in_good_order(make_run: MakeRun) -> None:
    run = make_run("run", epochs=4000, max_minutes=0.03).complete()
    assert "time is up" in run.output
    assert "go on with the same command and --from_resume 1" in run.output
    assert run.state()["global_step"] > 0


AT_ONCE = 1e-9
"""Minutes that are over when the first optimiser step ends."""


@pytest.mark.parametrize("world_size", [1, 2])
def test_time_that_is_up_ends_as_an_epoch_does_and_the_resume_is_exact(
    make_run: MakeRun, tmp_path: Path, world_size: int
) -> None:
    held_out = write_corpus(tmp_path / "held_out.jsonl", 5, seed=9)
    flags = {"max_steps": 5, "log_interval": 6, "eval_data_path": held_out, "sample_interval": 100}
    flags["batch_size"] = 2 // world_size
    whole = make_run("whole", **flags).complete(world_size)
    run = make_run("run", **flags)
    for _ in range(3):
        run.complete(world_size, max_minutes=AT_ONCE)

    # At 6 a line was due anyway, and is not written twice.
    assert [p["step"] for p in points(run)] == [3, 6, 9]
    assert [p["step"] for p in scores(run)] == [3, 6, 9]
    samples = [json.loads(x)["step"] for x in (run.save_dir / "samples.jsonl").open()]
    assert list(dict.fromkeys(samples)) == [3, 6, 9]
    assert len(samples) == 3 * samples.count(3)
    rates = [p["learning_rate"] for p in points(run)]
    assert rates == sorted(set(rates), reverse=True)
    assert rates[0] == 1e-2

    run.complete(world_size)
    a, b = whole.state(), run.state()
    assert [d for key in STATE_KEYS for d in differences(a[key], b[key], key)] == []
    assert whole.losses().items() <= run.losses().items()
    assert scores(run)[-1]["eval_loss"] == scores(whole)[-1]["eval_loss"]


def rank_whose_time_is_up_between_updates(argv: list[str], *rank: Any) -> None:
    """Its time is up in the first micro-step of the third update, which is not waited for."""
    stop.STOP_PATIENCE_SECONDS = -1.0

    def end_the_time(trainer: Trainer) -> None:
        if trainer.progress.global_step == 2:
            trainer.stop.deadline = 0.0

    rank_main(argv, *rank, on_micro_batch=end_the_time)


@pytest.mark.parametrize(("log_interval", "logged"), [(4, [4, 6]), (6, [6]), (7, [7])])
def test_time_that_is_up_between_updates_is_told_as_of_the_last_one(
    make_run: MakeRun, tmp_path: Path, log_interval: int, logged: list[int]
) -> None:
    held_out = write_corpus(tmp_path / "held_out.jsonl", 5, seed=9)
    flags = {"max_steps": 4, "log_interval": log_interval, "eval_data_path": held_out}
    whole = make_run("whole", **flags).complete()
    run = make_run("run", **flags)
    assert run.finish(run.start(target=rank_whose_time_is_up_between_updates)) == [0], run.output
    assert (run.state()["step"], run.state()["global_step"]) == (6, 2)
    assert [p["step"] for p in points(run)] == logged
    assert [p["step"] for p in scores(run)] == [6]
    run.complete()
    a, b = whole.state(), run.state()
    assert [d for key in STATE_KEYS for d in differences(a[key], b[key], key)] == []
    assert whole.losses().items() <= run.losses().items()


def rank_interrupted_while_scoring(argv: list[str], environ: dict[str, str], output: str) -> None:
    """The last rank gets a signal with its second batch of held-out text; it counts them all."""
    from minimind.training import evaluate

    trainers: list[Trainer] = []
    calls: list[None] = []
    original = evaluate.score_batch

    def score_batch(*batch: Any) -> torch.Tensor:
        calls.append(None)
        Path(f"{output}.batches").write_text(str(len(calls)))
        mine, n_ranks = int(environ.get("RANK", 0)), int(environ.get("WORLD_SIZE", 1))
        if len(calls) == 2 and mine == n_ranks - 1:
            number = signal.Signals[environ["SIGNAL"]]
            if number == signal.SIGKILL:
                for trainer in trainers:
                    trainer.saver.checkpointer.drain()
            os.kill(os.getpid(), number)
        return original(*batch)

    evaluate.score_batch = score_batch
    rank_main(argv, environ, output, on_micro_batch=lambda trainer: trainers.append(trainer))


@pytest.mark.parametrize(
    ("name", "world_size", "interval", "saved"),
    [("SIGTERM", 1, 4, 3), ("SIGTERM", 2, 6, 6), ("SIGUSR1", 2, 1000, 12), ("SIGKILL", 1, 6, 6)],
)
def test_a_stop_does_not_wait_for_held_out_text_and_the_resumed_run_scores_it(
    make_run: MakeRun, tmp_path: Path, name: str, world_size: int, interval: int, saved: int
) -> None:
    """In an open window, at a boundary, at the very end; and a kill finds the save made before."""
    held_out = write_corpus(tmp_path / "held_out.jsonl", 60, seed=9)
    flags = {"max_steps": 4, "log_interval": 3, "save_interval": 6}
    flags |= {"eval_data_path": held_out, "eval_interval": interval, "batch_size": 1}
    whole = make_run("whole", **flags).complete(world_size)
    run = make_run("run", **flags)
    run.environ["SIGNAL"] = name
    codes = run.finish(run.start(world_size, target=rank_interrupted_while_scoring))
    assert codes == [-signal.SIGKILL if name == "SIGKILL" else 75] * world_size, run.output
    assert run.state()["step"] == saved
    assert scores(run) == []
    # The ranks know of it a batch later.
    most = [int(path.read_text()) for path in run.folder.glob("output.*.batches")]
    assert len(most) == world_size
    assert max(most) <= 4

    run.complete(world_size)
    assert_same_run(whole, run)
    assert told(scores(run)) == told(scores(whole))
    assert told(points(run), "loss") == told(points(whole), "loss")


def told(records: list[dict[str, Any]], *names: str) -> list[list[Any]]:
    """What records say, and of which step, without what depends on the clock."""
    names = names or ("eval_loss", "bits_per_byte")
    return [[r[name] for name in ("epoch", "step", "global_step", *names)] for r in records]


def rank_interrupted_while_sampling(argv: list[str], *rank: Any) -> None:
    """Rank 0 gets a signal with the second token of its first sample."""
    from minimind.telemetry import samples

    original = samples.SampleWriter._continue

    def interrupted(self: Any, goes_on: Callable[[], bool]) -> list[str]:
        asked = itertools.count(1)

        def ask() -> bool:
            if next(asked) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return goes_on()

        return original(self, ask)

    samples.SampleWriter._continue = interrupted  # type: ignore[method-assign]
    rank_main(argv, *rank)


@pytest.mark.parametrize(("world_size", "interval", "saved"), [(1, 6, 6), (2, 4, 3)])
def test_a_stop_does_not_wait_for_samples_and_the_resumed_run_writes_them(
    make_run: MakeRun, world_size: int, interval: int, saved: int
) -> None:
    flags = {"max_steps": 3, "log_interval": 3, "sample_interval": interval, "batch_size": 1}
    whole = make_run("whole", **flags).complete(world_size)
    run = make_run("run", **flags)
    codes = run.finish(run.start(world_size, target=rank_interrupted_while_sampling))
    assert codes == [75] * world_size, run.output
    assert run.state()["step"] == saved
    run.complete(world_size)
    assert_same_run(whole, run)
    texts = [read_metrics(r.save_dir / "samples.jsonl") for r in (whole, run)]
    assert len(texts[0]) > 0
    assert told(texts[0], "prompt", "text") == told(texts[1], "prompt", "text")


def test_a_stop_cuts_the_last_evaluation_of_a_run_whose_time_is_up_short(
    make_run: MakeRun, tmp_path: Path
) -> None:
    held_out = write_corpus(tmp_path / "held_out.jsonl", 60, seed=9)
    run = make_run("run", max_steps=4, eval_data_path=held_out, max_minutes=AT_ONCE, batch_size=1)
    run.environ["SIGNAL"] = "SIGTERM"
    codes = run.finish(run.start(target=rank_interrupted_while_scoring))
    assert codes == [75], run.output
    assert run.state()["step"] == 3
    assert scores(run) == []


def test_library_call_is_the_same_run(
    make_run: MakeRun, tiny_flags: dict[str, Any], tmp_path: Path
) -> None:
    whole = make_run("process", max_steps=4).complete()
    torch.set_num_threads(1)
    flags = {k: str(v) if isinstance(v, Path) else v for k, v in tiny_flags.items()}
    begun: list[int] = []
    result = minimind.pretrain(
        TrainConfig(
            **{**flags, "max_steps": 4},
            save_dir=str(tmp_path / "library"),
            checkpoint_dir=str(tmp_path / "library"),
        ),
        on_micro_batch=lambda trainer: begun.append(trainer.progress.global_step),
    )
    assert begun == [step for step in range(4) for _ in range(3)]
    assert result.global_step == 4
    assert not result.stopped
    state = torch.load(result.checkpoint_file, weights_only=True)
    assert differences(whole.state()["model"], state["model"]) == []


def test_rows_are_on_the_disk_before_a_checkpoint_that_has_them(
    tiny_flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    save = Checkpointer.save

    def note_save(store: Checkpointer, *args: Any, **names: Any) -> float:
        calls.append("save")
        return save(store, *args, **names)

    monkeypatch.setattr(RowRecord, "sync", lambda record: calls.append("sync"))
    monkeypatch.setattr(Checkpointer, "save", note_save)
    flags = {k: str(v) if isinstance(v, Path) else v for k, v in tiny_flags.items()}
    flags |= {"max_steps": 4, "save_interval": 3, "record_rows": True}
    minimind.pretrain(
        TrainConfig(**flags, save_dir=str(tmp_path / "out"), checkpoint_dir=str(tmp_path / "out"))
    )
    assert calls.count("save") > 1
    assert all(before == "sync" for before, call in itertools.pairwise(calls) if call == "save")


def test_effective_configuration_repeats_the_run(make_run: MakeRun) -> None:
    run = make_run("run", max_steps=3).complete()
    again = Run(run.folder.parent / "again", {"config": run.save_dir / "config.toml"})
    again.complete(from_resume="0")
    assert differences(run.state()["model"], again.state()["model"]) == []


def test_events_are_recorded(make_run: MakeRun, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    run = make_run("run")
    run.environ["MINIMIND_EVENTS"] = str(events)
    run.interrupt(signal.SIGTERM, 8)
    run.complete()
    found = [json.loads(line) for line in events.read_text().splitlines()]
    names = [e["event"] for e in found]
    assert names[0] == "started"
    assert names[-1] == "finished"
    for name in ("checkpointed", "preempted", "resumed"):
        assert name in names
    preempted = next(e for e in found if e["event"] == "preempted")
    resumed = next(e for e in found if e["event"] == "resumed")
    assert preempted["signal"] == "SIGTERM"
    assert preempted["step"] == resumed["step"]


def gated_rank_that_tells_at_once(argv: list[str], *rank: Any) -> None:
    """The body of a rank that makes as many micro-steps as the file ``gate`` has bytes."""
    preparation.TELL_SECONDS = 0.0
    gate = Path(argv[argv.index("--save_dir") + 1]).with_name("gate")
    numbers = itertools.count(1)

    def wait(trainer: Trainer) -> None:
        number = next(numbers)
        wait_until(lambda: gate.exists() and gate.stat().st_size >= number, "the gate")

    rank_main(argv, *rank, on_micro_batch=wait)


def test_a_run_that_logs_nothing_is_seen_to_get_on(make_run: MakeRun, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    cold = tmp_path / "cache"
    run = make_run("run", log_interval=10**6, save_interval=10**6, cache_dir=cold)
    run.environ["MINIMIND_EVENTS"] = str(events)
    processes = run.start(target=gated_rank_that_tells_at_once)

    def told() -> list[str]:
        text = events.read_text() if events.exists() else ""
        return [json.loads(line)["event"] for line in text.splitlines()]

    wait_until(lambda: "started" in told(), "training")
    assert set(told()) == {"preparing", "started"}
    before = events.read_bytes()
    os.utime(events, (1, 1))
    (run.folder / "gate").write_bytes(b".")
    wait_until(lambda: events.stat().st_mtime != 1, "a sign of life after a micro-step")
    assert events.read_bytes() == before
    processes[0].kill()
    run.finish(processes)


def test_the_traceback_is_in_the_log_and_one_line_on_the_console(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("run", data_path=tmp_path / "missing.jsonl")
    assert run.finish(run.start()) == [2]
    assert "Traceback" not in run.output
    assert len([x for x in run.output.splitlines() if x.strip()]) == 1
    assert "Traceback" in (run.save_dir / "train.log").read_text()


@pytest.mark.skipif(os.cpu_count() == 1, reason="one core bounds the workers anyway")
def test_loader_workers_give_the_same_run(make_run: MakeRun) -> None:
    alone = make_run("alone", max_steps=6).complete()
    workers = make_run("workers", max_steps=6, num_workers=2).complete()
    assert differences(alone.state()["model"], workers.state()["model"]) == []
