"""Condensed layers: the weights that each output keeps and where they are, for inference (arXiv 2305.02299, section 4.3).

An output with fan-in f holds f values and f indices instead of a row of mostly zeros:

    y_n = b_n + Σ_f values[n, f] · x[indices[n, f]]

Under a constant fan-in nothing is filled up. Otherwise rows are filled up with zeros to the longest; outputs that keep
nothing, such as the neurons that SRigL ablates, are left out.
"""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.nn.execution.compaction import expand_
from iftplan.nn.execution.execute import execute_dense_
from iftplan.nn.layers.adapter import adapter_of
from iftplan.nn.layers.placeholder import placeholder
from iftplan.nn.masks.masked_weights import SUFFIX
from iftplan.nn.meta.copies import deep_copy

Model = TypeVar("Model", bound=nn.Module)


class Rows(nn.Module):
    """The rows of a sparse matrix (outputs, inputs) that keep anything, and the product with it.

    Args:
        matrix: weights, zero where nothing is kept.
        kept: which are kept, if more than those that are not zero.
    """

    values: Tensor
    indices: Tensor
    alive: Tensor

    def __init__(self, matrix: Tensor, kept: Tensor | None = None) -> None:
        super().__init__()
        kept = matrix != 0 if kept is None else kept
        counts = kept.sum(1)
        alive = counts.nonzero().view(-1)
        fan_in = int(counts.max()) if len(counts) else 0
        order = kept[alive].to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :fan_in]
        self.outputs = len(matrix)
        self.values = nn.Parameter((matrix * kept)[alive].gather(1, order))
        self.register_buffer("indices", order)
        self.register_buffer("alive", alive)

    @property
    def fan_in(self) -> int:
        """Inputs of an output that keeps any."""
        return self.values.shape[1]

    def forward(self, columns: Tensor) -> Tensor:
        """Product with the sparse matrix: (inputs, samples) → (outputs, samples)."""
        if not self.values.numel():
            return columns.new_zeros(self.outputs, columns.shape[1])
        found: Tensor = functional.embedding_bag(
            self.indices, columns, per_sample_weights=self.values.to(columns.dtype), mode="sum"
        )
        if len(self.alive) == self.outputs:
            return found
        zeros = columns.new_zeros(self.outputs, columns.shape[1])
        return zeros.index_copy(0, self.alive, found.to(zeros.dtype))


class CondensedLinear(nn.Module):
    """A linear layer in condensed form.

    Args:
        layer: whose weights it takes.
        mask: which of them are kept; None for those that are not zero.
    """

    def __init__(self, layer: nn.Linear, mask: Tensor | None = None) -> None:
        super().__init__()
        self.rows = Rows(layer.weight.detach(), mask)
        self.bias = layer.bias
        self.in_features, self.out_features = layer.in_features, layer.out_features

    @property
    def weight(self) -> Tensor:
        """The dense weight without values, for modules that ask for its dtype."""
        answer: Tensor = placeholder(
            (self.out_features, self.in_features),
            self.rows.values,
            "a module uses the weight of a CondensedLinear directly, but condensed layers have no dense weight; keep that layer dense, or "
            "finalize the model instead.",
        )
        return answer

    def forward(self, x: Tensor) -> Tensor:
        """Output of the linear layer, (…, inputs) → (…, outputs)."""
        columns = x.reshape(-1, x.shape[-1]).T.contiguous()
        y: Tensor = self.rows(columns).T.reshape(*x.shape[:-1], self.rows.outputs)
        return y if self.bias is None else y + self.bias


class CondensedConv(nn.Module):
    """A convolution over one or two dimensions in condensed form, by the columns of its windows.

    Args:
        layer: whose weights it takes.
        mask: which of them are kept; None for those that are not zero.
    """

    def __init__(self, layer: nn.Conv1d | nn.Conv2d, mask: Tensor | None = None) -> None:
        super().__init__()
        matrices = layer.weight.detach().flatten(1).chunk(layer.groups)
        masks = [None] * layer.groups if mask is None else mask.flatten(1).chunk(layer.groups)
        self.groups = nn.ModuleList(Rows(w, m) for w, m in zip(matrices, masks, strict=True))
        self.bias = layer.bias
        self.flat = len(layer.kernel_size) == 1  # one dimension is two, one of them of size one
        self.kernel, self.stride, self.dilation = (
            (1, *size) if self.flat else size for size in (layer.kernel_size, layer.stride, layer.dilation)
        )
        self.padding: list[int] = layer._reversed_padding_repeated_twice
        self.mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode

    def forward(self, x: Tensor) -> Tensor:
        """Output of the convolution, (N, C_in, …) → (N, C_out, …)."""
        x = functional.pad(x, self.padding, mode=self.mode)
        x = x.unsqueeze(-2) if self.flat else x
        size = [
            (length - dilation * (kernel - 1) - 1) // stride + 1
            for length, kernel, stride, dilation in zip(
                x.shape[2:], self.kernel, self.stride, self.dilation, strict=True
            )
        ]
        windows = functional.unfold(
            x, self.kernel, self.dilation, 0, self.stride
        )  # (N, C_in·window, positions)
        columns = windows.transpose(0, 1).reshape(windows.shape[1], -1).chunk(len(self.groups))
        y = torch.cat([rows(part) for rows, part in zip(self.groups, columns, strict=True)])
        y = y.view(len(y), len(x), *size).transpose(0, 1)
        y = y if self.bias is None else y + self.bias.view(-1, 1, 1)
        return y.squeeze(-2) if self.flat else y


@check_arguments
def condense(model: Model) -> Model:
    """A copy whose sparse linear layers and convolutions are in condensed form; outputs are the same up to rounding.

    Layers with masks are converted; in finalized models, layers with zeros in their weights. Everything else stays.

    Raises:
        InputError: nothing in the model is sparse, or a sparse weight has no condensed form, or an adapter.
    """
    return condense_(deep_copy(model))


def condense_(model: Model) -> Model:
    """The model with its sparse linear layers and convolutions in condensed form, changed in place.

    Outputs are the same up to rounding.

    Raises:
        InputError: nothing is sparse, a sparse layer has no condensed form or has an adapter, or the model itself is the layer.
    """
    execute_dense_(expand_(model))
    found = [(path, module) for path, module in model.named_modules() if _is_sparse(module)]
    if not found:
        raise InputError(
            "the model is not sparse: it has no masks and no zeros in its weights. Apply a plan first "
            "(iftplan.nn.apply)."
        )
    if beside := [path for path, module in found if adapter_of(module) is not None]:
        raise InputError(
            f"{', '.join(beside[:3])} {'has an adapter' if len(beside) == 1 else 'have adapters'}, which condensed layers have not. Merge first (iftplan.nn.merge_adapters_)."
        )
    for path, module in found:
        parent, _, name = path.rpartition(".")
        condensed = _condensed(module)
        if condensed is None or not path:
            raise InputError(
                f"{path or 'the model'} is a {type(module).__name__}, but only nn.Linear, nn.Conv1d and nn.Conv2d "
                "inside a model have a condensed form; keep other layers dense."
            )
        setattr(model.get_submodule(parent), name, condensed)
    return model


def _condensed(module: nn.Module) -> nn.Module | None:
    mask = module._buffers.get("weight" + SUFFIX)
    if type(module) is nn.Linear:
        return CondensedLinear(module, mask)
    if type(module) in (nn.Conv1d, nn.Conv2d):  # others may compute something else
        return CondensedConv(cast("nn.Conv1d | nn.Conv2d", module), mask)
    return None


def _is_sparse(module: nn.Module) -> bool:
    """Whether a layer is under a mask, or has zeros where it could have weights."""
    weight = module._parameters.get("weight")
    if weight is None or module._buffers.get("weight" + SUFFIX) is not None:
        return weight is not None
    matrix = isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
    return matrix and not weight.is_meta and bool((weight == 0).any())
