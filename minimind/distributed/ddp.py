"""Where the model is wrapped for the exchange of gradients between ranks."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from minimind.distributed.device import ddp_device_ids
from minimind.distributed.world import World


def wrap(model: nn.Module, world: World) -> nn.Module:
    """Wrap the model for gradient exchange, if there is anybody to exchange with."""
    if not world.is_distributed:
        return model
    # Rotary tables are computed, not learned: nothing to broadcast.
    buffers = [name for name, _ in model.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, buffers)
    return DistributedDataParallel(
        model, device_ids=ddp_device_ids(world.device), gradient_as_bucket_view=True
    )
