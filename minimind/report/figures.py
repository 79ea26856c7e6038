"""What a run comes down to: a few numbers, for people and for scripts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from minimind.report.read import RunRecord
from minimind.report.words import counted, share
from minimind.system.terminal import count_text, long_duration


def figures(run: RunRecord) -> list[tuple[str, str, str]]:
    """What a run comes down to: name, figure, remark."""
    loss, held_out, bits = (run.last(key) for key in ("loss", "eval_loss", "bits_per_byte"))
    tokens, speed, mfu = run.last("tokens"), run.typical("tokens_per_second"), run.typical("mfu")
    books = run.account
    total = run.total_steps
    done = f"{100 * run.step / total:.0f}% of {total:,}" if total else ""
    stops = max(0, len(books.attempts) - 1)
    lost = f"{counted(books.lost_steps, 'step')} done twice"
    less = "" if run.launched else ", less start-up"
    return [
        ("loss", _figure(loss, ".3f"), "nats per token"),
        ("held-out loss", _figure(held_out, ".3f"), f"{bits:.3f} bits per byte" if bits else ""),
        ("steps", f"{run.step:,}", done),
        ("tokens", count_text(tokens) if tokens else "–", "of text seen"),
        ("speed", _figure(speed, ",.0f"), "tokens a second"),
        ("MFU", share(mfu), "of the peak"),
        ("goodput", share(books.goodput), f"of {long_duration(books.total)}{less}"),
        ("interruptions", str(stops), lost if stops else ""),
    ]


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def summary(run: RunRecord) -> dict[str, Any]:
    """The figures of a run for scripts: plain numbers, seconds and shares."""
    tokens = run.last("tokens")
    return {
        "run": run.name,
        "folder": str(run.folder),
        "state": run.state,
        "reason": run.reason,
        "step": run.step,
        "total_steps": run.total_steps,
        "tokens": None if tokens is None else int(tokens),
        **{key: _finite(run.last(key)) for key in ("loss", "eval_loss", "bits_per_byte")},
        **{key: _finite(run.last(key)) for key in ("learning_rate", "grad_norm")},
        **{key: run.typical(key) for key in ("tokens_per_second", "mfu")},
        "ledger": run.account.to_dict(),
        "attempts": [dataclasses.asdict(attempt) for attempt in run.account.attempts],
        "samples": len(run.samples),
    }


def _finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None
