from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from platformdirs import user_cache_path

# A timing is no test.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

pytest.register_assert_rewrite("tests.runs")

# A shell lets what it starts in the background ignore Ctrl-C, as nohup does a closed terminal, and
# children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Tests compare bits and run several processes on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Compiled code is kept for all tests and for the next time: its headers alone take ten seconds.
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", str(user_cache_path("minimind-tests", appauthor=False))
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts first what may take longest: nobody is to wait for it alone at the end."""

    def limit(item: pytest.Item) -> float:
        marker = item.get_closest_marker("timeout")
        return float(marker.args[0]) if marker is not None and marker.args else 0.0

    items.sort(key=limit, reverse=True)


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.corpus import write_tokenizer

    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.corpus import write_corpus

    """27 rows of 64 tokens: neither the last batch of two nor the last update of six is full."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "tiny.jsonl", count=6)


@pytest.fixture(scope="session")
def tiny_flags(
    tiny_tokenizer: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Flags of a run that takes a second or two."""
    return {
        "device": "cpu",
        "dtype": "float32",
        "data_path": tiny_corpus,
        "tokenizer_path": tiny_tokenizer,
        "cache_dir": tmp_path_factory.mktemp("cache"),
        "num_workers": 0,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_seq_len": 64,
        "batch_size": 2,
        "accumulation_steps": 3,
        "epochs": 2,
        "learning_rate": 1e-2,
        "log_interval": 1,
        "save_interval": 4,
        "from_resume": "auto",
        "record_rows": True,
    }


@pytest.fixture
def make_run(tmp_path: Path, tiny_flags: dict[str, Any]) -> Callable[..., Any]:
    """Make a run in a folder of its own: ``make_run("name", flag=value, …)``."""
    from tests.runs import Run

    def make(name: str, **flags: Any) -> Run:
        return Run(tmp_path / name, {**tiny_flags, **flags})

    return make
