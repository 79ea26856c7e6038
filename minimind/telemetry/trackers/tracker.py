"""What every experiment tracker does, and several of them as one."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import Any

from minimind.config import TrainConfig
from minimind.errors import ConfigError

PACKAGES = {"swanlab": "swanlab", "tensorboard": "tensorboard"}
"""Tracker → the package that it needs, as imported and as installed."""


class NullTracker:
    """Tracks nothing. Keeps the run's id, so that a later resume can go on with it."""

    def __init__(self, run_id: str | None = None) -> None:
        self.run_id = run_id

    def log(self, metrics: Mapping[str, Any], micro_step: int, update: int) -> None:
        """Record the numbers among ``metrics``; never raises.

        Args:
            micro_step: micro-steps done in the whole run, on as many ranks as now.
            update: the optimiser step that is under way, or has just been done; from 1.
        """

    def log_text(self, texts: Mapping[str, str], micro_step: int, update: int) -> None:
        """Record texts by name, where the tracker can show text; never raises."""

    def finish(self, error: str | None = None, *, stopping: bool = False) -> None:
        """Close the records; never raises, and a second call does nothing.

        SwanLab keeps an offline run in memory until here: call it on every orderly stop.

        Args:
            error: why the run failed, if it did; the experiment is then shown as crashed.
            stopping: the run was asked to stop, and must not wait long for a network.
        """


Tracker = NullTracker
"""Any tracker: the interface is that of ``NullTracker``."""


class TrackerGroup(NullTracker):
    """Several trackers, each told everything. Its id is the first that one of them has."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        super().__init__(next((t.run_id for t in trackers if t.run_id), None))
        self.trackers = list(trackers)

    def log(self, metrics: Mapping[str, Any], micro_step: int, update: int) -> None:
        for tracker in self.trackers:
            tracker.log(metrics, micro_step, update)

    def log_text(self, texts: Mapping[str, str], micro_step: int, update: int) -> None:
        for tracker in self.trackers:
            tracker.log_text(texts, micro_step, update)

    def finish(self, error: str | None = None, *, stopping: bool = False) -> None:
        for tracker in self.trackers:
            tracker.finish(error, stopping=stopping)


def check_packages(config: TrainConfig) -> None:
    """Look whether the trackers that were asked for are installed, and take their settings.

    SwanLab is imported only where the environment sets something for it, which it may refuse.

    Raises:
        ConfigError: one is missing, or refuses its settings; the message says what to do.
    """
    for name in config.trackers:
        package = PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"--tracker {name} needs the package {package}, which is not installed: "
                f"pip install {package}"
            )
    set_for_swanlab = sorted(name for name in os.environ if name.startswith("SWANLAB_"))
    if "swanlab" in config.trackers and set_for_swanlab:
        from minimind.telemetry.trackers.swanlab import check_settings

        check_settings(set_for_swanlab)
