"""Several trackers as one, and packages that are not there."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from minimind.config import TrainConfig, parse_args
from minimind.errors import ConfigError
from minimind.telemetry.trackers.tracker import NullTracker, TrackerGroup, check_packages


class Noting(NullTracker):
    def __init__(self, run_id=None):
        super().__init__(run_id)
        self.got = []

    def log(self, metrics, micro_step, update):
        self.got.append(("log", dict(metrics), micro_step, update))

    def log_text(self, texts, micro_step, update):
        self.got.append(("text", dict(texts), micro_step, update))

    def finish(self, error=None, *, stopping=False):
        self.got.append(("finish", error, stopping))


def test_a_group_tells_everyone_everything():
    members = [Noting(), Noting("abc")]
    group = TrackerGroup(members)
    assert group.run_id == "abc"
    group.log({"loss": 1.0}, 8, 2)
    group.log_text({"sample/1": "x"}, 8, 2)
    group.finish("KeyError", stopping=True)
    wanted = [("log", {"loss": 1.0}, 8, 2), ("text", {"sample/1": "x"}, 8, 2)]
    assert [member.got for member in members] == [[*wanted, ("finish", "KeyError", True)]] * 2


@pytest.mark.parametrize(
    ("words", "trackers"),
    [
        ("", []),
        ("--use_wandb", ["swanlab"]),
        ("--tracker tensorboard", ["tensorboard"]),
        ("--tracker tensorboard,swanlab", ["swanlab", "tensorboard"]),
        ("--tracker tensorboard --use_wandb", ["swanlab", "tensorboard"]),
    ],
)
def test_use_wandb_means_swanlab(words, trackers):
    assert parse_args(words.split()).trackers == trackers


@pytest.mark.parametrize("value", ["wandb", "swanlab,", "swanlab;tensorboard"])
def test_an_unknown_tracker_is_refused(value):
    with pytest.raises(ConfigError, match="--tracker must be swanlab, tensorboard"):
        TrainConfig(tracker=value)


def test_a_missing_package_is_named_before_anything_starts(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else found(name)
    )
    check_packages(TrainConfig(tracker="swanlab"))
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        check_packages(TrainConfig(tracker="swanlab,tensorboard"))


@pytest.mark.parametrize(("name", "value"), [("SWANLAB_MODE", "ofline"), ("SWANLAB_RUN_ID", "a/b")])
def test_settings_that_swanlab_refuses_are_named_before_the_run(monkeypatch, name, value):
    check_packages(TrainConfig(tracker="swanlab"))
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"SwanLab refuses its settings .*{value}.*{name}") as e:
        check_packages(TrainConfig(tracker="swanlab"))
    assert "\n" not in str(e.value)
    check_packages(TrainConfig(tracker="tensorboard"))


def test_a_swanlab_that_cannot_be_imported_does_not_stop_a_run(monkeypatch):
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "swanlab", None)
    check_packages(TrainConfig(tracker="swanlab"))
