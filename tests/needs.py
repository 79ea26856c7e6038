"""What a test needs of the machine."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """Skip a test whose machine lacks something; in CI, which has it all, that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"not in CI: {what}")
    pytest.skip(what)
