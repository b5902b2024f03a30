"""How many weights are not zero: from pruning masks, or from the values themselves."""

from __future__ import annotations

from torch import Tensor, nn

from iftplan.base.errors import MeasureError
from iftplan.models.counting import CountTable
from iftplan.nn.masks.masked_weights import SUFFIX, has_mask


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


def check_even(model: nn.Module, table: CountTable) -> None:
    """Refuse zeros whose cost the router decides: experts of one stack that keep differently many weights.

    Args:
        model: with values.
        table: what was counted of it.

    Raises:
        MeasureError: names the weight, and what its experts keep.
    """
    parameters = dict(model.named_parameters())
    for contraction in table.contractions:
        weight = parameters.get(contraction.weight or "")
        if contraction.operator != "grouped_mm" or weight is None or weight.is_meta or weight.dim() != 3:
            continue
        path, _, local = (contraction.weight or "").rpartition(".")
        module = model.get_submodule(path)
        mask = module._buffers[local + SUFFIX] if has_mask(module, local) else None
        kept = [int(expert.count_nonzero()) for expert in (weight if mask is None else mask).detach()]
        if len(set(kept)) > 1:
            raise MeasureError(
                f"the experts of {contraction.weight} keep between {min(kept)} and {max(kept)} weights, so the cost "
                "depends on where the router sends each row. Prune all experts to the same number of weights, or "
                "measure the network without `nonzeros`."
            )


def _count(name: str, values: Tensor) -> int:
    if values.is_meta:
        raise MeasureError(f"{name} is on the meta device and has no values; load it to count its zeros.")
    return int(values.detach().count_nonzero())
