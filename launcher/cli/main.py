"""The launcher's command line. Commands live in cli_*.py; heavy imports wait inside them."""

from __future__ import annotations

import sys

import typer

from launcher.cli import image as cli_image
from launcher.cli import runs as cli_runs
from launcher.cli import site as cli_site
from launcher.cli import submit as cli_submit
from launcher.cli import sweep as cli_sweep
from minimind.errors import EXIT_CRASHED, EXIT_USER_ERROR, MiniMindError
from minimind.system.terminal import one_line, print_anything

app = typer.Typer(
    name="launcher",
    help="Submit MiniMind pretraining to Slurm, or run it here; survive everything, lose nothing.",
    no_args_is_help=True,
    epilog="Example: launcher submit --nodes 2 --gpus 8 -- --data_path /shared/corpus.jsonl",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
cli_submit.register(app)
cli_sweep.register(app)
cli_runs.register(app)
cli_site.register(app)
cli_image.register(app)


def main(argv: list[str] | None = None) -> int | None:
    """Runs one command and returns its exit status; a user's mistake is one line and 2."""
    print_anything()
    try:
        result = app(args=argv, prog_name="launcher", standalone_mode=False)
    except MiniMindError as error:
        print(f"launcher: error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"launcher: error: {one_line(error)}", file=sys.stderr)
        return EXIT_CRASHED
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "show"):
            error.show()
            return EXIT_USER_ERROR
        raise
    return result if isinstance(result, int) else 0
