"""``minimind report``: a run, or several, as one HTML page."""

from __future__ import annotations

import argparse
import contextlib
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from minimind.cli.common_flags import add_json_flag
from minimind.errors import EXIT_DONE, ConfigError
from minimind.report.figures import summary
from minimind.report.page import render
from minimind.report.read import read_run
from minimind.system.command_line import Parser
from minimind.system.durable import write_text_durably
from minimind.system.terminal import print_json, size_text

EXAMPLES = """\
Examples:
  minimind report runs/my-run              # writes runs/my-run/report.html
  minimind report out --png pictures       # a run without a launcher; charts as PNG too
  minimind report runs/adamw runs/muon --out compare.html
  minimind report runs/my-run --serve      # a page that follows the run, in a browser here
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="minimind report",
        description="Write one self-contained HTML page about a run, or about several side by "
        "side:\ncurves, attempts and lost time, samples of text, flags, environment. Reads the "
        "run\nfolders only, also while a run goes on.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "run",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="a run folder of the launcher's, or the --save_dir of a run",
    )
    parser.flag(
        "out",
        type=Path,
        metavar="FILE",
        help="the page (default: RUN/report.html; of several runs: report.html here)",
    )
    parser.flag(
        "png",
        nargs="?",
        const="",
        metavar="DIR",
        help="draw the charts as PNG too, into DIR (default: beside the page)",
    )
    parser.flag(
        "serve",
        nargs="?",
        type=int,
        const=0,
        metavar="PORT",
        help="write nothing, and show a page that follows the runs to a browser on this machine, "
        "until Ctrl-C (default: a free port)",
    )
    parser.flag("title", default="", help="heading of the page (default: the names of the runs)")
    add_json_flag(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError where a folder is no run, or the page cannot be written."""
    args = build_parser().parse_args(list(argv))
    if args.serve is not None:
        return _serve(args)
    runs = [read_run(path) for path in args.run]
    page = args.out or (args.run[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    if page.is_dir():
        raise ConfigError(f"--out {page} is a folder; name a file, as {page / 'report.html'}")
    pictures = page.parent if args.png == "" else args.png and Path(args.png)
    written = [page]
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_text_durably(page, render(runs, args.title))
    except OSError as error:
        raise ConfigError(f"--out {page} cannot be written: {error.strerror}") from None
    if pictures:
        from minimind.charts.png import write_pictures

        try:
            written += write_pictures(runs, pictures)
        except OSError as error:
            raise ConfigError(f"--png {pictures} cannot be written: {error.strerror}") from None
    if args.json:
        print_json({"files": [str(path) for path in written], "runs": [summary(r) for r in runs]})
    else:
        for path in written:
            print(f"{path} ({size_text(path.stat().st_size)})")
    return EXIT_DONE


def _serve(args: argparse.Namespace) -> int:
    """Raises ConfigError where a folder is no run, or the port cannot be had."""
    from minimind.report.serve import HOST, LivePage, Server

    for flag in ("out", "png"):
        if getattr(args, flag) is not None:
            raise ConfigError(f"--serve writes no file: leave --{flag} out")
    page = LivePage(args.run, args.title)
    page()  # what cannot be read ends the command, not the first window
    with Server(args.serve, page) as server:
        port = server.server_port
        if args.json:
            print_json({"link": server.link, "port": port})
        else:
            print(f"{server.link}\nThe link is for you alone: who has it sees these runs.")
            print(f"From another machine first: ssh -N -L {port}:{HOST}:{port} {platform.node()}")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return EXIT_DONE
