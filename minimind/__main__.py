"""``python -m minimind`` equals the ``minimind`` console script."""

import sys

from minimind.cli import program

sys.exit(program())
