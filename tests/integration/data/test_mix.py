"""A run over a mix is interrupted like any other: it ends with the same bits."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minimind.config import TrainConfig
from minimind.data.mixture import MixedPlan, open_plan
from minimind.data.sampler import mixed_epoch_order
from tests.corpus import write_corpus
from tests.runs import Run, assert_same_run

MakeRun = Callable[..., Run]


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    return [
        f"{write_corpus(tmp_path / 'a.jsonl', 10, seed=1)}:0.35",
        f"{write_corpus(tmp_path / 'b.jsonl', 10, seed=2)}:0.65",
    ]


def words(sources: list[str]) -> dict[str, Any]:
    return {"data_path": ",".join(sources), "num_workers": 1}


def test_an_interrupted_mix_equals_an_uninterrupted_one(
    make_run: MakeRun, sources: list[str], tiny_flags: dict[str, Any]
) -> None:
    whole = make_run("whole", **words(sources)).complete()
    pieces = make_run("pieces", **words(sources))
    assert pieces.interrupt(signal.SIGKILL, 5) == [-signal.SIGKILL]
    assert pieces.interrupt(signal.SIGTERM, 4) == [75]
    assert pieces.finish(pieces.start(data_path=",".join(sources).replace("0.65", "0.8"))) == [2]
    assert "other weights in --data_path" in pieces.output
    pieces.complete()
    assert_same_run(whole, pieces)

    # What was trained is what the weights say, in both epochs.
    plan = open_plan(
        sources,
        str(tiny_flags["tokenizer_path"]),
        max_seq_len=tiny_flags["max_seq_len"],
        cache_dir=str(tiny_flags["cache_dir"]),
    )
    assert isinstance(plan, MixedPlan)
    expected = [(e, r) for e in range(2) for r in mixed_epoch_order(plan.mix, 42, e).tolist()]
    assert pieces.trained_rows() == expected
    share = plan.rows_per_epoch[1] / plan.n_rows
    assert share == pytest.approx(0.65, abs=0.5 / plan.n_rows)
    assert plan.rows_per_epoch[1] > plan.parts[1].n_rows  # some rows came twice


def test_a_mix_on_another_number_of_ranks_keeps_its_order(
    make_run: MakeRun, sources: list[str]
) -> None:
    whole = make_run("whole", accumulation_steps=2, epochs=1, **words(sources)).complete()
    changing = make_run("changing", accumulation_steps=2, epochs=1, **words(sources))
    assert changing.interrupt(signal.SIGTERM, 4) == [75]
    changing.complete(2)
    assert changing.trained_rows() == whole.trained_rows()


def test_a_mix_from_a_config_file(tmp_path: Path, sources: list[str]) -> None:
    from minimind.config import parse_args, write_config_file

    file = tmp_path / "mix.toml"
    file.write_text(f"data_path = {json.dumps(sources)}\n")
    config = parse_args(["--config", str(file)])
    assert config == TrainConfig(data_path=sources)
    write_config_file(config, file)
    assert parse_args(["--config", str(file)]) == config
