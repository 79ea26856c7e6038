"""A plan for people: three lines that head a run, and the whole table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict

from minimind.planning.run_plan import TYPICAL_MFU, RunPlan, faster, to_fit
from minimind.planning.updates import rows_per_update
from minimind.system.terminal import count_text, long_duration, size_text

WIDTH = 11
"""Of the first column."""


def head(plan: RunPlan) -> list[str]:
    """The three lines."""
    return [
        f"plan: {_model(plan)}; {_rows(plan)}; {_updates(plan)}",
        f"plan: memory {_memory(plan)}",
        f"plan: disk {_disk(plan)}",
    ]


def table(plan: RunPlan) -> str:
    """All of it, one thing a line."""
    return _aligned(_lines(plan))


def memory_table(plan: RunPlan) -> str:
    """What concerns memory, where no more is known yet."""
    return _aligned([("model", _model(plan)), *_memory_lines(plan), *_advice(plan)])


def _aligned(lines: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<{WIDTH}} {text}".rstrip() for name, text in lines)


def _lines(plan: RunPlan) -> Iterator[tuple[str, str]]:
    yield "model", _model(plan)
    yield "data", _rows(plan)
    yield "updates", _updates(plan)
    yield from _memory_lines(plan)
    yield "disk", _disk(plan)
    yield "time", _time(plan)
    yield from _advice(plan)
    for text in faster(plan):
        yield "faster", text


def _memory_lines(plan: RunPlan) -> Iterator[tuple[str, str]]:
    yield "memory", _memory(plan)
    for name, size in asdict(plan.memory).items():
        if size:
            yield "", f"{name:<12}{size_text(size):>9}{_where(plan, name)}"


def _advice(plan: RunPlan) -> Iterator[tuple[str, str]]:
    for text in to_fit(plan):
        yield "to fit", text


def _model(plan: RunPlan) -> str:
    counted = plan.parameters
    text = f"{count_text(counted.total)} parameters"
    if counted.active < counted.total:
        text += f", {count_text(counted.active)} of them active for a token"
    return text


def _rows(plan: RunPlan) -> str:
    rows = plan.rows
    about = "about " if rows.estimated_from else ""
    text = f"{about}{rows.count:,} sequences of {plan.config.max_seq_len} tokens"
    if rows.estimated_from:
        text += f" (estimated from {size_text(rows.estimated_from)} of text)"
    return text


def _updates(plan: RunPlan) -> str:
    config, ranks = plan.config, plan.ranks
    steps = "optimizer step" if plan.updates == 1 else "optimizer steps"
    return (
        f"{plan.updates:,} {steps} of {rows_per_update(config, ranks):,} sequences, "
        f"{plan.tokens_per_update:,} tokens each, on {ranks} rank{'s' if ranks > 1 else ''}"
    )


def _memory(plan: RunPlan) -> str:
    machine = plan.machine
    how = "" if plan.measured else "about "
    text = f"{how}{size_text(plan.bytes_of_a_rank)} a rank"
    if plan.room is None or machine.memory is None:
        return text
    text += f" of {size_text(machine.memory)} ({machine.name}"
    if machine.free is not None:
        text += f", {size_text(machine.free)} free now"
    shared = f" for {machine.ranks} ranks" if machine.ranks > 1 else ""
    if plan.cannot_fit:
        verdict = "cannot fit"
    elif not plan.fits:
        verdict = "may not fit"
    else:
        verdict = "fits"
    return f"{text}){shared}: {verdict}"


def _where(plan: RunPlan, name: str) -> str:
    on_host = name == "checkpoint" and plan.machine.device != "cpu"
    return " (in the host's memory)" if on_host else ""


def _disk(plan: RunPlan) -> str:
    disk, config = plan.disk, plan.config
    parts = [
        f"checkpoints {size_text(disk.checkpoints)} in {config.checkpoint_dir}",
        f"weights {size_text(disk.weights)} in {config.save_dir}",
    ]
    if disk.store:
        parts.append(f"tokenised text {size_text(disk.store)}")
    text = ", ".join(parts)
    if disk.free is None:
        return text
    verdict = "" if disk.suffices else ": NOT ENOUGH"
    return f"{text}; {size_text(disk.free)} free{verdict}"


def _time(plan: RunPlan) -> str:
    seconds, one = plan.seconds, plan.seconds_per_update
    if seconds is None or one is None:
        return "unknown: `minimind plan` measures it, or estimates it for a card with --on"
    if plan.measured:
        return f"{long_duration(seconds)} (measured here: {long_duration(one)} an update)"
    return (
        f"about {long_duration(seconds)} (estimated: {TYPICAL_MFU:.0%} of the "
        f"{plan.machine.name}'s data sheet)"
    )
