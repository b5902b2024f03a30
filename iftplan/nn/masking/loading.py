"""Starting from sparse weights: with the masks they were trained under, with the zeros they have, or densely.

nn.load_masked_(model, torch.load("sparse.pt"))   # masks come with the weights …
masks = nn.Masking(model, optimizer)              # … and stay as they are

nn.densify_(model)                                # or every weight trains again (SPDF, arXiv 2303.10464)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, StaleError
from iftplan.nn.layers.computed import computed_weights
from iftplan.nn.masks.masked_weights import SUFFIX, enforce_, is_mask, masked_weights
from iftplan.nn.meta.wrappers import bare

Model = TypeVar("Model", bound=nn.Module)


@check_arguments
def load_masked_(model: Model, state: Mapping[str, Tensor]) -> Model:
    """Load the state dict of a masked model, with its masks, in place.

    Args:
        model: a model of the same structure, with or without masks.
        state: the `state_dict` of the masked model, also from inside a wrapper (`module.`, `_orig_mod.`,
            `model.` …).

    Raises:
        InputError: `state` is a checkpoint that contains a state dict.
        StaleError: the state is of another network; nothing was changed.
    """
    nested = next((name for name, value in state.items() if isinstance(value, Mapping)), None)
    if nested is not None:
        raise InputError(
            f"the state is a checkpoint of several parts ({', '.join(map(str, list(state)[:4]))}); give the part that holds the weights, such as state[{nested!r}]."
        )
    inner = bare(model)
    state = _without_prefix(state, inner)
    wanted = {name: mask for name, mask in state.items() if is_mask(name, mask, state)}
    own = inner.state_dict()
    plain = {name: tensor.shape for name, tensor in own.items() if not is_mask(name, tensor, own)}
    given = {name: tensor.shape for name, tensor in state.items() if name not in wanted}
    odd = sorted(name for name in plain.keys() | given.keys() if plain.get(name) != given.get(name))
    if odd:
        raise StaleError(
            f"the state is not of this {type(inner).__name__}: {', '.join(odd[:3])}{' …' if odd[3:] else ''} {'differs' if len(odd) == 1 else 'differ'}. Apply the plan that it was trained with to the model first."
        )
    _replace_masks_(inner, wanted)
    inner.load_state_dict(state)
    enforce_(inner)
    return model


@check_arguments
def mask_zeros_(model: Model, names: Iterable[str] | None = None) -> Model:
    """Make masks from the zeros of a finalized or pruned model, in place.

    Args:
        model: a model without masks.
        names: parameters to mask; by default all with two or more dimensions and a zero, except embeddings.

    Raises:
        InputError: the model is masked already, has no parameter of that name or no zeros, or has its zeros in a weight that
            is computed from others (torch's pruning and parametrizations).
    """
    masked = next(masked_weights(model), None)
    if masked is not None:
        raise InputError(f"{masked.name} is masked already; finalize or densify the model first.")
    _refuse_computed(model, names)
    parameters = dict(model.named_parameters())
    chosen = list(_with_zeros(model, parameters) if names is None else names)
    unknown = [name for name in chosen if name not in parameters]
    if unknown:
        raise InputError(f"{type(model).__name__} has no parameter {unknown[0]!r} of its own to mask.")
    if not chosen:
        raise InputError(
            f"no weight of {type(model).__name__} contains a zero, so there are no masks to keep."
        )
    _replace_masks_(model, {name + SUFFIX: parameters[name].detach() != 0 for name in chosen})
    return model


def _without_prefix(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """The state under the model's own names, where a wrapper has put others before all of them.

    torch.compile's `_orig_mod` may stand anywhere; an `AveragedModel` counts its averages beside the weights.
    """
    own = model.state_dict().keys()
    if own <= state.keys():
        return state
    plain = {name.replace("_orig_mod.", ""): value for name, value in state.items() if name != "n_averaged"}
    sample = next(name for name in own if not name.endswith(SUFFIX))
    prefix = next((name.removesuffix(sample) for name in plain if name.endswith(f".{sample}")), "")
    others = [name for name in plain if not name.startswith(prefix)]
    if prefix and others and sample not in plain:
        raise StaleError(
            f"the state has this {type(model).__name__} under the prefix {prefix!r}, and others beside it ({', '.join(others[:3])}); give {{k.removeprefix({prefix!r}): v for k, v in state.items() if k.startswith({prefix!r})}}."
        )
    return plain if others else {name.removeprefix(prefix): value for name, value in plain.items()}


def _with_zeros(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Iterator[str]:
    for name, parameter in parameters.items():
        embeds = isinstance(
            model.get_submodule(name.rpartition(".")[0]), nn.Embedding
        )  # padding is a row of zeros
        if parameter.ndim > 1 and not embeds and bool((parameter == 0).any()):
            yield name


def _refuse_computed(model: nn.Module, names: Iterable[str] | None) -> None:
    for computed in computed_weights(model):
        asked = names is not None and computed.name in names
        if asked or (names is None and bool((computed.value() == 0).any())):
            raise InputError(
                f"{computed.name} is computed from {computed.source} in every forward pass, so a mask on it would not last; call {computed.remedy} first."
            )


def _replace_masks_(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    for weight in list(masked_weights(model)):
        del weight.module._buffers[weight.parameter_name + SUFFIX]
    for name, mask in masks.items():
        path, _, buffer = name.rpartition(".")
        module = model.get_submodule(path)
        device = getattr(module, buffer.removesuffix(SUFFIX)).device
        module.register_buffer(buffer, mask.to(device, copy=True))
