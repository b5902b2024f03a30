"""Trained weights for a model that differs from the trained one: in its head, its masks, or the names of its tensors.

    nn.load_(model, "resnet.safetensors", fresh=["fc"])          # another number of classes
    nn.load_(model, state, masks={"layer1.*": "drop"})           # some layers without their masks

Tensors are matched by name and shape. Whatever has no counterpart must be named in `fresh`, so that nothing starts from
random values by accident.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments, names_in, one_of
from iftplan.base.errors import InputError, StaleError
from iftplan.nn.application.pruning.scores import keep_largest_, magnitudes
from iftplan.nn.export.weights import weights_in
from iftplan.nn.masks.checking import holds
from iftplan.nn.masks.masked_weights import (
    SUFFIX,
    MaskedWeight,
    enforce_,
    is_mask,
    masked_weights,
    register_mask_,
    remove_mask_,
    to_matrix,
)
from iftplan.nn.meta.wrappers import bare
from iftplan.plans.plan import lies_within

MaskPolicy = Literal["keep", "own", "drop"]
"""What becomes of a layer's mask: it comes with the weights, stays the model's, or goes."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Report on trained weights that a model was given; tensors by their names in the model.

    Attributes:
        loaded: tensors that came.
        fresh: tensors that kept their values.
        unused: names in the state that the model has no tensor for.
        chosen: masked weights whose masks were chosen by magnitude, because the state has no mask for them, or one of
            another size or structure.
        dropped: weights whose masks were removed.
    """

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    chosen: tuple[str, ...]
    dropped: tuple[str, ...]


@check_arguments
@torch.no_grad()
def load_(
    model: nn.Module,
    state: Mapping[str, Tensor] | str | Path,
    *,
    fresh: Collection[str] = (),
    masks: MaskPolicy | Mapping[str, MaskPolicy] = "keep",
    dense_start: bool = False,
) -> Transfer:
    """Load trained weights into a model of another head or other masks, in place; returns what came and what did not.

    Prefixes of wrappers (`module.`) and of base models (`transformer.`) are added or removed as the names need it.

    Args:
        model: with masks, such as `apply` and `sparsify` make them, or without.
        state: a state dict, or the path of a file or folder that holds one (`.safetensors`, `.pt`; `model.safetensors`
            or its shards beside `config.json`).
        fresh: modules and tensors that keep their values, by name or glob: the head, say.
        masks: for all layers, or by name or glob, the first that fits. "keep": masks come with the weights; where the
            state has none, or one of another size, the largest weights stay, as many as the model's mask keeps. "own":
            the model's mask stays as it is. "drop": the layer's mask is removed. A model without masks takes those of
            the state, but for layers that are to have their own or none.
        dense_start: whether weights off the masks keep their values, and masks without a counterpart stay as they are,
            for methods that begin with every weight.

    Raises:
        InputError: the state is a checkpoint of several parts, a name in `fresh` or `masks` fits nothing, a choice in
            `masks` is none, or the model is on the meta device.
        StaleError: a tensor that is not `fresh` has no counterpart of its shape; nothing was changed.

    Example:
        >>> trained = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 10))
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        >>> load_(model, trained.state_dict(), fresh=["1"]).fresh
        ('1.weight', '1.bias')
    """
    inner = bare(model)
    fresh = names_in("fresh", fresh)
    choices = {glob: _policy(choice) for glob, choice in _by_name(masks).items()}
    given = weights_in(Path(state)) if isinstance(state, str | Path) else state
    _refuse_nested(given)
    whole = inner.state_dict()
    if any(tensor.is_meta for tensor in whole.values()):
        raise InputError(
            f"the {type(model).__name__} is on the meta device and holds no values that could be loaded into; build it on another (device='cpu')."
        )
    own = {name: tensor for name, tensor in whole.items() if not is_mask(name, tensor, whole)}
    spared = [name for name in own if any(lies_within(name, glob) for glob in fresh)]
    named = _own_names({k: v for k, v in given.items() if k != "n_averaged"}, own, spared)
    theirs = {name: tensor for name, tensor in named.items() if is_mask(name, tensor, {**whole, **named})}
    weights = list(masked_weights(inner))
    if not weights:
        weights = _masked_by(inner, theirs)
    _refuse_idle(fresh, own, "fresh")
    _refuse_idle(choices.keys() - {"*"}, [weight.name for weight in weights], "masks")
    loaded = _matching(inner, own, named, spared)
    for name in loaded:
        own[name].copy_(named[name])
    chosen, dropped = _settle_(weights, theirs, set(spared), choices, dense_start=dense_start)
    if not dense_start:
        enforce_(inner)
    masked = {weight.name + SUFFIX for weight in weights}
    unused = [name for name in named if name not in own and not (name in theirs and name in masked)]
    return Transfer(tuple(loaded), tuple(spared), tuple(unused), tuple(chosen), tuple(dropped))


def _refuse_nested(state: Mapping[str, Tensor]) -> None:
    nested = next((name for name, value in state.items() if isinstance(value, Mapping)), None)
    if nested is not None:
        raise InputError(
            f"the state is a checkpoint of several parts ({', '.join(map(str, list(state)[:4]))}); give the part that holds the weights, such as state[{nested!r}]."
        )


def _refuse_idle(globs: Collection[str], names: Collection[str], argument: str) -> None:
    """Refuse a name that fits nothing, which is a typing error."""
    for glob in globs:
        if not any(lies_within(name, glob) for name in names):
            raise InputError(
                f"{argument} names {glob!r}, which no {'tensor' if argument == 'fresh' else 'masked weight'} of the model lies in; there are {', '.join(list(names)[:6]) or 'none'}."
            )


def _policy(choice: object) -> MaskPolicy:
    return cast(MaskPolicy, one_of("masks", choice, get_args(MaskPolicy)))


def _by_name(masks: MaskPolicy | Mapping[str, MaskPolicy]) -> Mapping[str, MaskPolicy]:
    return {"*": masks} if isinstance(masks, str) else masks


def _own_names(
    state: Mapping[str, Tensor], own: Collection[str], spared: Collection[str]
) -> dict[str, Tensor]:
    """The state under the model's names: a prefix before all of its names, or of the model's, is seen through.

    Args:
        state: by the names that it has.
        own: the model's names.
        spared: those that keep their values, for whose sake no prefix is there.
    """
    plain = {name.replace("_orig_mod.", ""): value for name, value in state.items()}
    known = set(own)
    wanted = [name for name in own if name not in set(spared)]
    removed = Counter(prefix for name in plain for prefix, rest in _splits(name) if rest in known)
    added = Counter(prefix for name in wanted for prefix, rest in _splits(name) if rest in plain)
    most_removed, most_added = (
        max(found.items(), key=lambda x: x[1], default=("", 0)) for found in (removed, added)
    )
    if most_added[1] > max(most_removed[1], 1):
        prefix = most_added[0]
        return {prefix + name if prefix + _weight(name) in known else name: x for name, x in plain.items()}
    prefix = most_removed[0]
    return {
        name[len(prefix) :] if name.startswith(prefix) and name not in known else name: value
        for name, value in plain.items()
    }


def _weight(name: str) -> str:
    return name.removesuffix(SUFFIX)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Prefix and rest of a name at every point in it, the whole name first."""
    yield "", name
    for i, letter in enumerate(name):
        if letter == ".":
            yield name[: i + 1], name[i + 1 :]


def _masked_by(model: nn.Module, masks: Mapping[str, Tensor]) -> list[MaskedWeight]:
    """Weights of a model without masks that a state has masks for."""
    found = []
    for name, mask in masks.items():
        path, _, parameter = _weight(name).rpartition(".")
        module = dict(model.named_modules()).get(path)
        value = None if module is None else module._parameters.get(parameter)
        if module is not None and value is not None and value.shape == mask.shape:
            found.append(MaskedWeight(_weight(name), module, parameter))
    return found


def _matching(
    model: nn.Module, own: Mapping[str, Tensor], named: Mapping[str, Tensor], spared: Collection[str]
) -> list[str]:
    """Names of the tensors that come.

    Raises:
        StaleError: another tensor has no counterpart of its shape, and none that it is tied to.
    """
    wanted = [name for name in own if name not in spared]
    loaded = [name for name in wanted if name in named and named[name].shape == own[name].shape]
    places = {own[name].data_ptr() for name in loaded}
    odd = [name for name in wanted if name not in loaded and own[name].data_ptr() not in places]
    if not odd:
        return loaded
    shown = [
        f"{name} ({'x'.join(map(str, own[name].shape)) or 'a number'}, "
        + (
            f"not {'x'.join(map(str, named[name].shape)) or 'a number'})"
            if name in named
            else "which the state does not have)"
        )
        for name in odd[:3]
    ]
    modules = list(dict.fromkeys(name.rpartition(".")[0] or name for name in odd))
    hint = (
        f"If they are to start from their initial values, name them in `fresh`: {', '.join(modules[:6])}."
        if loaded
        else "It is of another network, or of another plan: apply the plan that it was trained with."
    )
    raise StaleError(
        f"{len(odd)} of {len(own)} tensors of this {type(model).__name__} have no counterpart in the state: {', '.join(shown)}{' …' if odd[3:] else ''}. {hint}"
    )


def _settle_(
    weights: list[MaskedWeight],
    theirs: Mapping[str, Tensor],
    spared: Collection[str],
    choices: Mapping[str, MaskPolicy],
    *,
    dense_start: bool,
) -> tuple[list[str], list[str]]:
    """Give every weight the mask that was asked for, in place; names of those chosen by magnitude, and of those dropped."""
    chosen, dropped = [], []
    for weight in weights:
        choice = next(
            (x for glob, x in choices.items() if glob == "*" or lies_within(weight.name, glob)), "keep"
        )
        given, held = (
            theirs.get(weight.name + SUFFIX),
            weight.parameter_name + SUFFIX in weight.module._buffers,
        )
        if choice == "drop":
            if held:
                remove_mask_(weight)
                dropped.append(weight.name)
        elif not held and choice == "keep" and weight.name not in spared:
            assert given is not None
            register_mask_(weight, given.to(weight.parameter.device, copy=True), weight.structure)
        elif held and choice == "keep" and weight.name not in spared:
            if given is not None and _fits(weight, given):
                weight.mask.copy_(given)
            elif not dense_start:
                keep_largest_(weight, magnitudes(weight))
                chosen.append(weight.name)
    return chosen, dropped


def _fits(weight: MaskedWeight, mask: Tensor) -> bool:
    """Whether a mask keeps as many weights as the model's own, in its structure."""
    same = mask.shape == weight.mask.shape and int(mask.count_nonzero()) == int(weight.mask.count_nonzero())
    return same and holds(weight.structure, to_matrix(mask.to(weight.mask.device), weight))
