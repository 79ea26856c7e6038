"""The image as a user runs it: read-only root, no root rights, signals, exit codes."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from minimind.rundir.metrics import read_metrics
from tests.e2e.docker.engine import Engine
from tests.e2e.lab import poll
from tests.runs import STATE_KEYS, Run, differences

ISOLATED = ("--network=none", "--read-only", "--tmpfs", "/tmp")
SOMEBODY = "54321:54321"
"""A user id that the image does not know."""

MODEL: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float32",
    "num_workers": 0,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_seq_len": 128,
    "batch_size": 4,
    "accumulation_steps": 2,
    "max_steps": 60,
    "log_interval": 2,
    "save_interval": 100000,
    "seed": 7,
}
"""Flags of a run on the sample corpus that takes seconds and saves only when it is told to."""


@dataclass
class Container:
    """A container that runs in the background."""

    engine: Engine
    name: str

    @property
    def output(self) -> str:
        done = self.engine.run("logs", self.name)
        return done.stdout + done.stderr

    def running(self) -> bool:
        state = self.engine.ok("inspect", "--format", "{{.State.Running}}", self.name)
        return state.strip() == "true"

    def wait(self, seconds: float = 240) -> int:
        return int(self.engine.ok("wait", self.name, timeout=seconds))


@dataclass
class Desk:
    """A user's folders, and the image run on them."""

    engine: Engine
    image: str
    folder: Path
    user: str | None = None
    started: list[str] = field(default_factory=list)

    @property
    def options(self) -> tuple[str, ...]:
        user = () if self.user is None else (f"--user={self.user}",)
        volumes = (f"--volume={self.folder}/data:/data", f"--volume={self.folder}/runs:/runs")
        return (*ISOLATED, *user, *volumes, "--env=OMP_NUM_THREADS=1")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in a container of its own, to its end."""
        return self.engine.run("run", "--rm", *self.options, self.image, *words, timeout=600)

    def ok(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, *words: str) -> Container:
        name = f"minimind-test-{uuid.uuid4().hex[:8]}"
        self.engine.ok("run", "--detach", "--name", name, *self.options, self.image, *words)
        self.started.append(name)
        return Container(self.engine, name)

    def pretrain(self, run: str, *words: str, **flags: object) -> list[str]:
        """The words of a pretraining on the sample corpus that writes to /runs/RUN."""
        own = {"save_dir": f"/runs/{run}/out", "checkpoint_dir": f"/runs/{run}/checkpoints"}
        values = {"data_path": "/data/sample/train.jsonl", **own, **MODEL, **flags}
        flat = [word for name, value in values.items() for word in (f"--{name}", str(value))]
        return ["pretrain", *words, *flat]

    def steps(self, run: str) -> list[int]:
        """Optimiser steps that were logged."""
        path = self.folder / "runs" / run / "out" / "metrics.jsonl"
        if not path.exists():
            return []
        return [point["global_step"] for point in read_metrics(path) if "loss" in point]

    def as_run(self, run: str) -> Run:
        return Run(self.folder / "runs" / run, {})


@pytest.fixture(scope="module")
def home(engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that everybody may write, with the sample corpus, made by the image's own user."""
    folder = tmp_path_factory.mktemp("desk")
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(parent.stat().st_mode | 0o055)
    for name in ("data", "runs"):
        (folder / name).mkdir()
        (folder / name).chmod(0o777)
    Desk(engine, image, folder).ok("data", "sample", "--out", "/data/sample")
    assert (folder / "data" / "sample" / "train.jsonl").stat().st_uid == 10001
    return folder


@pytest.fixture
def desk(engine: Engine, image: str, home: Path) -> Iterator[Desk]:
    desk = Desk(engine, image, home)
    yield desk
    for name in desk.started:
        engine.run("rm", "--force", "--volumes", name)


def outside(desk: Desk, folder: Path, ranks: int, **flags: object) -> Run:
    """The same training on this machine itself, never interrupted."""
    data = {"data_path": desk.folder / "data" / "sample" / "train.jsonl"}
    everything = {**MODEL, **data, "cache_dir": folder / "cache", **flags}
    return Run(folder, everything, {"OMP_NUM_THREADS": "1"}).complete(ranks)


def assert_same_weights(inside: Run, plain: Run) -> None:
    mine, theirs = inside.state(), plain.state()
    for key in STATE_KEYS:
        assert differences(mine[key], theirs[key], key) == []
    (weights,), (expected,) = inside.save_dir.glob("*.pth"), plain.save_dir.glob("*.pth")
    ours = torch.load(weights, weights_only=True)
    assert differences(ours, torch.load(expected, weights_only=True)) == []


def test_no_argument_prints_help(desk: Desk) -> None:
    said = desk.ok()
    for word in ("pretrain", "generate", "launcher", "bash"):
        assert f"\n  {word} " in said


def test_every_module_imports(desk: Desk) -> None:
    code = """
import importlib, json, pkgutil, sys
import minimind, launcher
for package in (launcher, minimind):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    if package is launcher:
        assert "torch" not in sys.modules, "the launcher imports torch"
print(json.dumps({name: sys.modules[name].__version__ for name in ("torch", "transformers")}))
"""
    assert set(json.loads(desk.ok("python", "-c", code))) == {"torch", "transformers"}
    assert "Usage: launcher" in desk.ok("launcher", "--help")
    assert desk.ok("minimind", "--version").strip()
    desk.ok("pip", "check")


def test_torch_compile_finds_its_compiler(desk: Desk) -> None:
    """With a read-only root and a /tmp without execute permission."""
    code = "import torch; f = torch.compile(lambda x: x.sin() + 1); print(f(torch.zeros(3)).sum())"
    assert "tensor(3.)" in desk.ok("python", "-c", code)
    assert any((desk.folder / "runs" / ".cache" / "torchinductor").iterdir())


def test_stopped_and_resumed_equals_a_run_outside(desk: Desk, tmp_path: Path) -> None:
    words = desk.pretrain("one", from_resume="auto")
    del words[words.index("--device") : words.index("--device") + 2]
    first = desk.start(*words)
    poll(lambda: max(desk.steps("one"), default=0) >= 5 or not first.running(), "step 5")
    desk.engine.ok("stop", "--time", "60", first.name)
    assert first.wait() == 75, first.output
    assert "no GPU visible: training on CPU" in first.output
    assert "stopped by SIGTERM" in first.output
    stopped_at = max(desk.steps("one"))
    assert 5 <= stopped_at < MODEL["max_steps"], "stopped too late to be a test"
    second = desk.start(*words)
    assert second.wait() == 0, second.output
    assert desk.steps("one") == list(range(1, 61)), "a step was lost or trained twice"
    assert_same_weights(desk.as_run("one"), outside(desk, tmp_path / "plain", 1))
    text = desk.ok("generate", "--weight", "/runs/one/out/pretrain_64.pth", "--prompt", "A")
    assert text.strip()


def test_two_ranks_of_an_unknown_user(desk: Desk, tmp_path: Path) -> None:
    desk.user = SOMEBODY
    words = desk.pretrain("two", "--procs", "2", from_resume="auto")
    first = desk.start(*words)
    poll(lambda: max(desk.steps("two"), default=0) >= 5 or not first.running(), "step 5")
    desk.engine.ok("stop", "--time", "60", first.name)
    assert first.wait() == 75, first.output
    assert max(desk.steps("two")) < MODEL["max_steps"], "stopped too late to be a test"
    second = desk.start(*words)
    assert second.wait() == 0, second.output
    assert "2 ranks on this machine" in second.output
    assert_same_weights(desk.as_run("two"), outside(desk, tmp_path / "plain", 2))
    weights = desk.folder / "runs" / "two" / "out" / "pretrain_64.pth"
    assert f"{weights.stat().st_uid}:{weights.stat().st_gid}" == SOMEBODY


def test_bad_flag_exits_2(desk: Desk) -> None:
    done = desk.run("pretrain", "--no_such_flag", "1")
    assert done.returncode == 2
    assert "no_such_flag" in done.stderr


@pytest.mark.parametrize("name", ["USR1", "USR2", "INT"])
def test_other_stop_signals_mean_the_same(desk: Desk, name: str) -> None:
    run = f"signal-{name}"
    container = desk.start(*desk.pretrain(run, max_steps=100000))
    poll(lambda: max(desk.steps(run), default=0) >= 2 or not container.running(), "step 2")
    desk.engine.ok("kill", "--signal", name, container.name)
    assert container.wait() == 75, container.output


def test_orphans_are_reaped(desk: Desk) -> None:
    """A process whose parent is gone belongs to PID 1, which must collect it."""
    code = """
import os, pathlib, time
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.2)
        os._exit(0)
    os._exit(0)
os.wait()
def states():
    texts = [path.read_text() for path in pathlib.Path("/proc").glob("[0-9]*/stat")]
    return [text.rpartition(")")[2].split()[0] for text in texts]
deadline = time.monotonic() + 20
while len(states()) > 2 and time.monotonic() < deadline:
    time.sleep(0.1)
print(len(states()), "Z" in states())
"""
    assert desk.ok("python", "-c", code).split() == ["2", "False"], "tini and this program remain"


def test_nothing_needs_root_or_a_name(desk: Desk) -> None:
    desk.user = SOMEBODY
    code = "import getpass, os; print(getpass.getuser(), os.access(os.environ['HOME'], os.W_OK))"
    assert desk.ok("python", "-c", code).split() == ["minimind", "True"]


def test_desk_is_not_root(desk: Desk) -> None:
    assert desk.ok("python", "-c", "import os; print(os.getuid())").strip() == "10001"


def test_no_program_takes_other_rights(desk: Desk) -> None:
    """No setuid, no setgid, no file capabilities: a process stays who it was started as."""
    code = """
import os, stat

found = []
for folder, names, files in os.walk("/"):
    names[:] = [n for n in names if os.path.join(folder, n) not in ("/proc", "/sys", "/dev")]
    for path in (os.path.join(folder, name) for name in files):
        try:
            mode = os.lstat(path).st_mode
            granted = "security.capability" in os.listxattr(path, follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISREG(mode) and (mode & (stat.S_ISUID | stat.S_ISGID) or granted):
            found.append(path)
print(found)
"""
    assert desk.ok("python", "-c", code).strip() == "[]"
