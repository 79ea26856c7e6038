"""One pretraining run, top to bottom: the twelve steps of the design.

Step 1, the flags, is behind us when :func:`run` is called.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from minimind.charts.loss_curve import plot_loss_curve
from minimind.checkpoint.resume import (
    check_config,
    check_data,
)
from minimind.checkpoint.run_lock import FolderLock
from minimind.checkpoint.state import Progress, TrainState
from minimind.checkpoint.store import Checkpointer
from minimind.config import TrainConfig, write_config_file
from minimind.data.mixture import Plan, open_plan
from minimind.data.token_store import TokenStore
from minimind.distributed.ddp import wrap
from minimind.distributed.world import World, init_distributed_mode
from minimind.errors import ConfigError
from minimind.rundir.events import EventLog, Kind
from minimind.rundir.layout import OutputPaths, lock_of
from minimind.system.jsonl import JsonLog
from minimind.system.signals import StopFlag, StopRequested
from minimind.telemetry.console import ProgressBar, logging_to_console, logging_to_file
from minimind.telemetry.environment import write_environment
from minimind.telemetry.monitor import Monitor
from minimind.telemetry.preparation import Preparation
from minimind.telemetry.reporter import Reporter
from minimind.telemetry.samples import SampleWriter, sample_prompts
from minimind.telemetry.startup import StartupClock
from minimind.telemetry.trackers.swanlab import start_tracker
from minimind.telemetry.trackers.tracker import Tracker, check_packages
from minimind.training.allocator import keep_freed_memory
from minimind.training.audit import RowRecord
from minimind.training.batch_size import keep_batch_size, settle_batch_size
from minimind.training.build_model import init_model, planned_flops, warm_up
from minimind.training.compile_cache import cost_of_compiling, keep_compiled_code
from minimind.training.evaluate import evaluate
from minimind.training.execution import check_machine, choose_dtype, choose_execution
from minimind.training.failure import explain
from minimind.training.flops import flops_per_token, peak_flops
from minimind.training.optimizer import Optimizers
from minimind.training.precision import DTYPES, autocast_context, make_scaler
from minimind.training.profiler import StepProfiler, name_compiled_kernels
from minimind.training.records import prepare_records
from minimind.training.result import RunResult
from minimind.training.saving import Saver, find_checkpoint
from minimind.training.schedule import plan_schedule
from minimind.training.seed import setup_seed
from minimind.training.step import TrainStep
from minimind.training.stop import Outcome, StopDecision
from minimind.training.trainer import Trainer

log = logging.getLogger(__name__)


def run(
    config: TrainConfig,
    stop_flag: StopFlag,
    on_micro_batch: Callable[[Trainer], None] | None = None,
) -> RunResult:
    """Train until the end, or until asked to stop.

    Args:
        on_micro_batch: called before each micro-batch, on every rank; what it raises ends the run.

    Raises:
        MiniMindError: what the user can change, or why the run cannot go on.
    """
    startup = StartupClock()
    startup.lap("imports")
    with init_distributed_mode(config.device) as world, contextlib.ExitStack() as stack:
        startup.lap("ranks")
        stack.enter_context(logging_to_console(config.log_level, world.rank))
        events = EventLog.from_environment() if world.is_main else EventLog(None)
        try:
            return _run(config, stop_flag, on_micro_batch, world, events, startup, stack)
        except Exception as error:
            log.debug("the run failed", exc_info=True)
            if world.rank:
                log.warning("rank %d failed", world.rank, exc_info=True)
            failure = explain(error, config, world.device)
            events.append(Kind.FAILED, error=f"{type(failure).__name__}: {failure}")
            if failure is error:
                raise
            raise failure from error


def _run(
    config: TrainConfig,
    stop_flag: StopFlag,
    on_micro_batch: Callable[[Trainer], None] | None,
    world: World,
    events: EventLog,
    startup: StartupClock,
    stack: contextlib.ExitStack,
) -> RunResult:
    # 2. The ranks have met; seed the generators, alike on all ranks, so that they build
    # the same model.
    setup_seed(config.seed, deterministic=config.deterministic)
    if world.device.type == "cpu":
        keep_freed_memory()

    # 3. Folders, log, and the locks: one run at a time may use a checkpoint, and a save_dir.
    world.on_main(partial(check_packages, config))
    prompts = world.on_main(partial(sample_prompts, config)) if config.sample_interval else []
    out = OutputPaths(config.save_dir)
    world.on_main(partial(make_folders, config))
    stack.enter_context(logging_to_file(out.folder, world.rank))
    lock = FolderLock(lock_of(config.checkpoint_file))
    for held in (lock, FolderLock(out.records_lock, flag="save_dir")):
        world.on_main(held.acquire)
        if world.is_main:
            stack.callback(held.release)

    # 4. Is there a checkpoint to go on from?
    checkpointer = Checkpointer(
        config.checkpoint_file,
        config.weight_file,
        keep=config.keep_checkpoints,
        may_write=lock.ensure_mine,
    )
    stack.callback(checkpointer.drain)
    world.on_main(checkpointer.remove_leftovers)
    saved = find_checkpoint(config, world, checkpointer)
    if saved is not None:
        config = keep_batch_size(config, saved)
        check_config(config, saved.config)
    startup.lap("checkpoint")

    # 5. Mixed precision.
    check_machine(config, world.device)
    dtype = choose_dtype(config, world.device)
    autocast = autocast_context(world.device, dtype)
    scaler = make_scaler(world.device, dtype)

    # 6. Data, rows, model.
    store, plan = open_rows(config, world, config.data_path, config.pack)
    if saved is not None:
        check_data(plan.fingerprint, saved.data)
    startup.lap("data")
    model = init_model(config, store, world.device, saved)
    config = settle_batch_size(config, model, plan, world, autocast)
    progress = saved.progress if saved else Progress()
    schedule = plan_schedule(config, world.world_size, plan.n_rows, progress, saved)
    evaluator = None
    if config.eval_data_path:
        held_out, held_out_plan = open_rows(config, world, config.eval_data_path, "bestfit")
        evaluator = partial(
            evaluate,
            model,
            held_out_plan,
            held_out,
            batch_size=config.batch_size,
            world=world,
            autocast=autocast,
            each_batch=events.beat,
        )

    # 7. Experiment tracking, under the id that the run had before.
    tracker = start_tracker(
        config,
        saved.wandb_id if saved else None,
        config.to_dict(),
        world.is_main,
        done=progress.global_step,
    )
    stack.push(partial(finish_tracking, tracker))

    # 8. Optimiser.
    optimizers = Optimizers(model, config)

    # 9. The checkpoint's state into all of them.
    execution = choose_execution(
        config,
        world,
        dtype=dtype,
        planned_flops=planned_flops(config, model.config, plan, schedule, world.world_size),
        saved=saved,
    )
    step = TrainStep(config, world, model, optimizers, scaler, autocast)
    saver = Saver(
        config=config,
        world=world,
        step=step,
        schedule=schedule,
        progress=progress,
        execution=execution,
        data=plan.fingerprint,
        tracker=tracker,
        checkpointer=checkpointer,
        events=events,
    )
    if saved is not None:
        saver.restore_model(saved)
    startup.lap("model")

    # 10. Compile, wrap for the exchange of gradients, and warm both up.
    model.set_attn_implementation(execution.attention)
    if execution.compile:
        keep_compiled_code(config.cache_dir, world.device)
        if config.profile:
            name_compiled_kernels()
        log.info("compiling: %s; --compile off does without", cost_of_compiling())
        model.compile(dynamic=False)
    step.replica = wrap(model, world)
    if execution.compile or world.is_distributed:
        warm_up(step.replica, plan, config, world, autocast)
    startup.lap("compile")

    # 11. Train.
    if saved is None:
        world.on_main(checkpointer.set_aside)
    world.on_main(partial(prepare_records, config, progress.global_step if saved else None))
    row_record = RowRecord(out.rows(world.rank) if config.record_rows else None)
    stack.callback(row_record.close)
    metrics = JsonLog(out.metrics) if world.is_main else None
    if metrics is not None:
        stack.callback(metrics.close)
        write_config_file(config, out.config)
        environment = out.environment
        write_environment(environment, world, parameters=count_parameters(model))
    samples = None
    if prompts and world.is_main:
        samples = SampleWriter(config, prompts, model, tracker)
        stack.callback(samples.close)
    profiler = None
    if config.profile and world.is_main:
        profiler = StepProfiler(config.profile, out.profile, world.device)
        stack.callback(profiler.close)
    peak, peak_source = peak_flops(world.device, DTYPES[dtype])
    bar = stack.enter_context(
        ProgressBar(schedule.total_steps, progress.global_step, visible=world.is_main)
    )
    reporter = Reporter(
        config=config,
        total_steps=schedule.total_steps,
        world_size=world.world_size,
        metrics=metrics,
        tracker=tracker,
        monitor=Monitor(world.device),
        bar=bar,
        evaluate=evaluator,
        samples=samples,
        flops_per_token=flops_per_token(model.config, config.max_seq_len),
        peak_flops=peak,
    )
    trainer = Trainer(
        config=config,
        world=world,
        plan=plan,
        schedule=schedule,
        progress=progress,
        step=step,
        saver=saver,
        stop=StopDecision(config, world, stop_flag),
        reporter=reporter,
        events=events,
        row_record=row_record,
        profiler=profiler,
        fixed_shape=execution.compile,
        on_micro_batch=on_micro_batch,
    )
    announce(trainer, startup, saved)
    log.info("MFU is measured against %.3g FLOP/s per rank (%s)", peak, peak_source)
    # Last of all, since what came before may have drawn random numbers.
    saver.restore_rank(saved)
    # Its tensors are in model and optimiser now; the file's copy need not stay in memory.
    del saved
    stop_flag.raising = False
    meet_before_training(world, stop_flag)
    outcome = trainer.train()

    # 12. Save, say what is where, and part; the context managers above close the rest.
    saver.save_and_wait()
    stopped = outcome is Outcome.STOPPED
    result = RunResult.of(config, stopped=stopped, global_step=progress.global_step)
    if stopped:
        events.append(Kind.PREEMPTED, step=result.global_step, signal=stop_flag.signal_name)
    else:
        events.append(Kind.FINISHED, step=result.global_step)
    if world.is_main:
        farewell(result, outcome, stop_flag)
    # No rank ends before the save is durable: a launcher may kill the others when one exits.
    world.barrier()
    return result


def meet_before_training(world: World, stop_flag: StopFlag) -> None:
    """Let no rank train before every rank only takes note of a stop.

    Raises:
        StopRequested: this rank was asked to stop, and one that was still preparing has gone.
    """
    try:
        world.barrier()
    except RuntimeError as error:
        if stop_flag.signal_name is None:
            raise
        raise StopRequested(stop_flag.signal_name) from error


def finish_tracking(tracker: Tracker, kind: Any, error: BaseException | None, trace: Any) -> None:
    """Close the experiment, as crashed when an exception ends the run."""
    tracker.finish(error=f"{type(error).__name__}: {error}" if error else None)


def make_folders(config: TrainConfig) -> None:
    """Create the output folders.

    Raises:
        ConfigError: one of them cannot be made or written.
    """
    for flag in ("save_dir", "checkpoint_dir"):
        folder = Path(getattr(config, flag))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # One name, so that what a killed start leaves is gone after the next.
            probe = folder / ".probe"
            try:
                # Not empty: on a full disk a file can often still be made.
                probe.write_bytes(bytes(1 << 12))
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"--{flag} {folder} cannot be written: {error.strerror}") from None


def open_rows(
    config: TrainConfig, world: World, paths: Sequence[str], pack: Literal["bestfit", "none"]
) -> tuple[TokenStore, Plan]:
    """Open a corpus on every rank; the first rank of each node tokenises it if need be."""
    # Of every node: rank 0's may be done long before another's.
    report = Preparation(EventLog.from_environment())

    def work() -> tuple[TokenStore, Plan]:
        plan = open_plan(
            paths,
            config.tokenizer_path,
            max_seq_len=config.max_seq_len,
            pack=pack,
            text_field=config.text_field,
            cache_dir=config.cache_dir,
            max_bad_rows=config.max_bad_rows,
            progress=world.is_main,
            report=report,
        )
        return plan.store, plan

    return world.local_main_first(work)


def announce(trainer: Trainer, startup: StartupClock, saved: TrainState | None) -> None:
    """Say what is about to be trained, and where it goes on."""
    world, plan, progress = trainer.world, trainer.plan, trainer.progress
    log.info(
        "%.2fM parameters, %d ranks on %s in %s; %d rows of %d tokens (%.1f%% text); "
        "%d optimiser steps",
        count_parameters(trainer.step.model) / 1e6,
        world.world_size,
        world.device.type,
        trainer.saver.execution.dtype,
        plan.n_rows,
        plan.max_seq_len,
        100 * plan.fill,
        trainer.schedule.total_steps,
    )
    step = progress.global_step
    seconds = {name: round(value, 3) for name, value in startup.seconds.items()}
    trainer.events.append(Kind.STARTED, step=step, world_size=world.world_size, seconds=seconds)
    log.info("ready %.1f s after the process started (%s)", startup.total, startup)
    if saved is not None:
        log.info("resumed at optimiser step %d, epoch %d", step, progress.epoch + 1)
        trainer.events.append(Kind.RESUMED, step=step)
        trainer.reporter.mark_resumed(progress)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def farewell(result: RunResult, outcome: Outcome, stop_flag: StopFlag) -> None:
    """Draw the loss curve and say what is where."""
    try:
        plot_loss_curve(result.metrics_file, result.loss_curve)
    except Exception as error:
        # A picture is no reason to lose a run's exit code.
        log.warning("no loss curve drawn: %s", error, exc_info=True)
    word = {
        Outcome.DONE: "done",
        Outcome.TIME_IS_UP: "time is up (--max_minutes)",
        Outcome.STOPPED: f"stopped by {stop_flag.signal_name or 'another rank'}",
    }[outcome]
    log.info("%s at optimiser step %d", word, result.global_step)
    log.info("  weights:    %s", result.weight_file)
    log.info("  checkpoint: %s", result.checkpoint_file)
    log.info("  metrics:    %s", result.metrics_file)
    log.info("  loss curve: %s", result.loss_curve)
    if outcome is Outcome.STOPPED:
        log.info("go on with the same command and --from_resume 1")
