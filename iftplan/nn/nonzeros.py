"""How many weights are not zero: from pruning masks, or from the values themselves."""

from __future__ import annotations

from torch import Tensor, nn

from iftplan.errors import MeasureError
from iftplan.nn.masks import SUFFIX, has_mask


def nonzeros(model: nn.Module, *, from_values: bool = False) -> dict[str, int]:
    """Weight name → number of its weights that are not zero, for weights known to be sparse.

    Masks are always read: ours (`weight` with `weight_mask`), and those of torch.nn.utils.prune (`weight_orig`
    with `weight_mask`), where the weight has the name of its parameter, `….weight_orig`, as in count tables. A
    tied weight has the first of its names.

    Args:
        model: the model.
        from_values: also count the zeros in every parameter of two or more dimensions, such as a pruned
            checkpoint has them.

    Raises:
        MeasureError: a mask, or with `from_values` a weight, is on the meta device and has no values.
    """
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        path, _, local = name.rpartition(".")
        module = model.get_submodule(path)
        mask = module._buffers.get(local.removesuffix("_orig") + SUFFIX)
        if mask is not None and (local.endswith("_orig") or has_mask(module, local)):
            found[name] = _count(name, mask)
        elif from_values and parameter.dim() >= 2:
            found[name] = _count(name, parameter)
    return found


def _count(name: str, values: Tensor) -> int:
    if values.is_meta:
        raise MeasureError(f"{name} is on the meta device and has no values; load it to count its zeros.")
    return int(values.detach().count_nonzero())
