from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.spec.job_spec import JobSpec
from launcher.submit.plan import plan_of
from minimind.errors import ConfigError


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    (tmp_path / "text.jsonl").write_bytes(b"x" * 3 * 512 * 100)
    return str(tmp_path / "text.jsonl")


def spec(*train: str, **changes: Any) -> JobSpec:
    given: dict[str, Any] = {"name": "n", "run_dir": "/runs/n", "workdir": "/", **changes}
    return JobSpec(**given, train_args=train)


def test_ranks_of_all_nodes_share_the_rows(corpus: str) -> None:
    plan = plan_of(spec("--data_path", corpus, "--batch_size", "1", nodes=2, gpus=4), "h100")
    assert (plan.ranks, plan.rows.count) == (8, 100)
    assert plan.updates == 2, "64 rows each"
    assert plan.machine.name == "H100"
    assert plan.seconds is not None


def test_what_is_not_known_is_not_judged(corpus: str) -> None:
    plan = plan_of(spec("--data_path", corpus, "--hidden_size", "16384"), None)
    assert plan.fits
    assert plan.seconds is None


def test_another_program_has_other_flags() -> None:
    with pytest.raises(ConfigError, match="only the flags of minimind"):
        plan_of(spec(module="my.training"), None)


def test_an_unknown_card_is_an_error(corpus: str) -> None:
    with pytest.raises(ConfigError, match="--on 5090x: choose 3090, 4090"):
        plan_of(spec("--data_path", corpus), "5090x")


def test_a_login_node_has_no_torch() -> None:
    code = (
        "import sys, launcher.submit.plan, minimind.planning.text\n"
        "sys.exit(str({'torch', 'numpy', 'psutil'} & set(sys.modules) or '') or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
