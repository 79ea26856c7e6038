from __future__ import annotations

import pytest
import torch

from minimind.distributed.device import pick_device
from minimind.errors import ConfigError


def test_cuda_that_is_not_there_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="use --device cpu"):
        pick_device("cuda:3", 0, False)
    assert pick_device("", 0, False).type == "cpu"
