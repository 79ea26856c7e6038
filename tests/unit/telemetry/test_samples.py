"""Samples of text: what they write, and that they leave no trace in the model or the generators."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from minimind.config import TrainConfig
from minimind.data.tokenizer import load_tokenizer
from minimind.errors import ConfigError
from minimind.model import MiniMindConfig, MiniMindForCausalLM
from minimind.rundir.metrics import read_metrics
from minimind.telemetry.samples import DEFAULT_PROMPTS, SampleWriter, sample_prompts
from minimind.telemetry.trackers.tracker import NullTracker
from minimind.training.seed import rng_state
from tests.runs import differences


class Texts(NullTracker):
    def __init__(self):
        super().__init__()
        self.got = []

    def log_text(self, texts, micro_step, update):
        self.got.append((micro_step, update, dict(texts)))


@pytest.fixture
def model(tiny_tokenizer):
    torch.manual_seed(0)
    config = MiniMindConfig(
        vocab_size=len(load_tokenizer(str(tiny_tokenizer))),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return MiniMindForCausalLM(config).train()


@pytest.fixture
def config(tiny_tokenizer, tmp_path):
    return TrainConfig(
        save_dir=str(tmp_path), tokenizer_path=str(tiny_tokenizer), sample_interval=1
    )


def write(writer, step=7, goes_on=lambda: True):
    place = {"epoch": 0, "step": step, "global_step": 2, "tokens": 99}
    writer.write(goes_on=goes_on, micro_step=step, update=3, **place)


def test_records_and_trackers_get_the_same_text(config, model):
    tracker = Texts()
    writer = SampleWriter(config, ["The", "清晨"], model, tracker)
    write(writer)
    write(writer, step=8)
    writer.close()
    records = read_metrics(Path(config.save_dir) / "samples.jsonl")
    raw = (Path(config.save_dir) / "samples.jsonl").read_text().splitlines()
    assert len(records) == len(raw) == 4
    assert {"epoch", "step", "global_step", "tokens", "prompt", "text", "time"} == set(records[0])
    (micro_step, update, texts), again = tracker.got
    assert (micro_step, update) == (7, 3)
    assert texts == again[2], "the same weights continue alike every time"
    assert texts["sample/1"].startswith("The")
    assert texts["sample/2"] != "清晨"


def test_a_sample_leaves_no_trace(config, model):
    device = torch.device("cpu")
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    generators = rng_state(device)
    writer = SampleWriter(config, ["The"], model, NullTracker())
    write(writer)
    assert differences(generators, rng_state(device)) == []
    assert differences(before, dict(model.state_dict())) == []
    assert differences(gradients, [p.grad for p in model.parameters()]) == []
    assert all(module.training for module in model.modules())
    # What inference made must not stay behind in a buffer that training then uses.
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()


def test_a_stop_ends_a_sample_at_the_next_token_and_nothing_is_written(config, model):
    asked = []

    def goes_on():
        asked.append(None)
        return len(asked) < 4

    writer = SampleWriter(config, ["The", "清晨"], model, tracker := Texts())
    write(writer, goes_on=goes_on)
    # Before the first token, at three tokens, and before the writing.
    assert len(asked) == 5
    assert (Path(config.save_dir) / "samples.jsonl").read_text() == ""
    assert tracker.got == []
    write(writer)
    assert len(read_metrics(Path(config.save_dir) / "samples.jsonl")) == 2


def test_a_compiled_model_is_called_as_it_was_written(config, model):
    def backend(graph, inputs):
        raise AssertionError("compiled")

    model.compile(backend=backend)
    writer = SampleWriter(config, ["The"], model, NullTracker())
    write(writer)
    assert (Path(config.save_dir) / "samples.jsonl").read_text()
    with pytest.raises(Exception, match="compiled"):
        model(input_ids=torch.tensor([[1, 2, 3]]))


def test_a_failure_is_one_warning(config, model, caplog):
    tracker = Texts()
    writer = SampleWriter(config, ["The"], model, tracker)
    model.lm_head = None
    write(writer)
    write(writer)
    assert len(caplog.records) == 1
    assert "no more samples of text" in caplog.text
    assert tracker.got == []


def test_prompts_of_ours_or_of_a_file(tmp_path):
    assert sample_prompts(TrainConfig(sample_interval=1)) == list(DEFAULT_PROMPTS)
    file = tmp_path / "prompts.txt"
    file.write_text("one\n\n 二 \n", encoding="utf-8")
    config = TrainConfig(sample_interval=1, sample_prompts=str(file))
    assert sample_prompts(config) == ["one", " 二 "]
    file.write_text("")
    with pytest.raises(ConfigError, match="holds 0 prompts"):
        sample_prompts(config)
    file.write_text("x\n" * 17)
    with pytest.raises(ConfigError, match="it takes 1 to 16"):
        sample_prompts(config)
    file.unlink()
    with pytest.raises(ConfigError, match=f"--sample_prompts {file}: No such file"):
        sample_prompts(config)


def test_prompts_without_an_interval_are_refused():
    with pytest.raises(ConfigError, match="needs --sample_interval N"):
        TrainConfig(sample_prompts="x")


def test_the_generators_that_are_watched_do_move():
    """The comparison above can fail."""
    device = torch.device("cpu")
    for draw in (random.random, np.random.rand, lambda: torch.rand(1)):
        before = rng_state(device)
        draw()
        assert differences(before, rng_state(device))


def test_block_attention_is_set_aside_for_a_sample_and_put_back(config, model, monkeypatch):
    used = []
    monkeypatch.setattr(
        "minimind.telemetry.samples.generate",
        lambda model, *rest, **flags: used.append(model.config._attn_implementation) or ["x"],
    )
    for attention in ("flex_attention", "blockwise", "eager"):
        model.set_attn_implementation(attention)
        writer = SampleWriter(config, ["The"], model, Texts())
        write(writer)
        writer.close()
        assert model.config._attn_implementation == attention
    assert used == ["sdpa", "sdpa", "eager"]
