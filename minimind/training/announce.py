"""What a run says of itself when it begins and when it ends."""

from __future__ import annotations

import logging

from minimind.charts.loss_curve import plot_loss_curve
from minimind.config import RECIPES, TrainConfig
from minimind.rundir.events import Kind
from minimind.system.signals import StopFlag
from minimind.system.timeout import run_with_timeout
from minimind.telemetry.environment import count_parameters
from minimind.telemetry.startup import StartupClock
from minimind.training.result import RunResult
from minimind.training.stop import Outcome
from minimind.training.trainer import Trainer

PICTURE_SECONDS_AFTER_STOP = 5.0
"""How long a stop waits for the loss curve, which the end of the run draws anyway."""

log = logging.getLogger(__name__)


def announce_start(trainer: Trainer, startup: StartupClock, *, resumed: bool) -> None:
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
    if trainer.config.recipe != "minimind":
        log.info("%s", recipe_line(trainer.config))
    step = progress.global_step
    seconds = {name: round(value, 3) for name, value in startup.seconds.items()}
    trainer.events.append(Kind.STARTED, step=step, world_size=world.world_size, seconds=seconds)
    log.info("ready %.1f s after the process started (%s)", startup.total, startup)
    if resumed:
        log.info("resumed at optimiser step %d, epoch %d", step, progress.epoch + 1)
        trainer.events.append(Kind.RESUMED, step=step)
        trainer.reporter.mark_resumed(progress)
    log.info(
        "MFU is measured against %.3g FLOP/s per rank (%s)",
        trainer.reporter.peak_flops,
        trainer.reporter.peak_source,
    )


def recipe_line(config: TrainConfig) -> str:
    """What a recipe has set, and which of its flags were set to something else.

    >>> recipe_line(TrainConfig(recipe="fast", learning_rate=0.01))
    '--recipe fast: --optimizer muon --warmup_ratio 0.05; but --learning_rate 0.01 instead of 0.005'
    """
    others = config.beside_recipe
    kept = [
        f"--{name} {value}" for name, value in RECIPES[config.recipe].items() if name not in others
    ]
    line = f"--recipe {config.recipe}: {' '.join(kept) or 'sets nothing'}"
    if others:
        line += "; but " + ", ".join(
            f"--{name} {is_now} instead of {by_recipe}"
            for name, (is_now, by_recipe) in others.items()
        )
    return line


def announce_end(result: RunResult, outcome: Outcome, stop_flag: StopFlag) -> None:
    """Draw the loss curve and say what is where."""
    patience = PICTURE_SECONDS_AFTER_STOP if outcome is Outcome.STOPPED else None
    try:
        run_with_timeout(lambda: plot_loss_curve(result.metrics_file, result.loss_curve), patience)
    except TimeoutError:
        log.warning("no loss curve drawn: it took longer than %.0f s after a stop", patience)
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
    if outcome is not Outcome.DONE:
        log.info("go on with the same command and --from_resume 1")
