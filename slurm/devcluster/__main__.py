"""``python slurm/devcluster up|down|status``: needs nothing but Python and Slurm."""

from __future__ import annotations

import sys
from pathlib import Path

# Run as a folder, so make the folder importable as the package it is.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from devcluster.cli import main

if __name__ == "__main__":
    sys.exit(main())
