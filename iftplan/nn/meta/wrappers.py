"""Networks without the wrappers that compilers, engines and averages put around them or their parts."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel

_HOLDERS = (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)


def bare(model: nn.Module) -> nn.Module:
    """The model inside torch.compile's, data parallel's, an average's or an engine's wrapper: weights have their own names there."""
    if not isinstance(model, nn.Module):  # whoever is given it says what it takes
        return model
    parts = model._modules
    match [part for part in parts.values() if part is not None]:
        case [nn.Module() as inner] if "_orig_mod" in parts:  # torch.compile
            return bare(inner)
        case [nn.Module() as inner] if isinstance(model, _HOLDERS):
            return bare(inner)
        case [nn.Module() as inner, *_] if "_forward_module" in parts:  # lightning-fabric
            return bare(parts.get("_original_module") or inner)
        case _:
            return model


def unwrapped(model: nn.Module) -> nn.Module:
    """The bare model with its submodules bare too, for looking at it: the same weights under their own names.

    Where no submodule is wrapped that is the model itself. Elsewhere only the modules around wrapped ones are made anew; all
    others, and every parameter, are the model's own.
    """
    model = bare(model)
    if not isinstance(model, nn.Module) or not _has_wrappers(model):
        return model
    return _view(model, {})


def unwrap_(model: nn.Module) -> None:
    """Put every wrapped submodule in the place of its wrapper."""
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = bare(child)


def _has_wrappers(model: nn.Module) -> bool:
    return any(bare(module) is not module for module in model.modules())


def _view(model: nn.Module, made: dict[nn.Module, nn.Module]) -> nn.Module:
    inner = bare(model)
    if inner not in made and not _has_wrappers(inner):
        made[inner] = inner
    if inner not in made:
        view = made[inner] = type(inner).__new__(type(inner))
        vars(view).update(vars(inner))
        vars(view)["_modules"] = {
            name: None if child is None else _view(child, made) for name, child in inner._modules.items()
        }
    return made[inner]
