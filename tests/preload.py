"""What the server of test processes has done before it forks any: imports, and one picture.

Each forked run would else do it again. It starts no thread, which a fork would not copy.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy.random
import tokenizers.decoders
import tomli_w
import torch.utils.serialization.config

import minimind.distributed.local_ranks
import minimind.train_pretrain
import minimind.training.pretrain
from minimind.charts.loss_curve import plot_loss_curve

__all__ = ["minimind", "numpy", "tokenizers", "tomli_w", "torch"]

with tempfile.TemporaryDirectory() as folder:
    plot_loss_curve(Path(folder, "metrics.jsonl"), Path(folder, "loss_curve.png"))
