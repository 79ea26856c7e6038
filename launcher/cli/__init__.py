"""The launcher's command line: one module a group of commands."""

from launcher.cli.main import app, main

__all__ = ["app", "main"]
