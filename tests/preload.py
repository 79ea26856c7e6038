"""What the server of test processes has done before it forks any: imports, and one picture.

Each forked run would else do it again. It starts no thread, which a fork would not copy.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

from minimind.charts.loss_curve import plot_loss_curve

LOADED_LATE = (
    "minimind.distributed.local_ranks",
    "minimind.train_pretrain",
    "minimind.training.pretrain",
    "numpy.random",
    "tokenizers.decoders",
    "tomli_w",
    "torch.utils.serialization.config",
)
"""Of what a run loads."""

for name in LOADED_LATE:
    importlib.import_module(name)

with tempfile.TemporaryDirectory() as folder:
    plot_loss_curve(Path(folder, "metrics.jsonl"), Path(folder, "loss_curve.png"))
