"""How long a stop takes, wherever it falls: seconds to a durable checkpoint, and to the end.

A training of its own for each place, by the same program that users run. It is watched for the
moment at which it enters the place, and gets SIGTERM a little later. Where nothing has been trained
that is not saved yet, there is nothing to wait for but the end.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.checkpoint import SIZES, STOP_TARGET
from benchmarks.common import (
    BenchmarkError,
    Report,
    environment,
    main,
    make_parser,
    read_jsonl,
    say,
    spread,
    table,
    work_folder,
)
from benchmarks.corpus import benchmark_corpus
from minimind.errors import EXIT_DONE, EXIT_RUN_ME_AGAIN

WAIT_SECONDS = 900.0
HELD_OUT_MB = 16


@dataclass(frozen=True)
class Place:
    """Where a signal falls."""

    title: str
    target: str = ""
    """``module:name`` of the function in which it falls; none: while the program is imported."""
    delay: float = 0.05
    """Seconds from the entry of the function to the signal."""
    call: int = 1
    """Which call of the function."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    """Flags that all the others have."""
    variables: Mapping[str, str] = field(default_factory=dict)
    resumes: bool = False
    code: int = EXIT_RUN_ME_AGAIN


STEP = "minimind.training.step:TrainStep"
ALONE_OF_TWO = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29876"}
TRACKED = {"use_wandb": True}
OFFLINE = {"SWANLAB_MODE": "offline"}

PLACES = {
    "import": Place("importing torch", delay=2.0),
    "ranks": Place(
        "waiting for another rank, which does not come",
        "minimind.distributed.world:rendezvous",
        delay=1.0,
        variables=ALONE_OF_TWO,
    ),
    "tokenise": Place("tokenising", "minimind.training.pretrain:open_plan", delay=2.0),
    "model": Place("building the model", "minimind.training.pretrain:init_model", delay=0.1),
    "batch_size": Place(
        "`--batch_size auto`",
        "minimind.training.pretrain:settle_batch_size",
        delay=3.0,
        flags={"batch_size": "auto"},
    ),
    "load": Place(
        "loading a checkpoint", "minimind.training.pretrain:find_checkpoint", resumes=True
    ),
    "tracker": Place(
        "starting SwanLab",
        "minimind.telemetry.reporter:start_tracker",
        delay=0.3,
        flags=TRACKED,
        variables=OFFLINE,
    ),
    "compile": Place(
        "compiling",
        "minimind.training.build_model:warm_up",
        delay=5.0,
        flags={"compile": "on"},
    ),
    "compile_scoring": Place(
        "compiling what scores held-out text",
        "minimind.training.build_model:warm_up_scoring",
        delay=2.0,
        flags={"compile": "on"},
    ),
    "micro_batch": Place("a micro-batch", f"{STEP}.forward_backward", call=5),
    "window": Place(
        "a micro-batch, seven before the update",
        f"{STEP}.forward_backward",
        call=9,
        flags={"accumulation_steps": 8},
    ),
    "update": Place("an update of the weights", f"{STEP}.update", call=3, delay=0.0),
    "score": Place(
        "scoring held-out text",
        "minimind.training.evaluate:score_batch",
        call=3,
        flags={"eval_interval": 4},
    ),
    "make_up": Place(
        "scoring held-out text of the step that was saved, after a resume",
        "minimind.training.evaluate:score_batch",
        call=3,
        flags={"eval_interval": 4},
        resumes=True,
    ),
    "sample": Place(
        "writing samples",
        "minimind.telemetry.samples:generate",
        delay=0.3,
        flags={"sample_interval": 4},
    ),
    "save": Place(
        "a save",
        "minimind.checkpoint.store:Checkpointer._write",
        flags={"save_interval": 4},
    ),
    "profile": Place(
        "writing a profile of 10 micro-batches",
        "minimind.training.profiler:StepProfiler._write",
        flags={"profile": 10},
    ),
    "upload": Place(
        "a micro-batch, with a network that is gone",
        f"{STEP}.forward_backward",
        call=5,
        flags=TRACKED,
        variables={**OFFLINE, "STOP_BENCHMARK_HANGS": "1"},
    ),
    "picture": Place(
        "drawing the loss curve of a run that is done",
        "minimind.training.announce:plot_loss_curve",
        # Without held-out text, which a run that is done scores whole: for half an hour here.
        flags={"max_steps": 4},
        without=("eval_data_path", "eval_interval"),
        code=EXIT_DONE,
    ),
}

MARKER = "STOP_BENCHMARK_MARKER"
PLACE = "STOP_BENCHMARK_PLACE"


def watched_training() -> int:
    """The trainer, in a process that leaves a mark when it enters its place."""
    from minimind.train_pretrain import main

    place = PLACES[os.environ[PLACE]]
    if "STOP_BENCHMARK_HANGS" in os.environ:
        _lose_the_network()
    if place.target:
        _mark(place.target, place.call, Path(os.environ[MARKER]))
    return main()


def _mark(target: str, call: int, marker: Path) -> None:
    """Make ``marker`` when the function is called for the ``call``-th time."""
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def marked(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            marker.touch()
        return original(*args, **named)

    setattr(owner, name, marked)


def _lose_the_network() -> None:
    """An upload that never ends."""
    from minimind.telemetry.trackers.swanlab import SwanLabTracker

    original = SwanLabTracker.finish

    def finish(self: Any, *args: Any, **named: Any) -> None:
        self._online = True
        self._run._core.confirm_run_finish = lambda: time.sleep(3600)
        original(self, *args, **named)

    SwanLabTracker.finish = finish  # type: ignore[method-assign]


def measure(name: str, folder: Path, flags: Mapping[str, Any]) -> dict[str, float]:
    """One stop. ``durable`` is absent where nothing was to be saved.

    Raises:
        BenchmarkError: the run never came to the place, or did not end as it must.
    """
    place = PLACES[name]
    run = folder / name
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    if place.resumes:
        _stopped_run(run, {**flags, **place.flags})
    cache = {"cache_dir": run / "cache"} if name == "tokenise" else {}
    variables = {
        PLACE: name,
        MARKER: str(run / "marker"),
        "MINIMIND_EVENTS": str(run / "events.jsonl"),
        "TORCHINDUCTOR_CACHE_DIR": str(run / "inductor"),
        **place.variables,
    }
    kept = {name: value for name, value in flags.items() if name not in place.without}
    words = _words({**kept, **place.flags, **cache, **_folders(run)})
    with _process(words, run, variables) as (process, output):
        if place.target:
            _wait(lambda: (run / "marker").exists(), process, f"{place.title}; see {output}")
        time.sleep(place.delay)
        sent = time.time()
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=WAIT_SECONDS)
        ended = time.time()
    if code != place.code:
        raise BenchmarkError(f"{place.title}: ended with {code}, not {place.code}; see {output}")
    found = {"ended": ended - sent}
    events = _lines(run / "events.jsonl")
    saves = [event for event in events if event["event"] == "checkpointed"]
    durable = [save["time"] for save in saves if save["time"] > sent]
    if durable and not place.resumes:
        found["durable"] = durable[-1] - sent
        found["save"] = max(save["seconds"] for save in saves)
        found["micro_batch"] = longest_micro_batch(_lines(run / "out" / "metrics.jsonl"))
    return found


def longest_micro_batch(metrics: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of the longest, as the mean of those between two lines of the log; 0 without one."""
    points = [point for point in metrics if "loss" in point]
    before = [0, *(point["step"] for point in points)]
    taken = (
        point["compute_seconds"] / (point["step"] - step)
        for point, step in zip(points, before, strict=False)
    )
    return max(taken, default=0.0)


def allowed(found: Mapping[str, float]) -> float:
    """What a stop may take: ten seconds, or a micro-batch and a save, by the run's longest."""
    return max(STOP_TARGET, found.get("micro_batch", 0.0) + found.get("save", 0.0))


def _lines(path: Path) -> list[dict[str, Any]]:
    return read_jsonl(path) if path.exists() else []


def _stopped_run(run: Path, flags: Mapping[str, Any]) -> None:
    """A run that was stopped in its first evaluation, whose checkpoint another can go on from."""
    variables = {PLACE: "score", MARKER: str(run / "marker")}
    words = _words({**flags, "eval_interval": 4, **_folders(run)})
    with _process(words, run, variables) as (process, output):
        _wait(lambda: (run / "marker").exists(), process, f"a checkpoint; see {output}")
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=WAIT_SECONDS)
    (run / "marker").unlink()


def _folders(run: Path) -> dict[str, Path]:
    return {"save_dir": run / "out", "checkpoint_dir": run / "checkpoints"}


def _words(flags: Mapping[str, Any]) -> list[str]:
    """A flag of True is a bare one."""
    words: list[str] = []
    for name, value in flags.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


@contextlib.contextmanager
def _process(
    words: list[str], run: Path, variables: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A training that tells when it comes to the place, and the file that it prints to."""
    command = [sys.executable, "-m", "benchmarks.stop", "--inside", *words]
    output = run / "output.txt"
    with output.open("ab") as file:
        process = subprocess.Popen(
            command, env={**environment(), **variables}, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield process, output
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise BenchmarkError(f"the run did not come to: {what}")
        time.sleep(0.01)


def held_out_text(text: Path, folder: Path) -> Path:
    """``HELD_OUT_MB`` of text, ``text`` over and over."""
    path = folder / f"held_out_{HELD_OUT_MB}.jsonl"
    content = text.read_bytes()
    path.write_bytes(content * (-(-HELD_OUT_MB * 1_000_000 // len(content))))
    return path


def run() -> None:
    parser = make_parser("stop", __doc__, "--places score sample")
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--size", choices=SIZES, default="512x8")
    parser.add_argument("--batch_size", type=int, default=8, help="rows of a micro-step")
    args = parser.parse_args()
    report = Report("stop", __doc__ or "")
    load_before = os.getloadavg()[0]
    with work_folder(args.work_dir) as work:
        data, held_out = benchmark_corpus(work)
        flags = {
            **SIZES[args.size],
            "data_path": data,
            "eval_data_path": held_out_text(held_out, work),
            "cache_dir": work / "cache",
            "batch_size": args.batch_size,
            "accumulation_steps": 1,
            "log_interval": 2,
            "save_interval": 1_000_000,
            "eval_interval": 1_000_000,
            "epochs": 1000,
            "compile": "off",
        }
        # So that all but one find the text tokenised.
        say("first of all, a run that tokenises")
        measure("tracker", work / "runs", flags)
        rows, missed = [], []
        for name in args.places:
            found = []
            for repeat in range(args.repeats):
                say(f"run {repeat + 1} of {args.repeats}: {PLACES[name].title}")
                found.append(measure(name, work / "runs", flags))
                say(", ".join(f"{key} {seconds:.2f} s" for key, seconds in found[-1].items()))
            saves = all("durable" in one for one in found)
            durable = spread(found, "durable") if saves else None
            ended = spread(found, "ended")
            if any(one.get("durable", one["ended"]) > allowed(one) for one in found):
                missed.append(PLACES[name].title)
            costs = [spread(found, key) if saves else "" for key in ("micro_batch", "save")]
            rows.append([PLACES[name].title, durable or "nothing to save", ended, *costs])
            report.data[name] = found
        heads = ("checkpoint after s", "end after s", "a micro-batch s", "a save s")
        report.add(table(["the signal falls into", *heads], rows))
        report.add(
            f"To the checkpoint, or with nothing to save to the end, in {STOP_TARGET:.0f} s, or in "
            f"a micro-batch and a save: {'**not** ' + '; '.join(missed) if missed else 'all'}. "
            f"Load average {load_before:.1f} before and {os.getloadavg()[0]:.1f} after."
        )
    report.publish(args)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        del sys.argv[1]
        sys.exit(watched_training())
    main(run)
