"""Masks as persistent buffers beside their weights.

A masked weight is an ordinary parameter that is held at zero off its mask; `weight_mask` lies beside
`weight` on the same module. Forward passes stay dense operators, so whatever works on the module works on a
masked one, and the dense gradient is `.grad`. Whoever changes weights calls `enforce_` afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Generator, Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InfeasibleError, InputError, StaleError
from iftplan.masks import MaskStructure, Unstructured, parse_mask, stack_close
from iftplan.models.spec import Kind
from iftplan.nn.layers.branches import Member, is_conv1d
from iftplan.nn.layers.stacks import Stack, note_stack_, planned_stack, stack_of
from iftplan.nn.masks.drawing import random_mask, shares
from iftplan.nn.masks.shards import local, part_of
from iftplan.nn.masks.structured import Shape
from iftplan.plans.plan import Plan, PlannedLayer, Role

SUFFIX = "_mask"
_NOTED = "_mask_structures"  # a module's masked parameters → the notation of the structure that their masks were made in


_MATRICES = "_mask_matrices"  # a module's masked parameters whose layout its class does not say → whether it is (inputs, outputs)
_COSTS = "_mask_costs"  # a module's masked parameters → how often the plan applies each of their weights


@dataclass(frozen=True, slots=True, eq=False)
class MaskedWeight:
    """Weight with a mask, and the module that has both.

    Attributes:
        name: qualified parameter name.
        module: the module that holds the parameter and the mask.
        parameter_name: name of the parameter in that module; the mask is the buffer `parameter_name + "_mask"`.
    """

    name: str
    module: nn.Module
    parameter_name: str

    @property
    def parameter(self) -> nn.Parameter:
        """The weight, zero off its mask."""
        parameter = self.module._parameters[self.parameter_name]
        assert parameter is not None
        return parameter

    @property
    def mask(self) -> Tensor:
        """Boolean mask of the parameter's shape."""
        mask = self.module._buffers[self.parameter_name + SUFFIX]
        assert mask is not None
        return mask

    @property
    def is_compact(self) -> bool:
        """Whether the weight's module has only the kept values now, and no dense weight."""
        return self.parameter_name not in self.module._parameters

    @property
    def requires_grad(self) -> bool:
        """Whether the weight is trained, or the kept values that its module has of it."""
        parameter = self.module._parameters["values"] if self.is_compact else self.parameter
        return parameter is not None and parameter.requires_grad

    @property
    def stack(self) -> Stack | None:
        """Layout of the matrices that the weight holds; None for a single one."""
        return stack_of(self.module, self.parameter_name)

    @property
    def structure(self) -> MaskStructure:
        """The structure that its mask was made in; unstructured where that is not known."""
        noted: Mapping[str, str] = vars(self.module).get(_NOTED, {})
        return parse_mask(noted[self.parameter_name]) if self.parameter_name in noted else Unstructured()

    @property
    def cost(self) -> int | None:
        """MACs of one of its weights in a forward pass of the plan's input; None without a plan."""
        costs: Mapping[str, int] = vars(self.module).get(_COSTS, {})
        return costs.get(self.parameter_name)

    @property
    def inputs_first(self) -> bool | None:
        """Whether a single matrix is (inputs, outputs), in its last two dimensions; None where its module's class says how it lies."""
        noted: Mapping[str, bool] = vars(self.module).get(_MATRICES, {})
        return noted.get(self.parameter_name)

    @property
    def experts(self) -> int:
        """Number of matrices that the weight holds."""
        return self.stack.experts if self.stack else 1


@check_arguments
def masked_weights(model: nn.Module) -> Iterator[MaskedWeight]:
    """Masked weights, one after the other in the order of the modules."""
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and has_mask(module, name):
                yield MaskedWeight(f"{path}.{name}" if path else name, module, name)


def has_mask(module: nn.Module, parameter_name: str) -> bool:
    """Whether the parameter has a mask: a boolean buffer of its shape beside it."""
    mask, parameter = (
        module._buffers.get(parameter_name + SUFFIX),
        module._parameters.get(parameter_name),
    )
    return (
        mask is not None and parameter is not None and mask.dtype is torch.bool
    ) and mask.shape == parameter.shape


@check_arguments
@torch.no_grad()
def enforce_(model: nn.Module) -> nn.Module:
    """Set every masked weight to zero off its mask, in place; NaN and infinities there become zero too."""
    for weight in masked_weights(model):
        values = local(weight.parameter)
        values.masked_fill_(~part_of(weight.mask, weight.parameter), 0)
    return model


def draw_masks_(model: nn.Module, plan: Plan, seed: int = 0) -> nn.Module:
    """Draw the plan's masks, in place: exact counts, one stream of random numbers for each weight.

    A stream depends on `seed` and the weight's name alone, so that results do not depend on the order of
    layers. Masks of weights on the meta device are on the meta device. Weights are not changed: see `enforce_`.

    Args:
        model: has the structure of the plan (`iftplan.nn.application.structure.skeleton_`).
        plan: says which weights are masked, and how many of each layer's are kept.
        seed: any integer.

    Raises:
        StaleError: a weight of the plan is missing, or has another size.
        InputError: a buffer has the mask's name already, or the structure does not fit.
    """
    structure = parse_mask(plan.mask)
    modules = dict(model.named_modules(remove_duplicate=False))
    for layer in plan.layers:
        if layer.maskable:
            # the counts of depthwise layers follow from their neighbours, which patterns need not divide
            pattern = structure if layer.role is Role.TRANSFORMED else Unstructured()
            _mask_layer_(modules, layer, pattern, seed)
    return model


def register_mask_(weight: MaskedWeight, mask: Tensor, structure: MaskStructure) -> None:
    """Lay a mask beside a weight, and note the structure that it was made in, in place.

    Args:
        weight: without a mask.
        mask: boolean, of the weight's shape.
        structure: of the mask.
    """
    weight.module.register_buffer(weight.parameter_name + SUFFIX, mask)
    noted = vars(weight.module).get(_NOTED, {})
    vars(weight.module)[_NOTED] = {**noted, weight.parameter_name: str(structure)}


def remove_mask_(weight: MaskedWeight) -> None:
    """Remove the mask of a weight and its notes, in place; the weight is not changed."""
    del weight.module._buffers[weight.parameter_name + SUFFIX]
    noted = vars(weight.module).pop(_NOTED, {})
    if rest := {name: structure for name, structure in noted.items() if name != weight.parameter_name}:
        vars(weight.module)[_NOTED] = rest


def noted_structure(model: nn.Module) -> MaskStructure:
    """The structure that a model's masks were made in; unstructured where that is not known.

    Depthwise layers may have masks without structure beside those of the plan's.

    Raises:
        InputError: they were made in several.
    """
    noted = dict.fromkeys(weight.structure for weight in masked_weights(model))
    found = [structure for structure in noted if structure != Unstructured()]
    if len(found) > 1:
        raise InputError(
            f"the masks of {type(model).__name__} have several structures ({', '.join(map(str, found))}); say "
            "which one to keep with `structure`."
        )
    return found[0] if found else Unstructured()


def masked_names(module: nn.Module | None, layer: PlannedLayer) -> tuple[str, ...]:
    """The parameters that a planned layer's mask covers: those of its branches or factors, or its own.

    Args:
        module: what stands in the layer's place, if that is a module.
        layer: as it was planned.
    """
    if isinstance(module, Member):
        return tuple(f"{layer.name}.{part}.weight" for part in module.masked_parts())
    return (layer.weight,)


def _mask_layer_(
    modules: Mapping[str, nn.Module], layer: PlannedLayer, structure: MaskStructure, seed: int
) -> None:
    names = masked_names(modules.get(layer.name), layer)
    found = [_weight(modules, name, layer) for name in names]
    for weight in found:
        _note_stack_(weight, layer, structure)
        _note_matrix_(weight, layer)
    capacity = sum(weight.parameter.numel() for weight in found)
    if capacity != layer.capacity:
        raise StaleError(
            f"{layer.name} has {capacity} weights to mask where {layer.capacity} were planned; make the plan again."
        )
    each = shares(structure, layer.nnz // layer.experts, [matrix_shape(weight) for weight in found])
    counts = [n * layer.experts for n in each]
    for weight, nnz in zip(found, counts, strict=True):
        _check_fit(weight, structure, nnz)  # of shapes alone, so that it can be asked on the meta device
    for weight, nnz in zip(found, counts, strict=True):
        register_mask_(weight, drawn_mask(weight, structure, nnz, stream(seed, weight.name)), structure)
        costs = vars(weight.module).get(_COSTS, {})
        vars(weight.module)[_COSTS] = {**costs, weight.parameter_name: layer.positions}


def _note_stack_(weight: MaskedWeight, layer: PlannedLayer, structure: MaskStructure) -> None:
    """Remember which way the experts of a layer lie in its weight."""
    stack = planned_stack(layer, weight.module, weight.parameter)
    if stack is None:
        return
    if not stack.known and structure.directed:
        raise InputError(
            f"{weight.name}: its experts are square, so iftplan cannot tell which side is the inputs, along which "
            f"{structure} patterns run. Plan unstructured masks, or set an attribute is_transposed of "
            f"{type(weight.module).__name__}: True for (inputs, outputs)."
        )
    note_stack_(weight.module, weight.parameter_name, stack)


def _note_matrix_(weight: MaskedWeight, layer: PlannedLayer) -> None:
    """Remember how the matrix of a linear layer lies in a parameter that is not used as `nn.Linear` uses its own."""
    if (
        weight.name != layer.weight
        or layer.kind != Kind.LINEAR
        or layer.experts > 1
        or is_conv1d(weight.module)
    ):
        return
    assert layer.after is not None
    matrix = (1, *weight.parameter.shape)[-2:]
    planned = (layer.after.out_channels, layer.after.in_channels)
    first = layer.inputs_first if planned[0] == planned[1] else matrix == planned[::-1]
    if first or weight.parameter.dim() != 2:
        noted = vars(weight.module).get(_MATRICES, {})
        vars(weight.module)[_MATRICES] = {**noted, weight.parameter_name: first}


def _check_fit(weight: MaskedWeight, structure: MaskStructure, nnz: int) -> None:
    """Whether a mask of this structure can keep exactly so many of the weight's entries."""
    outputs, inputs = matrix_shape(weight)
    try:
        nearest = stack_close(structure, ((inputs, outputs),) * weight.experts, weight.experts, nnz)
    except InfeasibleError as error:
        raise InputError(f"{weight.name}: {error}") from error
    if nearest != nnz:
        raise InputError(
            f"{weight.name}: {structure} masks of {inputs} inputs and {outputs} outputs cannot keep {nnz} weights, the nearest is {nearest}; a plan with this structure keeps whole patterns only."
        )


def _weight(modules: Mapping[str, nn.Module], name: str, layer: PlannedLayer) -> MaskedWeight:
    path, _, local = name.rpartition(".")
    module = modules.get(path)
    if module is None or module._parameters.get(local) is None:
        raise StaleError(
            f"the plan masks {name!r} of {layer.name}, which the model does not have; make the plan again."
        )
    if hasattr(module, local + SUFFIX):
        raise InputError(
            f"{path or 'the model'} has {local + SUFFIX!r} already; a model can be masked only once, so finalize "
            "or densify it first."
        )
    return MaskedWeight(name, module, local)


def stream(seed: int, name: str) -> Generator:
    """The random numbers of one weight, the same on every device and in every order of layers."""
    digest = sha256(f"{seed}:{name}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def drawn_mask(weight: MaskedWeight, structure: MaskStructure, nnz: int, generator: Generator) -> Tensor:
    """Random mask of a weight's shape with exactly so many weights, as many of each expert; without values on the meta device.

    Args:
        weight: that gets the mask.
        structure: of the mask.
        nnz: weights that are kept.
        generator: of the random numbers.

    Raises:
        InputError: the structure has no such mask.
    """
    parameter = weight.parameter
    if parameter.is_meta:
        return torch.empty_like(parameter, dtype=torch.bool)
    each = nnz // weight.experts
    matrix = torch.cat(
        [random_mask(structure, matrix_shape(weight), each, generator) for _ in range(weight.experts)]
    )
    # copied into plain strides: what permuting leaves behind, collectives take for overlapping memory
    mask = torch.empty(parameter.shape, dtype=torch.bool, device=parameter.device)
    return mask.copy_(from_matrix(matrix, weight))


def matrix_shape(weight: MaskedWeight) -> Shape:
    """(outputs, inputs) of a weight in torch's layouts; of one expert, where it stacks several.

    Inputs of a convolution are its whole window; of a transposed one the window belongs to the outputs.
    """
    module, parameter = weight.module, weight.parameter
    if weight.stack:
        first, second = parameter.shape[1:]
        return (second, first) if weight.stack.inputs_first else (first, second)
    if weight.inputs_first is not None:
        first, second = (1, *parameter.shape)[-2:]
        return (second, first) if weight.inputs_first else (first, second)
    outputs: int = parameter.shape[0]
    if isinstance(module, nn.modules.conv._ConvNd):
        window = parameter.shape[2:].numel() if module.transposed else 1
        outputs = module.out_channels * window
    elif is_conv1d(module):
        outputs = parameter.shape[1]
    return outputs, parameter.numel() // outputs


@dataclass(frozen=True, slots=True)
class WeightMatrix:
    """Axes of a weight that make it a matrix (outputs, inputs), for all of torch's layouts of weights.

    Attributes:
        shape: of the weight.
        split: the same entries with groups apart.
        order: of the axes of `split` in the matrix.
        rows: outputs of the matrix; of a stack, those of one expert after the other.
    """

    shape: tuple[int, ...]
    split: tuple[int, ...]
    order: tuple[int, ...]
    rows: int

    def matrix(self, tensor: Tensor) -> Tensor:
        """A tensor of the weight's shape as a matrix (outputs, inputs): the inverse of `tensor`."""
        return tensor.reshape(self.split).permute(self.order).reshape(self.rows, -1)

    def tensor(self, matrix: Tensor) -> Tensor:
        """A matrix (outputs, inputs) in the weight's own layout; input channels run fastest, as patterns do."""
        there = matrix.reshape([self.split[axis] for axis in self.order])
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return there.permute(back).reshape(self.shape)


def matrix_of(weight: MaskedWeight) -> WeightMatrix:
    """Axes of a weight that make it a matrix (outputs, inputs)."""
    module, shape = weight.module, tuple(weight.parameter.shape)
    axes = tuple(range(len(shape)))
    rows = matrix_shape(weight)[0] * weight.experts
    if weight.stack:
        return WeightMatrix(shape, shape, (0, 2, 1) if weight.stack.inputs_first else axes, rows)
    if weight.inputs_first:
        return WeightMatrix(shape, shape, (*axes[:-2], axes[-1], axes[-2]), rows)
    if is_conv1d(module):
        return WeightMatrix(shape, shape, (1, 0), rows)
    if not isinstance(module, nn.modules.conv._ConvNd):
        return WeightMatrix(shape, shape, axes, rows)
    if module.transposed:  # (in, out/groups, *kernel)
        split = (module.groups, shape[0] // module.groups, *shape[1:])
        return WeightMatrix(shape, split, (0, *range(2, len(split)), 1), rows)
    return WeightMatrix(shape, shape, (0, *axes[2:], 1), rows)


def to_matrix(tensor: Tensor, weight: MaskedWeight) -> Tensor:
    """A tensor of the weight's shape as a matrix (outputs, inputs): the inverse of `from_matrix`.

    The outputs of a stack are those of one expert after the other.
    """
    return matrix_of(weight).matrix(tensor)


def from_matrix(matrix: Tensor, weight: MaskedWeight) -> Tensor:
    """A matrix (outputs, inputs) in the weight's own layout; input channels run fastest, as patterns do."""
    return matrix_of(weight).tensor(matrix)


def is_mask(name: str, tensor: Tensor, state: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is the mask of a weight, and no buffer of the network's own that is called so.

    Args:
        name: of the tensor.
        tensor: of a state.
        state: in which the weight would be, by name.

    Example:
        >>> state = {"0.weight": torch.ones(2, 3), "0.weight_mask": torch.ones(2, 3) > 0, "causal_mask": torch.ones(4) > 0}
        >>> [name for name, tensor in state.items() if is_mask(name, tensor, state)]
        ['0.weight_mask']
    """
    weight = state.get(name.removesuffix(SUFFIX))
    if not name.endswith(SUFFIX) or tensor.dtype is not torch.bool or weight is None:
        return False
    return weight.shape == tensor.shape
