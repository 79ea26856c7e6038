from contextlib import nullcontext

import pytest
import torch

from minimind.config import AUTO, TrainConfig, parse_args
from minimind.distributed.world import World
from minimind.errors import ConfigError, OutOfMemoryError
from minimind.model.architecture import Architecture
from minimind.model.language_model import LanguageModel
from minimind.training import batch_size
from minimind.training.batch_size import (
    candidates,
    fastest,
    keep_batch_size,
    largest,
    settle_batch_size,
)
from tests.checkpoints import train_state


def always():
    return True


class TestTheFlag:
    def test_a_word_a_number_or_an_error(self):
        assert parse_args(["--batch_size", "auto"]).batch_size == AUTO
        assert parse_args(["--batch_size", "16"]).batch_size == 16
        with pytest.raises(ConfigError, match="--batch_size must be greater than 0, or auto"):
            parse_args(["--batch_size", "-2"])

    def test_in_a_config_file(self, tmp_path):
        (tmp_path / "run.toml").write_text('batch_size = "auto"\n')
        assert parse_args(["--config", str(tmp_path / "run.toml")]).batch_size == AUTO


def test_candidates_divide_an_update():
    assert candidates(256) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert candidates(96) == [1, 2, 4, 8, 16, 32]
    assert candidates(1) == [1]


class TestFastest:
    def test_the_least_time_a_row(self):
        seconds = {1: 0.02, 2: 0.03, 4: 0.04, 8: 0.10, 16: 0.25, 32: 0.6}
        assert fastest(list(seconds), seconds.__getitem__, always) == 4

    def test_of_nearly_equal_ones_the_smallest(self):
        assert fastest([1, 2, 4, 8], lambda n: 0.01 * n**0.99, always) == 1

    def test_does_not_go_on_where_larger_ones_are_slower(self):
        tried = []

        def seconds(size):
            tried.append(size)
            return 0.01 * size**1.5

        assert fastest([1, 2, 4, 8, 16, 32], seconds, always) == 1
        assert tried == [1, 2, 4]

    def test_ends_within_its_time(self):
        tried = []

        def seconds(size):
            tried.append(size)
            return 1.0 * size**0.5

        fastest([1, 2, 4, 8, 16], seconds, always)
        assert tried == [1, 2]

    def test_stops_where_memory_ends(self):
        assert fastest([1, 2, 4], lambda n: 0.01, lambda: False) == 1


class TestLargest:
    def test_that_fits(self):
        assert largest([1, 2, 4, 8, 16], lambda n: 100 + 10 * n, room=200) == 8

    def test_does_not_try_what_will_not_fit(self):
        tried = []

        def peak(size):
            tried.append(size)
            return 100 + 10 * size

        largest([1, 2, 4, 8, 16, 32], peak, room=200)
        assert 16 not in tried

    def test_running_out_of_memory_is_an_answer(self):
        sizes = {1: 10.0, 2: 20.0, 4: float("inf")}
        assert largest(list(sizes), sizes.__getitem__, room=1000) == 2

    def test_nothing_fits(self):
        with pytest.raises(OutOfMemoryError, match="not even one row fits"):
            largest([1, 2], lambda n: float("inf"), room=1000)


class TestResumed:
    saved = train_state(config={"batch_size": 4, "accumulation_steps": 64})

    def test_keeps_what_was_found(self):
        config = TrainConfig(batch_size="auto", accumulation_steps=8)
        kept = keep_batch_size(config, self.saved)
        assert (kept.batch_size, kept.accumulation_steps) == (4, 64)

    def test_another_accumulation_changes_the_rows_of_an_update(self):
        config = TrainConfig(batch_size="auto", accumulation_steps=16)
        kept = keep_batch_size(config, self.saved)
        assert (kept.batch_size, kept.accumulation_steps) == (4, 128)

    def test_a_number_stands(self):
        config = TrainConfig(batch_size=2)
        assert keep_batch_size(config, self.saved) is config


@pytest.mark.parametrize(("optimizer", "largest_size"), [("adamw", 2), ("muon", 4)])
def test_an_accelerator_keeps_room_for_what_the_optimizer_holds(
    monkeypatch: pytest.MonkeyPatch, optimizer: str, largest_size: int
) -> None:
    """Muon has one moment of a matrix, AdamW two, and no trial has either of them."""
    model = LanguageModel(Architecture(hidden_size=32, num_hidden_layers=1, vocab_size=50))
    adam = 8 * sum(parameter.numel() for parameter in model.parameters())
    monkeypatch.setattr(batch_size, "measures_peaks", lambda device: True)
    monkeypatch.setattr(batch_size, "memory_left", lambda device: ((adam + 50_000) / 0.9, 0, 0))
    monkeypatch.setattr(batch_size, "peak_memory", lambda step, device, rows: 20_000.0 * rows)
    config = TrainConfig(batch_size=AUTO, accumulation_steps=1, optimizer=optimizer)
    world = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
    found = settle_batch_size(config, model, None, world, nullcontext())  # type: ignore[arg-type]
    assert found.batch_size == largest_size
