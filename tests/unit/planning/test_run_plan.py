from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minimind.checkpoint.state import Progress
from minimind.config import TrainConfig
from minimind.planning.model import vocabulary_of
from minimind.planning.rows import Rows, estimate_rows
from minimind.planning.run_plan import Machine, RunPlan, as_dict, card, faster, plan_run, to_fit
from minimind.planning.text import head, table
from minimind.training.schedule import plan_schedule

GB = 10**9


def plan(memory: int | None = 16 * GB, rows: int = 10_000, ranks: int = 1, **flags: Any) -> RunPlan:
    machine = Machine("cpu", "host", memory, ranks=ranks)
    config = TrainConfig(**flags)
    return plan_run(config, Rows(rows), machine, vocab_size=6400, dtype="bfloat16", ranks=ranks)


@pytest.mark.parametrize(
    ("rows", "flags"),
    [(1000, {}), (7, {"epochs": 3}), (10_000, {"epochs": 2, "max_steps": 50})],
)
def test_as_many_updates_as_the_run_takes(rows: int, flags: dict[str, Any]) -> None:
    config = TrainConfig(**flags)
    schedule = plan_schedule(config, 2, rows, Progress(), None)
    assert plan(rows=rows, ranks=2, **flags).updates == schedule.total_steps


def test_only_what_surely_cannot_fit_is_refused() -> None:
    found = plan()
    alone = found.memory.fixed
    assert plan(memory=alone - 1).cannot_fit
    little = plan(memory=alone + 1)
    assert not little.cannot_fit
    assert not little.fits
    assert not plan(memory=None).cannot_fit


def test_swap_counts_as_memory_and_ranks_share_a_host() -> None:
    alone = plan().memory.fixed
    config = TrainConfig()

    def on(machine: Machine) -> RunPlan:
        return plan_run(config, Rows(10), machine, vocab_size=6400, dtype="bfloat16")

    assert not on(Machine("cpu", "host", alone - 1, swap=1)).cannot_fit
    assert on(Machine("cpu", "host", 2 * alone - 1, ranks=2)).cannot_fit


def test_what_would_make_it_fit_does() -> None:
    tight = plan(memory=4 * GB)
    assert not tight.fits
    first = next(to_fit(tight))
    assert first.startswith("--batch_size 8 --accumulation_steps 32")
    assert plan(memory=4 * GB, batch_size=8, accumulation_steps=32).fits
    assert not plan(memory=4 * GB, batch_size=16, accumulation_steps=16).fits
    assert list(to_fit(plan())) == []


def test_time_on_a_card_is_an_estimate_and_limited_by_max_minutes() -> None:
    def on_card(**flags: Any) -> RunPlan:
        config = TrainConfig(**flags)
        machine = card("4090", "bfloat16")
        return plan_run(config, Rows(10**6), machine, vocab_size=6400, dtype="bfloat16")

    found = on_card()
    assert found.seconds is not None
    tokens = 10**6 * 512
    assert found.seconds == pytest.approx(tokens * 192.7e6 / (165.2e12 * 0.3), rel=0.01)
    assert "estimated" in table(found)
    assert on_card(max_minutes=1).seconds == 60
    assert plan().seconds is None


def test_three_lines_head_a_run() -> None:
    lines = head(plan(rows=1234))
    assert len(lines) == 3
    assert "30.03M parameters; 1,234 sequences of 512 tokens; 5 optimizer steps" in lines[0]
    assert "256 sequences, 131,072 tokens each" in lines[0]


def test_json_holds_numbers_only() -> None:
    found = as_dict(plan())
    assert found["memory_bytes"]["total"] > found["memory_bytes"]["weights"]
    assert math.isfinite(found["updates"])


def test_flags_that_make_it_slower() -> None:
    assert any("--pack bestfit" in text for text in faster(plan(pack="none")))
    assert list(faster(plan())) == []


def test_rows_by_the_size_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"x" * 3 * 512 * 100)
    config = TrainConfig(data_path=[str(tmp_path / "a.jsonl")])
    assert estimate_rows(config) == Rows(100, 51_200, 153_600)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.JSONL.GZ", "a.txt.xz", "a.Parquet"])
def test_compressed_text_is_larger_than_its_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x" * 600)
    config = TrainConfig(data_path=[str(tmp_path / name)])
    assert estimate_rows(config).estimated_from == 1800


def test_the_shipped_vocabulary() -> None:
    assert vocabulary_of("") == 6400


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"model": {"vocab": 3}}'])
def test_a_damaged_tokenizer_has_no_known_vocabulary(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    assert vocabulary_of(str(tmp_path)) is None


def test_a_login_node_needs_the_standard_library_alone() -> None:
    code = (
        "import sys\n"
        "import minimind.planning.text, minimind.planning.rows, minimind.planning.model\n"
        "import minimind.cli.plan\n"
        "heavy = {'torch', 'numpy', 'transformers', 'psutil', 'filelock'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_proposed_that_does_not_fit_either() -> None:
    assert list(to_fit(plan(memory=GB // 10))) == [
        "a smaller model: --hidden_size, --num_hidden_layers"
    ]
