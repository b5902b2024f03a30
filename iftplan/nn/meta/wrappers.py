"""Networks without the wrappers that compilers and engines put around them."""

from __future__ import annotations

from torch import nn


def bare(model: nn.Module) -> nn.Module:
    """The model inside torch.compile's, data parallel's and an engine's wrapper: weights have their own names there."""
    if not isinstance(model, nn.Module):  # whoever is given it says what it takes
        return model
    parts = model._modules
    match [part for part in parts.values() if part is not None]:
        case [nn.Module() as inner] if "_orig_mod" in parts:  # torch.compile
            return bare(inner)
        case [nn.Module() as inner] if isinstance(
            model, nn.parallel.DistributedDataParallel | nn.DataParallel
        ):
            return bare(inner)
        case [nn.Module() as inner, *_] if "_forward_module" in parts:  # lightning-fabric
            return bare(parts.get("_original_module") or inner)
        case _:
            return model
