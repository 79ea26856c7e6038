"""A run's curves on a dashboard, which never stand in the way of the run: SwanLab.

Every process of a run writes one folder, a *segment*, under ``SAVE_DIR/swanlog``. Online, it
is uploaded as it grows. What was not uploaded, ``minimind track sync SAVE_DIR`` sends later;
``SAVE_DIR/swanlog/sent.json`` remembers what it need not send again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minimind.config import TrainConfig
from minimind.errors import ConfigError
from minimind.rundir.layout import OutputPaths
from minimind.system.durable import write_text_durably
from minimind.system.timeout import run_with_timeout
from minimind.telemetry.trackers.tracker import NullTracker, Tracker, TrackerGroup

SENT = "sent.json"
FINISH_LIMIT_SECONDS = 15.0
"""How long ``finish`` waits for an upload. SwanLab itself waits for ever when the network is
gone."""

FINISH_LIMIT_SECONDS_AFTER_STOP = 5.0
"""The same in a run that was asked to stop: a preempted job is killed 30 s after its warning."""

log = logging.getLogger(__name__)


class SwanLabTracker(NullTracker):
    """Tracks with a running ``swanlab.Run``."""

    def __init__(self, run: Any) -> None:
        super().__init__(run.id)
        self._run: Any = run
        self._online = run.mode == "online"
        self._segment = Path(run.dir)

    def log(self, metrics: Mapping[str, Any], micro_step: int, update: int) -> None:
        numbers = {
            name: value
            for name, value in metrics.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        self._log(numbers, micro_step)

    def log_text(self, texts: Mapping[str, str], micro_step: int, update: int) -> None:
        import swanlab

        self._log({name: swanlab.Text(text) for name, text in texts.items()}, micro_step)

    def _log(self, values: Mapping[str, Any], micro_step: int) -> None:
        if self._run is None or not values:
            return
        try:
            # Counted in micro-steps: SwanLab keeps one point a step, and drops the others.
            self._run.log(dict(values), step=micro_step)
        except Exception as error:
            log.warning("SwanLab stopped recording: %s", _one_line(error))
            self._run = None

    def finish(self, error: str | None = None, *, stopping: bool = False) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        state = "success" if error is None else "crashed"
        # Offline, everything is still in memory.
        hurry = stopping and self._online
        limit = FINISH_LIMIT_SECONDS_AFTER_STOP if hurry else FINISH_LIMIT_SECONDS
        try:
            run_with_timeout(lambda: run.finish(state=state, error=error), limit)
            if self._online:
                mark_sent(self._segment)
        except TimeoutError:
            log.warning(
                "SwanLab could not upload everything in %.0f s; the rest is in %s: "
                "send it with `minimind track sync %s`",
                limit,
                self._segment,
                self._segment.parent.parent,
            )
        except Exception as failure:
            log.warning("SwanLab did not finish in good order: %s", _one_line(failure))


def check_settings(variables: Sequence[str]) -> None:
    """See that SwanLab takes its settings, before a run that it would not track.

    Args:
        variables: the names of the environment variables that are set for it.

    Raises:
        ConfigError: it does not.
    """
    try:
        from swanlab import Settings
    except Exception as error:
        # A tracker that cannot start is a warning then, and no reason not to train.
        log.debug("SwanLab's settings are not looked at: %s", error)
        return
    try:
        Settings()
    # pydantic's errors, which begin with how many there are and end with an address.
    except Exception as error:
        reason = _one_line(error).partition(" For further information")[0]
        raise ConfigError(
            f"SwanLab refuses its settings ({reason}); set in the environment: "
            f"{', '.join(variables)}; correct these, or run without --tracker swanlab"
        ) from None


def start_tracker(
    config: TrainConfig,
    run_id: str | None,
    run_config: Mapping[str, Any],
    is_main: bool,
    done: int = 0,
) -> Tracker:
    """Start the trackers of ``--tracker`` and ``--use_wandb``, on the main rank; never raises.

    One that cannot be started is named in a warning, and the run goes on without it.

    Args:
        run_id: the id stored in the checkpoint, to go on with that experiment.
        run_config: what the dashboard shows as the experiment's configuration.
        done: optimiser steps that the checkpoint holds.
    """
    if not (config.trackers and is_main):
        return NullTracker(run_id)
    trackers: list[Tracker] = []
    if "swanlab" in config.trackers:
        trackers.append(_try_swanlab(config, run_id, run_config))
    if "tensorboard" in config.trackers:
        trackers.append(_try_tensorboard(config, run_id, done))
    return trackers[0] if len(trackers) == 1 else TrackerGroup(trackers)


def _try_tensorboard(config: TrainConfig, run_id: str | None, done: int) -> Tracker:
    from minimind.telemetry.trackers.tensorboard import TensorBoardTracker

    try:
        return TensorBoardTracker(config.save_dir, run_id, done)
    except Exception as error:
        log.warning("no TensorBoard records: %s", _one_line(error))
        return NullTracker(run_id)


def _try_swanlab(config: TrainConfig, run_id: str | None, run_config: Mapping[str, Any]) -> Tracker:
    """Start SwanLab; never raises.

    Online where SwanLab has an API key (``SWANLAB_API_KEY`` or ``swanlab login``), else
    offline; ``SWANLAB_MODE`` decides where it is set. When online cannot be reached the run is
    recorded offline, and when SwanLab fails altogether it goes on untracked, with one warning.
    """
    try:
        return _start_swanlab(config, run_id, dict(run_config))
    except Exception as error:
        log.warning("the run is not tracked, because SwanLab failed: %s", _one_line(error))
        return NullTracker(run_id)


def _start_swanlab(
    config: TrainConfig, run_id: str | None, run_config: dict[str, Any]
) -> NullTracker:
    import swanlab

    settings = swanlab.Settings()
    has_key = bool(settings.api_key)
    mode = settings.mode if "mode" in settings.model_fields_set else "online"
    if mode == "disabled":
        log.info("SwanLab is disabled by its own settings (SWANLAB_MODE)")
        return NullTracker(run_id)
    sync_hint = f"to upload it later: swanlab login, then minimind track sync {config.save_dir}"
    if mode == "online" and not has_key:
        log.info("SwanLab has no API key: the run is recorded offline; %s", sync_hint)
        mode = "offline"

    def start(mode: str) -> SwanLabTracker:
        # On a thread, because on the main one SwanLab takes over SIGINT, which is ours.
        run = run_with_timeout(
            lambda: swanlab.init(
                project=config.wandb_project,
                name=f"MiniMind-Pretrain-Epoch-{config.epochs}-BatchSize-{config.batch_size}"
                f"-LearningRate-{config.learning_rate}",
                config=run_config,
                log_dir=str(log_folder(config.save_dir)),
                mode=mode,
                id=run_id,
                resume="allow",
            ),
            None,
        )
        return SwanLabTracker(run)

    if mode == "online":
        try:
            return start("online")
        except Exception as error:
            log.warning(
                "SwanLab cannot be reached (%s): the run is recorded offline; %s",
                _one_line(error),
                sync_hint,
            )
            mode = "offline"
    return start(mode)


def _one_line(error: Exception) -> str:
    """The error's text without line breaks and without the API key."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    key = os.environ.get("SWANLAB_API_KEY")
    return text.replace(key, "***") if key else text


def log_folder(save_dir: str | Path) -> Path:
    """Where a run's segments are."""
    return OutputPaths(save_dir).swanlog


def run_file(segment: Path) -> Path | None:
    """The record file of a segment, ``run-ID.swanlab``; None: nothing was recorded."""
    return next(iter(sorted(segment.glob("run-*.swanlab"))), None)


def read_sent(folder: Path) -> dict[str, int]:
    """Which segments are uploaded: their names, and their sizes in bytes at that time."""
    try:
        sent = json.loads((folder / SENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return sent if isinstance(sent, dict) else {}


def mark_sent(segment: Path) -> None:
    """Note that all of a segment is uploaded. One that grows afterwards is sent again."""
    file = run_file(segment)
    if file is None:
        return
    sent = {**read_sent(segment.parent), segment.name: file.stat().st_size}
    write_text_durably(segment.parent / SENT, json.dumps(sent, indent=1))
