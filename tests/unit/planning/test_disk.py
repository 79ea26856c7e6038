from __future__ import annotations

from pathlib import Path

from minimind.config import TrainConfig
from minimind.planning.disk import disk_of
from minimind.planning.model import architecture_of
from minimind.planning.parameters import count_parameters


def there(folder: Path) -> int:
    """Bytes that a resumed run with default names finds in ``folder``."""
    config = TrainConfig(checkpoint_dir=str(folder), from_resume="1")
    counted = count_parameters(architecture_of(config, 6400))
    return disk_of(config, counted, new_tokens=0, vocab_size=6400).there


def test_only_checkpoints_of_this_run_make_room(tmp_path: Path) -> None:
    for name in ("pretrain_512.pt", "pretrain_512.step0000000010.pt"):
        (tmp_path / name).write_bytes(bytes(10))
    others = ("pretrain_512_moe.pt", "pretrain_5120.pt", "pretrain_512.replaced.pt")
    for name in others:
        (tmp_path / name).write_bytes(bytes(1000))
    assert there(tmp_path) == 20


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert there(tmp_path / "later") == 0
