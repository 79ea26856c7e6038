from __future__ import annotations

import pytest
import torch

from minimind.distributed.world import World
from minimind.errors import ConfigError


def test_errors_of_work_on_main_are_raised() -> None:
    world = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))

    def fail() -> None:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        world.on_main(fail)
    with pytest.raises(ConfigError, match="no"):
        world.local_main_first(fail)
    assert world.local_main_first(lambda: 7) == 7
