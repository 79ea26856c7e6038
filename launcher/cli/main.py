"""The launcher's command line. Each command has its file; heavy imports wait inside them."""

from __future__ import annotations

from collections.abc import Callable

import typer

from launcher.cli import image
from launcher.cli.cancel import cancel
from launcher.cli.doctor import doctor
from launcher.cli.drill import drill
from launcher.cli.list import list_runs
from launcher.cli.logs import logs
from launcher.cli.report import report
from launcher.cli.requeue import requeue
from launcher.cli.run import run
from launcher.cli.status import status
from launcher.cli.submit import submit
from launcher.cli.sweep import sweep
from launcher.cli.why import why
from minimind.errors import EXIT_CANCELLED, EXIT_USER_ERROR, MiniMindError
from minimind.system.terminal import complain, print_anything

app = typer.Typer(
    name="launcher",
    help="Submit MiniMind pretraining to Slurm, or run it here; survive everything, lose nothing.",
    no_args_is_help=True,
    epilog="Example: launcher submit --nodes 2 --gpus 8 -- --data_path /shared/corpus.jsonl",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
COMMANDS: tuple[tuple[str, Callable[..., int], str], ...] = (
    ("submit", submit, "--nodes 2 --gpus 8 --time 8:00:00 -- --data_path /shared/corpus.jsonl"),
    ("run", run, "--procs 2 -- --max_steps 100"),
    ("sweep", sweep, "--vary learning_rate=1e-3,5e-4 -- --data_path /shared/corpus.jsonl"),
    ("status", status, "first --watch"),
    ("list", list_runs, "--json"),
    ("logs", logs, "first -f --rank 1"),
    ("why", why, "first"),
    ("report", report, "first --serve"),
    ("cancel", cancel, "first"),
    ("requeue", requeue, "first"),
    ("doctor", doctor, "--nodes 2 --gpus 8"),
    ("drill", drill, "--nodes 2 --only term --only kill"),
)
"""Name, function and example of every command, in the order of ``--help``."""

for _name, _function, _example in COMMANDS:
    app.command(_name, epilog=f"Example: launcher {_name} {_example}")(_function)
app.add_typer(image.app, name="image")


def main(argv: list[str] | None = None) -> int | None:
    """Runs one command and returns its exit status; a user's mistake is one line and 2."""
    print_anything()
    try:
        result = app(args=argv, prog_name="launcher", standalone_mode=False)
    except (MiniMindError, OSError) as error:
        return complain("launcher", error)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return EXIT_CANCELLED
    except KeyboardInterrupt:
        return EXIT_CANCELLED
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "show"):
            error.show()
            return EXIT_USER_ERROR
        raise
    return result if isinstance(result, int) else 0
