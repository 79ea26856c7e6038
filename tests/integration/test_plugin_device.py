"""A whole run on a device that a plug-in registers with torch (PrivateUse1)."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.needs import lacks
from tests.plugin_device import GENERATOR, KIND, build, register
from tests.runs import Run, assert_same_run, hold_at, rank_main

if TYPE_CHECKING:
    from minimind.training.trainer import Trainer

MakeRun = Callable[..., Run]

LIBRARY = "PLUGIN_DEVICE"


def rank_with_the_plug_in(argv: list[str], environ: dict[str, str], output: str) -> None:
    """The body of a rank's process whose torch has the device."""
    register(Path(environ[LIBRARY]))
    hold = hold_at(int(environ["HELD_AT"])) if "HELD_AT" in environ else None

    def draw(trainer: Trainer) -> None:
        """Use the device's generator, so that a resume has something to restore."""
        torch.rand(1, generator=GENERATOR)
        if hold:
            hold(trainer)

    rank_main(argv, environ, output, draw)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        lacks("a C++ compiler")
    return build(tmp_path_factory.mktemp("plugin"), compiler)


def test_a_run_with_a_resume_equals_one_without(make_run: MakeRun, library: Path) -> None:
    def new_run(name: str) -> Run:
        run = make_run(name, device=KIND, dtype="bfloat16", max_steps=6)
        run.environ[LIBRARY] = str(library)
        return run

    whole = new_run("whole").complete(target=rank_with_the_plug_in)
    pieces = new_run("pieces")
    codes = pieces.interrupt(signal.SIGTERM, 5, target=rank_with_the_plug_in)
    assert codes == [75], pieces.output
    pieces.complete(target=rank_with_the_plug_in)
    assert_same_run(whole, pieces)

    state = whole.state()
    assert state["execution"] == {
        "device": KIND,
        "dtype": "float16",
        "compile": False,
        "attention": "sdpa",
    }
    assert state["scaler"]["scale"] > 0
    untouched = torch.Generator().get_state()
    assert not torch.equal(state["ranks"][0]["rng"][KIND], untouched)
    said = "not all of the GPUs (spare here) have it, so float16 with loss scaling"
    assert whole.output.count(said) == 1
    assert f"1 ranks on {KIND} in float16" in whole.output
    on_cpu = make_run("cpu", max_steps=1).complete()
    loss, norm = next(iter(on_cpu.losses().values()))
    first = next(iter(whole.losses().values()))
    assert first == (pytest.approx(loss, rel=1e-4), pytest.approx(norm, rel=1e-3))
