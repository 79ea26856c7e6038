"""The disk that a run needs for its text, checkpoints and weights, and what is free."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from minimind.config import TrainConfig
from minimind.data.token_type import TOKEN_BYTES, token_type
from minimind.planning.memory import FLOAT32, HALF, optimizer_bytes
from minimind.planning.parameters import Parameters
from minimind.rundir.layout import checkpoints_of


@dataclass(frozen=True)
class Disk:
    """In bytes.

    Attributes:
        store: of the tokenised text; 0 where it is there already.
        checkpoints: those that are kept, and the one that is written meanwhile.
        weights: the file for other programs, old and new.
        there: of them already, from the run that is resumed.
        free: where the checkpoints go; None: not known.
    """

    store: int
    checkpoints: int
    weights: int
    there: int
    free: int | None

    @property
    def suffices(self) -> bool:
        """Whether there is room for the rest; True where that is not known."""
        wanted = self.store + self.checkpoints + self.weights - self.there
        return self.free is None or wanted <= self.free


def disk_of(config: TrainConfig, counted: Parameters, new_tokens: int, vocab_size: int) -> Disk:
    """What a run with these flags writes.

    Args:
        new_tokens: of text that is not tokenised yet.
    """
    one = FLOAT32 * counted.total + optimizer_bytes(counted, config.optimizer)
    return Disk(
        store=new_tokens * TOKEN_BYTES[token_type(vocab_size)],
        checkpoints=(config.keep_checkpoints + 1) * one,
        weights=2 * HALF * counted.total,
        there=0 if config.from_resume == "0" else _checkpoint_bytes(config.checkpoint_file),
        free=free_bytes(Path(config.checkpoint_dir)),
    )


def _checkpoint_bytes(newest: Path) -> int:
    """Of a run's checkpoints, the newest and those before it; 0 where they cannot be seen."""
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in checkpoints_of(newest))
    return 0


def free_bytes(folder: Path) -> int | None:
    """Free space where ``folder`` is, or is going to be; None: not known."""
    for place in (folder.absolute(), *folder.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
