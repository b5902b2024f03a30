"""Weights that are no parameters: torch computes them from others, by pruning, a parametrization or a hook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn
from torch.nn.utils import parametrize

_ORIGINALS: Final[Mapping[str, tuple[str, str]]] = {
    "_mask": ("_orig", "torch.nn.utils.prune.remove({module}, {name!r})"),
    "_u": ("_orig", "torch.nn.utils.remove_spectral_norm({module}, {name!r})"),
    "_g": ("_v", "torch.nn.utils.remove_weight_norm({module}, {name!r})"),
}
"""What lies beside a computed weight → the parameter that it comes from, and what makes it a parameter again."""


@dataclass(frozen=True, slots=True, eq=False)
class ComputedWeight:
    """A weight that is the outcome of a computation.

    Attributes:
        name: qualified, as a person calls it.
        source: the parameter that it is computed from.
        remedy: the call that makes it a parameter.
        module: its module.
    """

    name: str
    source: str
    remedy: str
    module: nn.Module

    def value(self) -> Tensor:
        """Present value of the weight, without gradient."""
        value = getattr(self.module, self.name.rpartition(".")[2])
        assert isinstance(value, Tensor)
        return value.detach()


def computed_weights(model: nn.Module) -> Iterator[ComputedWeight]:
    """Every computed weight, in the order of the modules."""
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        named = f"model.get_submodule({path!r})" if path else "model"
        if parametrize.is_parametrized(module):
            for name, steps in module.parametrizations.items():
                remedy = f"torch.nn.utils.parametrize.remove_parametrizations({named}, {name!r})"
                source = f"{prefix}parametrizations.{name}.{next(iter(steps._parameters))}"
                yield ComputedWeight(prefix + name, source, remedy, module)
        for beside in (*module._buffers, *module._parameters):
            for suffix, (original, remedy) in _ORIGINALS.items():
                name = beside.removesuffix(suffix)
                if name != beside and name + original in module._parameters:
                    call = remedy.format(module=named, name=name)
                    yield ComputedWeight(prefix + name, prefix + name + original, call, module)
