"""``--profile N``: a trace of a few micro-steps, and one screen that says where they go."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from minimind.distributed.device import kernel_times
from minimind.telemetry.meters import SECTIONS

log = logging.getLogger(__name__)

SKIPPED_MICRO_STEPS = 3
"""The first ones fill caches; the profiler itself warms up over one more."""

SECONDS_AFTER_STOP = 5.0
"""How long a stop waits for the trace, once the checkpoint is on the disk."""

LONGEST = 12

WIDTH = 52

OTHER = "elementwise and other operators"

# First match wins; names as torch 2.13 and its CUDA kernels have them.
KINDS = (
    ("compiled kernels", ("triton", "cpp_fused", "compiledfxgraph", "compiledfunction")),
    ("attention", ("attention", "flash", "fmha", "flex")),
    ("matrix products", ("mm", "gemm", "linear", "cutlass", "matmul", "nvjet")),
    ("exchange between ranks", ("nccl", "gloo", "all_reduce", "c10d")),
    ("optimiser", ("adam", "muon", "foreach", "optimizer")),
    ("loss", ("log_softmax", "nll", "cross_entropy")),
    ("waiting for data", ("dataloader",)),
    ("copies and fills", ("copy", "memcpy", "memset", "fill", "zero", "cat", "stack", "clone")),
)


@dataclass(frozen=True)
class Row:
    """One operator or kernel over all profiled micro-steps."""

    name: str
    seconds: float
    """Its own time, without what it called."""
    calls: int


class StepProfiler:
    """Traces ``micro_steps`` micro-steps of one rank into ``folder``, then gets out of the way.

    A trace of ten micro-steps takes many seconds to write. That goes on in the background, since
    training, and a stop, would wait for it.

    Compiled CPU kernels show themselves by name only if they are compiled so:
    :func:`name_compiled_kernels` comes before the model is compiled.
    """

    def __init__(self, micro_steps: int, folder: Path, device: torch.device) -> None:
        self.stopping = False
        """Whether the run was asked to stop: what is not written soon then is left."""
        self._done = 0
        self._writer: threading.Thread | None = None
        self._folder = folder
        self._device = device
        activities = [ProfilerActivity.CPU]
        if activity := kernel_times(device.type):
            activities.append(getattr(ProfilerActivity, activity))
        self._profile: profile | None = profile(
            activities=activities,
            schedule=schedule(wait=SKIPPED_MICRO_STEPS, warmup=1, active=micro_steps, repeat=1),
            on_trace_ready=self._begin_to_write,
        )
        self._profile.start()

    @property
    def tracing(self) -> bool:
        """Whether there are micro-steps yet to be traced."""
        return self._profile is not None

    def step(self) -> None:
        """A micro-step has ended, and no exchange between ranks is under way."""
        if self._profile is not None:
            self._done += 1
            self._profile.step()

    def close(self) -> None:
        """Write what there is, if the run ends before all was traced."""
        if self._profile is not None:
            self._profile.stop()
            if self._profile is not None:
                log.warning(
                    "no profile: the run ended within %d micro-steps", SKIPPED_MICRO_STEPS + 1
                )
                self._profile = None
        if self._writer is not None:
            self._writer.join(SECONDS_AFTER_STOP if self.stopping else None)
            if self._writer.is_alive():
                log.warning("no profile: it is not written %.0f s after a stop", SECONDS_AFTER_STOP)

    def _begin_to_write(self, finished: profile) -> None:
        self._profile = None
        self._writer = threading.Thread(
            target=self._write, args=(finished,), name="profile", daemon=True
        )
        self._writer.start()

    def _write(self, finished: profile) -> None:
        try:
            self._write_files(finished)
        except Exception as error:
            log.warning("no profile: %s: %s", type(error).__name__, error, exc_info=True)

    def _write_files(self, finished: profile) -> None:
        self._folder.mkdir(exist_ok=True)
        trace = self._folder / "trace.json.gz"
        finished.export_chrome_trace(str(trace))
        text = summary(
            finished.key_averages(), self._done - SKIPPED_MICRO_STEPS - 1, self._device.type
        )
        (self._folder / "summary.txt").write_text(text + "\n", encoding="utf-8")
        log.info("%s\ntrace: %s (open it at https://ui.perfetto.dev)", text, trace)


def name_compiled_kernels() -> None:
    """Let compiled CPU kernels report to the profiler; their arithmetic stays the same."""
    import torch._inductor.config as inductor

    inductor.cpp.enable_kernel_profile = True
    inductor.cpp.descriptive_names = "original_aten"


def summary(events: Iterable[Any], micro_steps: int, device: str) -> str:
    """One screen: the sections of the loop, kinds of work, and the longest operators.

    Args:
        events: ``key_averages()`` of a torch profile.
        micro_steps: how many it covers.
        device: its kind; without kernel times of it operator times are read.
    """
    per_step = 1e3 / micro_steps
    sections: dict[str, float] = {}
    rows = []
    for event in events:
        if event.key in SECTIONS:
            sections[event.key] = event.cpu_time_total / 1e6
        elif not event.key.startswith(("ProfilerStep", "Optimizer.")):
            kernels = kernel_times(device) is not None
            own = event.self_device_time_total if kernels else event.self_cpu_time_total
            rows.append(Row(event.key, own / 1e6, event.count))
    kinds: dict[str, float] = defaultdict(float)
    for row in rows:
        kinds[kind_of(row.name)] += row.seconds
    total = sum(kinds.values()) or 1.0
    lines = [f"profile of {micro_steps} micro-steps on {device}, milliseconds in each"]
    for name, seconds in sections.items():
        lines.append(f"  loop: {name:<{WIDTH - 6}}{seconds * per_step:>10.2f}")
    for name, seconds in sorted(kinds.items(), key=lambda item: -item[1]):
        lines.append(f"  {name:<{WIDTH}}{seconds * per_step:>10.2f}{100 * seconds / total:>7.1f} %")
    lines.append("the longest, with how often in a micro-step")
    for row in sorted(rows, key=lambda row: -row.seconds)[:LONGEST]:
        name = row.name if len(row.name) <= WIDTH else row.name[: WIDTH - 3] + "..."
        share = 100 * row.seconds / total
        calls = row.calls / micro_steps
        lines.append(
            f"  {name:<{WIDTH}}{row.seconds * per_step:>10.2f}{share:>7.1f} %{calls:>8.1f}×"
        )
    return "\n".join(lines)


def kind_of(name: str) -> str:
    """The kind of work that an operator or kernel does, by its name."""
    lowered = name.lower()
    for kind, marks in KINDS:
        if any(mark in lowered for mark in marks):
            return kind
    return OTHER
