"""``minimind plan``: what a run would take, before it starts."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from minimind.cli.common_flags import add_json_flag
from minimind.config import TrainConfig, parse_args, take_procs
from minimind.errors import EXIT_DONE, EXIT_USER_ERROR, OutOfMemoryError
from minimind.planning.cards import CARDS
from minimind.planning.model import likely_vocabulary
from minimind.planning.rows import Rows, estimate_rows
from minimind.planning.run_plan import RunPlan, as_dict, card, plan_run, this_host
from minimind.planning.text import table
from minimind.system.command_line import Parser
from minimind.system.terminal import note, print_json

DESCRIPTION = """\
Say what a run would take: parameters, updates, memory, disk, time to the end, and what would make
it fit or faster. Nothing is tokenised, and nothing written but compiled code. A few micro-batches
are trained to measure time and memory on this machine; where torch is missing, or with --on, all is
arithmetic.

It takes the flags of `minimind pretrain` (--procs and --config too): give those of your run. It
ends with 2 where the model cannot fit."""

EXAMPLES = """\
Examples:
  minimind plan --hidden_size 768 --num_hidden_layers 16
  minimind plan --hidden_size 768 --num_hidden_layers 16 --on 4090 --procs 8
"""


def build_parser() -> Parser:
    parser = Parser(prog="minimind plan", description=DESCRIPTION, epilog=EXAMPLES)
    parser.flag(
        "on",
        choices=tuple(CARDS),
        metavar="CARD",
        help=f"estimate for one of these a rank, by its data sheet: {', '.join(CARDS)}",
    )
    add_json_flag(parser)
    parser.set_defaults(takes_train_flags=True)
    return parser


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError or DataError for flags, or text, that cannot be used."""
    args, rest = build_parser().parse_known_args(list(argv))
    flags, procs = take_procs(rest)
    plan = make_plan(parse_args(flags), args, procs)
    if args.json:
        print_json(as_dict(plan))
    else:
        print(table(plan))
    return EXIT_USER_ERROR if plan.cannot_fit else EXIT_DONE


def make_plan(config: TrainConfig, args: argparse.Namespace, ranks: int) -> RunPlan:
    """Measured where that can be, else by arithmetic."""
    vocab_size = likely_vocabulary(config)
    rows = known_rows(config) or estimate_rows(config)
    if args.on:
        return plan_run(
            config,
            rows,
            card(args.on, config.dtype),
            vocab_size=vocab_size,
            dtype=config.dtype,
            ranks=ranks,
            compiled=config.compile != "off",
        )
    if importlib.util.find_spec("torch") is None:
        note("torch is not installed here: nothing is measured")
        return plan_run(
            config,
            rows,
            this_host(ranks),
            vocab_size=vocab_size,
            dtype=config.dtype,
            ranks=ranks,
        )
    return _measured(config, rows, vocab_size, ranks)


def _measured(config: TrainConfig, rows: Rows, vocab_size: int, ranks: int) -> RunPlan:
    from minimind.distributed.device import pick_device
    from minimind.distributed.world import World
    from minimind.telemetry.console import PACKAGE_LOGGER
    from minimind.training.execution import check_machine, choose_dtype
    from minimind.training.preflight import machine_of, plan_on
    from minimind.training.trial import measure

    device = pick_device(config.device, local_rank=0, distributed=False)
    check_machine(config, device)
    dtype = choose_dtype(config, World(rank=0, world_size=1, local_rank=0, device=device))
    plan = plan_on(config, rows, machine_of(device, ranks), vocab_size, dtype, ranks)
    if not plan.fits:
        note("this may not fit: nothing is measured")
        return plan
    # What training says of compiling is for a log; the table is the answer here.
    logging.getLogger(PACKAGE_LOGGER).addHandler(logging.StreamHandler(sys.stderr))
    note("measuring a few micro-batches …")
    try:
        return replace(plan, measured=measure(plan))
    except OutOfMemoryError as error:
        note(f"nothing is measured: {error}")
        return plan


def known_rows(config: TrainConfig) -> Rows | None:
    """The rows themselves, where the text is tokenised already; None where that is not known."""
    try:
        from minimind.data.tokenize.build import find_corpora
    except ModuleNotFoundError:
        return None
    stores = find_corpora(config)
    if stores is None:
        return None
    from minimind.data.packing import plan_rows

    return Rows(sum(plan_rows(s, config.max_seq_len, config.pack).n_rows for s in stores))
