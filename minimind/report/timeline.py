"""The part of the page about time: a run's attempts, and what its seconds went into."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minimind.report.read import RunRecord
from minimind.report.svg import bar
from minimind.report.words import counted, moment, share, text
from minimind.rundir import causes
from minimind.rundir.goodput import PHASES, Attempt
from minimind.rundir.slowness import slowest
from minimind.system.terminal import long_duration

PHASE_WORDS = {
    "queue": "waiting",
    "startup": "starting up",
    "training": "training",
    "checkpoint_stall": "held up by checkpoints",
    "lost": "trained, but lost",
}

SECTION_WORDS = {
    "data": "waiting for data",
    "compute": "forward and backward",
    "optimizer": "optimiser",
    "checkpoint": "checkpoint",
    "other": "the rest",
}
LEAST_SHARE = 0.0005
"""Less would be shown as 0.0%: it is left out of the legend."""


def time_cards(runs: Sequence[RunRecord]) -> str:
    """One card a run; empty where nothing is on record."""
    return "".join(_time_card(run, named=len(runs) > 1) for run in runs)


def _time_card(run: RunRecord, named: bool) -> str:
    books = run.account
    if not books.spans:
        return ""
    head = f'<h3 class="head">{text(run.label)}</h3>' if named else ""
    start = books.spans[0].start
    end = books.spans[-1].end
    parts = []
    clock = start
    # Between two submissions nobody waits: that time is shown, and counted nowhere.
    for span in books.spans:
        if span.start > clock:
            parts.append(("", (span.start - clock) / (end - start), "not submitted"))
        words = f"{PHASE_WORDS[span.phase]}: {long_duration(span.seconds)}"
        parts.append((span.phase, span.seconds / (end - start), words))
        clock = span.end
    keys = "".join(
        f'<span><span class="dot {phase}"></span>{PHASE_WORDS[phase]} '
        f"<b>{long_duration(books.seconds(phase))}</b> "
        f"{share(books.seconds(phase) / books.total)}</span>"
        for phase in PHASES
        if books.seconds(phase) >= LEAST_SHARE * books.total
    )
    attempts = "".join(
        _attempt(run, attempt, last=attempt is books.attempts[-1]) for attempt in books.attempts
    )
    note = ""
    if not run.launched:
        note = (
            '<p class="soft small note">Without the launcher, it is not on record how long an '
            "attempt took to start, or why it ended.</p>"
        )
    return (
        f'<div class="card">{head}'
        f"{bar(parts, f'{share(books.goodput)} of the time went into steps that count')}"
        f'<div class="clock"><span>{moment(start)}</span><span>{moment(end)}</span></div>'
        f'<div class="keys">{keys}</div><ul class="attempts">{attempts}</ul>{note}'
        f"{_step_split(run)}</div>"
    )


def _attempt(run: RunRecord, attempt: Attempt, last: bool) -> str:
    steps = "no step"
    if attempt.trained:
        steps = f"step {attempt.first_step:,} to {attempt.furthest_step:,}"
    nodes = f" on {text(attempt.nodes)}" if attempt.nodes else ""
    more = ""
    if attempt.lost_steps:
        lost = f"{counted(attempt.lost_steps, 'step')} lost, {long_duration(attempt.lost_seconds)}"
        more += f' <span class="cost">{lost}</span>'
    if attempt.went_back_from:
        more += f"<br>went back from step {attempt.went_back_from:,} to {attempt.first_step:,}"
    if attempt.error and attempt.cause != causes.DONE:
        more += f'<br><span class="soft small">{text(attempt.error)}</span>'
    until = long_duration(max(0.0, (attempt.ended or run.now) - attempt.began))
    return (
        f'<li><span class="n">{attempt.number}</span>'
        f"<span>{text(_ending(run, attempt, last))}{more}</span>"
        f'<span class="right">{steps}{nodes} · {until}</span></li>'
    )


def _ending(run: RunRecord, attempt: Attempt, last: bool) -> str:
    if attempt.cause:
        code = attempt.exit_code
        crashed = attempt.cause == causes.CRASH and code is not None
        return causes.described(attempt.cause) + (f" (exit code {code})" if crashed else "")
    if last:
        words = {"running": "goes on", "done": "finished", "stopped": "ended, and not resumed yet"}
        return words.get(run.state, "its end is not on record")
    return "interrupted" if attempt.lost_steps else "stopped after a checkpoint, and resumed"


def _step_split(run: RunRecord) -> str:
    """What the time between log lines went into."""
    names = ("data", "compute", "optimizer", "checkpoint")
    sums = {name: sum(float(p.get(f"{name}_seconds", 0.0)) for p in run.points) for name in names}
    elapsed = sum(float(p.get("elapsed_seconds", 0.0)) for p in run.points)
    sums["other"] = max(0.0, elapsed - sum(sums.values()))
    total = sum(sums.values())
    if not math.isfinite(total) or total <= 0:
        return ""
    keys = "".join(
        f'<span><span class="dot {name}"></span>{SECTION_WORDS[name]} '
        f"<b>{share(sums[name] / total)}</b></span>"
        for name in sums
        if sums[name] / total >= LEAST_SHARE
    )
    parts = [(name, value / total, SECTION_WORDS[name]) for name, value in sums.items()]
    slow = slowest(run.points)
    note = f'<p class="soft small note">{text(slow)}.</p>' if slow else ""
    return (
        '<h3 class="head apart">Within a step</h3>'
        f"{bar(parts, 'where the time of a step goes', thin=True)}"
        f'<div class="keys below">{keys}</div>{note}'
    )
