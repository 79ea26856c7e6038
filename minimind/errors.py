"""The errors a user can cause, each with the exit code that the process ends with."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_CRASHED = 1
EXIT_USER_ERROR = 2
EXIT_RUN_ME_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: stopped on request after a durable checkpoint."""
EXIT_NOT_FOUND = 127
"""As a shell says that there is no such program."""
EXIT_CANCELLED = 130
"""128 + SIGINT: ended by Ctrl-C, or cancelled for good."""
EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE: nobody reads the output any more."""
EXIT_TERMINATED = 143
"""128 + SIGTERM: ended before it could save, or because a newer attempt has begun."""


def as_shell_code(code: int | None) -> int | None:
    """A return code of ``subprocess`` as a shell gives it: 128 + N where signal N ended it."""
    return 128 - code if code is not None and code < 0 else code


class MiniMindError(Exception):
    """An error with one clear line for the user; ``exit_code`` is what the process returns."""

    exit_code = EXIT_CRASHED

    reported_elsewhere = False
    """Another rank says it; this one need not repeat it on the console."""


class ConfigError(MiniMindError):
    """A flag or config file is wrong; nothing has started. The message says what to change."""

    exit_code = EXIT_USER_ERROR


class DataError(MiniMindError):
    """Input data cannot be used. The message names the file and, where it can, the line."""

    exit_code = EXIT_USER_ERROR


class WeightsError(MiniMindError):
    """A weight or checkpoint file is missing, damaged, unsafe or of another shape."""

    exit_code = EXIT_USER_ERROR


class RanksDifferError(MiniMindError):
    """Ranks read different things under one name, and went on doing so for two minutes.

    Longer than a network file system keeps what it has read: so it is how the hosts are set up,
    and the same command would end the same way again.
    """

    exit_code = EXIT_USER_ERROR


class LostRankError(MiniMindError):
    """Another rank has ended, or shows no progress; the message names it."""


class NonFiniteLossError(MiniMindError):
    """The loss is NaN or infinite; the message names step, rows and last good checkpoint."""


class OutOfMemoryError(MiniMindError):
    """The run asked for more memory than there is; the message names the flags to lower."""


class SubmissionError(MiniMindError):
    """Slurm or the machine refused the job; the message is what it said."""


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)
