"""Lazy modules, materialised by a first pass that gives them their sizes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.parameter import is_lazy

from iftplan.base.errors import IftplanError, MeasureError, error_text
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.passes.conditions import counting_conditions
from iftplan.nn.meta.copies import without_data
from iftplan.nn.meta.factories import FactoriesOnMeta
from iftplan.nn.meta.inputs import make_inputs


def materialise(model: nn.Module, inputs: Sequence[InputSpec]) -> nn.Module:
    """The model itself; or, where it has lazy modules, a copy on the meta device after one pass on `inputs`.

    Raises:
        MeasureError: that pass raised.
    """
    if not has_lazy(model):
        return model
    double = without_data(model)
    args, kwargs = make_inputs(inputs)
    with counting_conditions(double), FactoriesOnMeta():
        try:
            double(*args, **kwargs)
        except IftplanError:
            raise
        except Exception as error:
            given = ", ".join(map(str, inputs))
            raise MeasureError(
                f"the lazy modules of {type(model).__name__} could not be initialised by a forward pass on {given}: "
                f"{error_text(error)}"
            ) from error
    return double


def has_lazy(model: nn.Module) -> bool:
    """Whether a parameter or buffer has no size yet."""
    return any(
        tensor is not None and is_lazy(tensor)
        for module in model.modules()
        for tensor in (*module._parameters.values(), *module._buffers.values())
    )
