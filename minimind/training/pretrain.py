"""One pretraining run, top to bottom: the twelve steps of the design.

Step 1, the flags, is behind us when :func:`run` is called.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Literal

from minimind.checkpoint.resume import check_config, check_data
from minimind.checkpoint.state import Progress
from minimind.config import TrainConfig
from minimind.data.mixture import Plan, open_plan
from minimind.data.tokenizer import special_tokens
from minimind.distributed.alike import Comparison
from minimind.distributed.world import World, init_distributed_mode
from minimind.rundir.events import EventLog, Kind
from minimind.rundir.layout import OutputPaths
from minimind.system.signals import StopFlag
from minimind.telemetry.console import logging_to_console
from minimind.telemetry.preparation import Preparation
from minimind.telemetry.reporter import Reporter
from minimind.telemetry.samples import sample_prompts
from minimind.telemetry.startup import StartupClock
from minimind.telemetry.trackers.tracker import check_packages
from minimind.training.allocator import keep_freed_memory
from minimind.training.announce import announce_end, announce_start
from minimind.training.audit import RowRecord
from minimind.training.batch_size import keep_batch_size, settle_batch_size
from minimind.training.build_model import check_fit, init_model, make_replica, planned_flops
from minimind.training.evaluate import evaluate
from minimind.training.execution import (
    check_machine,
    choose_dtype,
    choose_execution,
    warn_of_idle_accelerator,
)
from minimind.training.failure import explain
from minimind.training.folders import claim_folders
from minimind.training.inputs import (
    check_program,
    open_tokenizer,
    read_first_weights,
    reading_of_rows,
)
from minimind.training.optimizer import Optimizers
from minimind.training.precision import autocast_context, make_scaler
from minimind.training.preflight import announce_plan, refuse_what_cannot_fit
from minimind.training.profiler import StepProfiler
from minimind.training.records import prepare_records
from minimind.training.restart import (
    keep_others_weights,
    record_start,
    refuse_silent_restart,
)
from minimind.training.result import RunResult
from minimind.training.saving import Saver, find_checkpoint, open_checkpointer
from minimind.training.schedule import plan_schedule
from minimind.training.seed import setup_seed
from minimind.training.step import TrainStep
from minimind.training.stop import Outcome, StopDecision, meet_before_training
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
    check_program(config, world)
    setup_seed(config.seed, deterministic=config.deterministic)
    if world.device.type == "cpu":
        keep_freed_memory()

    warn_of_idle_accelerator(config, world)

    # 3. Folders, log and locks.
    world.on_main(partial(refuse_silent_restart, config))
    with world.busy("importing packages"):
        world.on_main(partial(check_packages, config))
    prompts = world.on_main(partial(sample_prompts, config)) if config.sample_interval else []
    lock = claim_folders(config, world, stack)

    # 4. Is there a checkpoint to go on from?
    checkpointer = open_checkpointer(config, world, lock)
    stack.callback(checkpointer.drain)
    with world.doing("reading the checkpoint"):
        saved = find_checkpoint(config, world, checkpointer)
    if saved is not None:
        config = keep_batch_size(config, saved)
        check_config(config, saved.config)
    startup.lap("checkpoint")

    # 5. Mixed precision.
    check_machine(config, world.device)
    dtype = choose_dtype(config, world, saved)
    autocast = autocast_context(world.device, dtype)
    scaler = make_scaler(world.device, dtype)

    # 6. First weights, before the data is tokenised, which may take hours; rows; model.
    with world.busy("reading the first weights"):
        first_weights = read_first_weights(config, world) if saved is None else None
        check_fit(config, first_weights)
        origin = world.on_main(partial(open_tokenizer, config, first_weights))
    world.on_main(partial(refuse_what_cannot_fit, config, world, dtype))
    plan = open_rows(config, world, "data_path", config.pack)
    if saved is not None:
        check_data(plan.fingerprint, saved.data)
    startup.lap("data")
    sizes = plan.n_rows, plan.store.vocab_size
    world.on_main(partial(announce_plan, config, world, *sizes, dtype))
    with world.busy("building the model"):
        model = init_model(config, plan.store, world.device, saved, first_weights)
        del first_weights
        config = settle_batch_size(config, model, plan, world, autocast)
    progress = saved.progress if saved else Progress()
    schedule = plan_schedule(config, world.world_size, plan.n_rows, progress, saved)
    held_out = evaluation = None
    if config.eval_data_path:
        held_out = open_rows(config, world, "eval_data_path", "bestfit")
        evaluation = partial(
            evaluate,
            model,
            held_out,
            held_out.store,
            batch_size=config.batch_size,
            world=world,
            autocast=autocast,
        )

    # 7. Experiment tracking, under the id that the run had before.
    reporter = stack.enter_context(
        Reporter(
            config,
            world,
            model,
            dtype=dtype,
            total_steps=schedule.total_steps,
            progress=progress,
            run_id=saved.wandb_id if saved else None,
            prompts=prompts,
            evaluate=evaluation,
        )
    )

    # 8. Optimiser.
    step = TrainStep(config, world, model, Optimizers(model, config), scaler, autocast)

    # 9. The checkpoint's state into all of them.
    with world.busy("choosing how to compute"):
        execution = choose_execution(
            config,
            world,
            dtype=dtype,
            planned_flops=planned_flops(config, model.config, plan, schedule, world.world_size),
            saved=saved,
        )
    saver = Saver(
        config=config,
        world=world,
        step=step,
        schedule=schedule,
        progress=progress,
        execution=execution,
        data=plan.fingerprint,
        origin=origin,
        tracker=reporter.tracker,
        checkpointer=checkpointer,
        events=events,
    )
    if saved is not None:
        saver.restore_model(saved)
    startup.lap("model")

    # 10. Compile, wrap for the exchange of gradients, and warm both up.
    with world.busy("compiling"):
        step.replica = make_replica(model, plan, config, world, autocast, execution, held_out)
    startup.lap("compile")

    # 11. Train.
    resumed_at = progress.global_step if saved else None
    if saved is not None:
        with world.busy("looking at the weights that are there"):
            world.on_main(partial(keep_others_weights, config, saved))
    # Now: a run that dies right after this is not asked for what it puts aside.
    world.on_main(lambda: record_start(config, checkpointer.found_identity))
    with world.busy("putting aside what was there"):
        if saved is None:
            world.on_main(checkpointer.set_aside)
        world.on_main(partial(prepare_records, config, resumed_at))
    row_record = stack.enter_context(contextlib.closing(RowRecord.open(config, world.rank)))
    profiler = None
    if config.profile and world.is_main:
        profiler = StepProfiler(config.profile, OutputPaths(config.save_dir).profile, world.device)
        stack.callback(profiler.close)
    with world.busy("opening the records"):
        reporter.open()
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
    announce_start(trainer, startup, resumed=saved is not None)
    # Last of all, since what came before may have drawn random numbers.
    saver.restore_rank(saved)
    # Its tensors are in model and optimiser now; the file's copy need not stay in memory.
    del saved
    stop_flag.raising = False
    meet_before_training(world, stop_flag)
    with world.doing("training"):
        outcome = trainer.train()

    # 12. Save, say what is where, and part; the context managers above close the rest.
    row_record.sync()
    with reporter.bar.phase("saving"):
        saver.save_and_wait()
    stopped = outcome is Outcome.STOPPED
    if stopped:
        stop_flag.saved.set()
        reporter.stopping = True
        if profiler is not None:
            profiler.stopping = True
    result = RunResult.of(config, stopped=stopped, global_step=progress.global_step)
    if stopped:
        events.append(Kind.PREEMPTED, step=result.global_step, signal=stop_flag.signal_name)
    else:
        events.append(Kind.FINISHED, step=result.global_step)
    if world.is_main:
        announce_end(result, outcome, stop_flag)
    # No rank ends before the save is durable: a launcher may kill the others when one exits.
    world.barrier()
    return result


def open_rows(
    config: TrainConfig,
    world: World,
    flag: Literal["data_path", "eval_data_path"],
    pack: Literal["bestfit", "none"],
) -> Plan:
    """Open a corpus on every rank; the first rank of each node tokenises it if need be.

    Raises:
        ConfigError, DataError: it cannot be used; on every rank.
        RanksDifferError: a rank finds other text under its name, or another tokenizer.
    """
    paths = getattr(config, flag)
    remedy = f"let --{flag} and --tokenizer_path hold the same on all hosts, then start again"
    comparison = Comparison(world, "text", remedy)
    # Of every node: rank 0's may be done long before another's.
    report = Preparation(EventLog.from_environment())
    while True:
        with world.local_main_first(), world.busy("preparing the text"):
            plan = open_plan(
                paths,
                config.tokenizer_path,
                max_seq_len=config.max_seq_len,
                pack=pack,
                text_field=config.text_field,
                render_chat=config.render_chat,
                cache_dir=config.cache_dir,
                max_bad_rows=config.max_bad_rows,
                progress=world.is_main,
                report=report,
                special=special_tokens(config),
            )
            reading = reading_of_rows(plan, paths, config.tokenizer_path)
        if comparison.holds(reading):
            return plan
