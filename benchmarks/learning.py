"""Held-out loss against real tokens and against wall time: our recipe against upstream's.

Upstream's recipe is its own train_pretrain.py with its defaults (AdamW at 5e-4, cosine to a
tenth without warm-up, one padded document a row, 32 rows × 8), run unchanged from --upstream
DIR, with our tokenizer so that losses compare token by token. Ours are one or more --variant
NAME=FLAGS, each given --budget of upstream's real tokens and a schedule of that length. All
weights, ours and upstream's, are scored by the same `minimind eval` on the same held-out
documents; scoring is in nobody's time.

For each seed and variant: the share of upstream's tokens, and of its seconds, at which ours
first has the loss that upstream ends with (between two scores the loss counts as linear).
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import (
    BenchmarkError,
    Report,
    Spread,
    environment,
    main,
    make_parser,
    number,
    read_result,
    run_process,
    say,
    spread,
    table,
    trainer_command,
    verdict,
    work_folder,
)
from benchmarks.corpus import benchmark_corpus
from benchmarks.peers.upstream import check_clone, scratch_folder
from minimind.data.tokenizer import tokenizer_folder
from minimind.rundir.metrics import read_metrics
from minimind.system.process import available_cores

TIME_TARGET, TOKEN_TARGET = 30.0, 50.0
DEFAULT_VARIANTS = (
    "AdamW=--optimizer adamw --learning_rate 2e-3 --beta2 0.99 --warmup_ratio 0.6 --batch_size 2 "
    "--accumulation_steps 1",
    "fast=--recipe fast --batch_size 8 --accumulation_steps 1",
)


@dataclass(frozen=True)
class Point:
    """A score in mid-training."""

    tokens: float
    """Real tokens trained so far."""
    seconds: float
    """Of training so far, scoring not counted."""
    loss: float
    """Held-out, nats per token."""


def crossing(curve: Sequence[Point], loss: float) -> Point | None:
    """Where a curve first reaches ``loss``, on the line between two scores; None: never."""
    before: Point | None = None
    for point in curve:
        if point.loss <= loss:
            if before is None:
                return point
            share = (before.loss - loss) / (before.loss - point.loss)
            return Point(
                tokens=before.tokens + share * (point.tokens - before.tokens),
                seconds=before.seconds + share * (point.seconds - before.seconds),
                loss=loss,
            )
        before = point
    return None


def mean_curve(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean over seeds, point by point."""
    return [
        Point(*(sum(values) / len(values) for values in zip(*map(_values, points), strict=True)))
        for points in zip(*curves, strict=False)
    ]


def _values(point: Point) -> tuple[float, float, float]:
    return point.tokens, point.seconds, point.loss


class Learning:
    """The runs of one comparison."""

    def __init__(self, args: Any, work: Path) -> None:
        self.args = args
        self.work = work
        made = benchmark_corpus(work)
        self.train = Path(args.data_path).resolve() if args.data_path else made[0]
        self.held_out = Path(args.eval_data_path).resolve() if args.eval_data_path else made[1]
        self.cache = work / "cache"
        self.model = {
            "hidden_size": args.hidden_size,
            "num_hidden_layers": args.num_hidden_layers,
            "max_seq_len": args.max_seq_len,
        }

    def score(self, weights: Sequence[Path]) -> list[dict[str, Any]]:
        """What ``minimind eval`` says of each file."""
        command = [sys.executable, "-m", "minimind", "eval", "--json"]
        command += ["--weight", *map(str, weights), "--data_path", str(self.held_out)]
        command += ["--max_seq_len", str(self.args.max_seq_len), "--cache_dir", str(self.cache)]
        output, _ = run_process(command)
        # Warnings may come before the JSON.
        return json.loads(output[output.index("[\n") :])

    def upstream(self, seed: int) -> list[Point]:
        args = self.args
        folder = self.work / "upstream" / f"seed{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        given = {
            "upstream": Path(args.upstream).resolve(),
            "curve": folder / "weights",
            "interval": args.upstream_interval,
            "seed_offset": seed,
            **self.model,
            "data_path": self.train,
            "epochs": args.upstream_epochs,
            "batch_size": args.upstream_batch_size,
            "accumulation_steps": args.upstream_accumulation_steps,
            "learning_rate": args.upstream_learning_rate,
            "num_workers": min(8, available_cores()),
        }
        command = [sys.executable, "-m", "benchmarks.peers.upstream"]
        command += [word for name, value in given.items() for word in (f"--{name}", str(value))]
        home = {"HF_HOME": str(self.work / "huggingface"), "HF_HUB_OFFLINE": "1"}
        output, _ = run_process(
            command,
            env=environment(args.threads, peers=True, **home),
            cwd=scratch_folder(folder, tokenizer_folder()),
        )
        points = read_result(output)["points"]
        scores = self.score([Path(p["weights"]) for p in points])
        say(
            f"upstream, seed {seed}: {scores[-1]['loss']:.4f} after {points[-1]['tokens']:,} tokens"
        )
        return [
            Point(p["tokens"], p["seconds"], s["loss"]) for p, s in zip(points, scores, strict=True)
        ]

    def ours(self, name: str, flags: str, seed: int, tokens: float) -> list[Point]:
        """One variant over ``tokens`` real tokens."""
        folder = self.work / "ours" / f"{name}-seed{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        given = {
            **self.model,
            "data_path": self.train,
            "cache_dir": self.cache,
            "save_dir": folder / "out",
            "checkpoint_dir": folder / "checkpoints",
            "seed": 42 + seed,
            "epochs": 1000,
            "eval_data_path": self.held_out,
        }
        per_update = self._rows_per_update(flags) * self.args.max_seq_len
        updates = max(1, round(tokens / per_update))
        micro_steps = updates * self._accumulation_steps(flags)
        interval = max(1, micro_steps // self.args.points)
        given |= {"max_steps": updates, "eval_interval": interval, "log_interval": interval}
        run_process(trainer_command(given, flags), env=environment(self.args.threads))
        curve = curve_of(folder / "out" / "metrics.jsonl")
        # The last score again by the very command that scores upstream.
        final = self.score([folder / "out" / f"pretrain_{self.args.hidden_size}.pth"])[0]["loss"]
        say(f"{name}, seed {seed}: {final:.4f} after {curve[-1].tokens:,.0f} tokens")
        return [*curve[:-1], Point(curve[-1].tokens, curve[-1].seconds, final)]

    @staticmethod
    def _flag(flags: str, name: str, default: int) -> int:
        from minimind.config import parse_args

        return int(getattr(parse_args(flags.split()), name, default))

    def _rows_per_update(self, flags: str) -> int:
        return self._flag(flags, "batch_size", 0) * self._accumulation_steps(flags)

    def _accumulation_steps(self, flags: str) -> int:
        return self._flag(flags, "accumulation_steps", 0)


def curve_of(metrics: Path) -> list[Point]:
    """Held-out losses of one of our runs, with the tokens and training seconds until each.

    Raises:
        BenchmarkError: there is none.
    """
    curve: list[Point] = []
    seconds = tokens = 0.0
    for record in read_metrics(metrics):
        if "elapsed_seconds" in record:
            seconds += record["elapsed_seconds"]
            tokens = record["tokens"]
        elif "eval_loss" in record:
            curve.append(Point(tokens, seconds, record["eval_loss"]))
    if not curve:
        raise BenchmarkError(f"{metrics} holds no held-out loss")
    return curve


def draw(path: Path, curves: Mapping[str, list[list[Point]]]) -> None:
    """Both pictures side by side: against tokens and against time; a thin line for each seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    by_tokens, by_time = figure.subplots(1, 2, sharey=True)
    for number_, (name, found) in enumerate(curves.items()):
        color = f"C{number_}"
        for curve in found:
            losses = [p.loss for p in curve]
            by_tokens.plot([p.tokens / 1e6 for p in curve], losses, color=color, lw=0.6, alpha=0.5)
            by_time.plot([p.seconds / 60 for p in curve], losses, color=color, lw=0.6, alpha=0.5)
        mean = mean_curve(found)
        losses = [p.loss for p in mean]
        label = f"{name} (ends at {losses[-1]:.3f})"
        by_tokens.plot([p.tokens / 1e6 for p in mean], losses, color=color, lw=1.8, label=label)
        by_time.plot([p.seconds / 60 for p in mean], losses, color=color, lw=1.8, label=label)
    if "upstream" in curves:
        end = mean_curve(curves["upstream"])[-1].loss
        for axis in (by_tokens, by_time):
            axis.axhline(end, color="C0", lw=0.8, ls="--")
    by_tokens.set_xlabel("real tokens trained (millions)")
    by_time.set_xlabel("training time (minutes)")
    by_tokens.set_ylabel("held-out loss (nats per token)")
    by_tokens.legend(frameon=False)
    for axis in (by_tokens, by_time):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def run() -> None:
    parser = make_parser("learning", __doc__, "--upstream ../minimind --seeds 3")
    parser.add_argument("--upstream", default="", metavar="DIR", help="a clone of MiniMind")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--variant",
        action="append",
        metavar="NAME=FLAGS",
        help=f"ours; may be repeated (default: {'; '.join(DEFAULT_VARIANTS)})",
    )
    parser.add_argument("--budget", type=float, default=0.5, help="of upstream's real tokens")
    parser.add_argument("--tokens", type=float, default=0, help="instead, without --upstream")
    parser.add_argument("--points", type=int, default=12, help="scores of each of our runs")
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--num_hidden_layers", type=int, default=4)
    parser.add_argument("--max_seq_len", type=int, default=256)
    parser.add_argument("--upstream_epochs", type=int, default=20)
    parser.add_argument("--upstream_batch_size", type=int, default=32)
    parser.add_argument("--upstream_accumulation_steps", type=int, default=8)
    parser.add_argument("--upstream_learning_rate", type=float, default=5e-4)
    parser.add_argument("--upstream_interval", type=int, default=200, help="micro-steps")
    parser.add_argument("--data_path", default="", metavar="FILE", help="jsonl, not the sample")
    parser.add_argument("--eval_data_path", default="", metavar="FILE", help="its held-out text")
    parser.add_argument("--threads", type=int, help="cores that each trainer computes on")
    parser.add_argument("--picture", default="", metavar="FILE.png", help="draw the curves")
    parser.set_defaults(repeats=1)
    args = parser.parse_args()
    variants = dict(v.partition("=")[::2] for v in args.variant or DEFAULT_VARIANTS)
    if bool(args.data_path) != bool(args.eval_data_path):
        raise BenchmarkError("--data_path and --eval_data_path go together")
    if not args.upstream and not args.tokens:
        raise BenchmarkError("name a clone with --upstream, or give --tokens to compare variants")
    if args.upstream:
        try:
            check_clone(Path(args.upstream))
        except FileNotFoundError as error:
            raise BenchmarkError(str(error)) from None

    curves: dict[str, list[list[Point]]] = {}
    with work_folder(args.work_dir) as work:
        learning = Learning(args, work)
        # Seed by seed, so that what drifts on the machine meets all alike.
        for seed in range(args.seeds):
            tokens = args.tokens
            if args.upstream:
                theirs = learning.upstream(seed)
                curves.setdefault("upstream", []).append(theirs)
                tokens = args.tokens or args.budget * theirs[-1].tokens
            for name, flags in variants.items():
                curve = learning.ours(name, flags, seed, tokens)
                curves.setdefault(name, []).append(curve)
    report = Report("learning", __doc__ or "")
    describe(report, curves, variants)
    if args.picture:
        draw(Path(args.picture), curves)
    report.publish(args)


def describe(
    report: Report, curves: Mapping[str, list[list[Point]]], variants: Mapping[str, str]
) -> None:
    """The table of ends and crossings, and the flags behind each name."""
    rows, lines = [], []
    for name, found in curves.items():
        ends = [curve[-1] for curve in found]
        row = [
            name,
            str(Spread.of([end.loss for end in ends])),
            number(Spread.of([end.tokens for end in ends]).median / 1e6),
            number(Spread.of([end.seconds for end in ends]).median),
            "",
            "",
        ]
        if name != "upstream" and "upstream" in curves:
            shares = [
                crossing_share(ours, theirs)
                for ours, theirs in zip(found, curves["upstream"], strict=True)
            ]
            reached = [share for share in shares if share is not None]
            if len(reached) == len(shares):
                row[4:] = [f"{spread(reached, key)} %" for key in ("tokens", "seconds")]
                by_tokens, by_time = (spread(reached, key).median for key in ("tokens", "seconds"))
                lines += [
                    f"- {name}, real tokens: "
                    f"{verdict(by_tokens, TOKEN_TARGET, at_most=True, unit=' %')}",
                    f"- {name}, wall time: "
                    f"{verdict(by_time, TIME_TARGET, at_most=True, unit=' %')}",
                ]
            else:
                lines.append(
                    f"- {name}: **missed**: {len(reached)} of {len(shares)} seeds reach the loss "
                    "that upstream ends with"
                )
        rows.append(row)
    columns = ["recipe", "held-out loss at its end", "million tokens", "seconds"]
    report.add(table([*columns, "upstream's loss at % tokens", "at % of the time"], rows))
    report.add("\n".join([*lines, *(f"- {name}: `{flags}`" for name, flags in variants.items())]))
    report.data["curves"] = {
        name: [[vars(point) for point in curve] for curve in found]
        for name, found in curves.items()
    }


def crossing_share(ours: Sequence[Point], theirs: Sequence[Point]) -> dict[str, float] | None:
    """Percent of upstream's tokens and seconds at which ours has the loss it ends with."""
    end = theirs[-1]
    met = crossing(ours, end.loss)
    if met is None or math.isnan(met.loss):
        return None
    return {"tokens": 100 * met.tokens / end.tokens, "seconds": 100 * met.seconds / end.seconds}


if __name__ == "__main__":
    main(run)
