"""The files of the image's entrypoint, importable as they are inside the image."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "docker"))
