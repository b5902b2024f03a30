"""Tensor parallelism of linear layers: each process holds some outputs, or some inputs, of every weight.

Column-parallel layers compute some outputs of all inputs and gather them. Where a layer's outputs pass through an
activation alone into the next, the pair keeps them apart: the second is row-parallel, and one sum replaces the
gathering (Shoeybi et al., arXiv 1909.08053). All else, such as norms and embeddings, is computed by every process alike.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from iftplan.base.arguments import check_arguments
from iftplan.nn.layers.branches import is_conv1d
from iftplan.runs.devices.layout import PAIRS


@check_arguments
def tensor_parallel_(model: nn.Module, mesh: Any) -> nn.Module:
    """Split linear layers over a one-dimensional mesh, in place; call it before FSDP2, and before `shard_masks_`.

    Layers stay whole whose weight is shared, such as tied embeddings, or whose outputs do not divide by the number of
    processes. Every process has to see the same inputs.

    Args:
        model: whole, the same on every process.
        mesh: torch's `DeviceMesh` of one dimension.
    """
    owners = Counter(id(module._parameters.get("weight")) for module in model.modules())
    rows = {id(second): first for first, second in _pairs(model, mesh.size(), owners)}
    columns = {id(first) for first in rows.values()}
    for module in model.modules():
        if _is_linear(module, owners):
            if id(module) in rows:
                _split_(module, mesh, rows=True, apart=True)
            elif _width(module) % mesh.size() == 0:
                _split_(module, mesh, rows=False, apart=id(module) in columns)
    return model


def _pairs(model: nn.Module, parts: int, owners: Counter[int]) -> list[tuple[nn.Module, nn.Module]]:
    found = []
    for module in model.modules():
        children = dict(module.named_children())
        for names in PAIRS:
            first, second = (children.get(name) for name in names)
            if first is None or second is None:
                continue
            fits = all(_is_linear(layer, owners) for layer in (first, second))
            if fits and _width(first) % parts == 0 and _inputs(second) == _width(first):
                found.append((first, second))
    return found


def _is_linear(module: nn.Module, owners: Counter[int]) -> bool:
    """Whether a module is linear and called by itself: subclasses may be read by what they are part of."""
    weight = module._parameters.get("weight")
    return (type(module) is nn.Linear or is_conv1d(module)) and owners[id(weight)] == 1


def _width(module: nn.Module) -> int:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[1 if is_conv1d(module) else 0]


def _inputs(module: nn.Module) -> int:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0 if is_conv1d(module) else 1]


def _split_(module: nn.Module, mesh: DeviceMesh, *, rows: bool, apart: bool) -> None:
    """Split one layer.

    Args:
        module: linear.
        mesh: of one dimension.
        rows: whether by its inputs, else by its outputs.
        apart: whether what is split stays so between it and its partner: the inputs of rows, the outputs of columns.
    """
    over = Shard(1 if is_conv1d(module) != rows else 0)
    for name, parameter in list(module._parameters.items()):
        if parameter is not None:
            place = over if name == "weight" else Replicate() if rows else Shard(0)
            whole = DTensor.from_local(parameter.detach(), mesh, [Replicate()], run_check=False)
            part = whole.redistribute(placements=[place])
            own = DTensor.from_local(
                part.to_local().clone(),  # a view would keep the whole weight in memory
                mesh,
                [place],
                run_check=False,
                shape=part.shape,
                stride=part.stride(),
            )
            module.register_parameter(name, nn.Parameter(own, requires_grad=parameter.requires_grad))
    entering = Shard(-1) if rows and apart else Replicate()

    def enter(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *rest = inputs
        return (DTensor.from_local(x, mesh, [entering], run_check=False), *rest)

    def leave(_: nn.Module, __: tuple[Any, ...], output: Any) -> Tensor:
        gathered = output if apart and not rows else output.redistribute(placements=[Replicate()])
        found: Tensor = gathered.to_local()
        return found

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave)
