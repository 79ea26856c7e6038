"""The launcher's command line: one file a command."""

from launcher.cli.main import app, main

__all__ = ["app", "main"]
