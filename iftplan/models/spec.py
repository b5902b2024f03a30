"""Layers and models as plain values: what is planned, without a framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from iftplan.base.units import count
from iftplan.masks.attention.product import AttentionCall
from iftplan.models.polynomial import STRICT, Polynomial
from iftplan.report.display import Displayed, Framed, Record

if TYPE_CHECKING:
    from iftplan.report.table import Table


Heads = Literal["number", "size"]
"""What attention keeps where it grows wider: the number of its heads, or the size of each."""

Framework = Literal["torch", "jax"]
"""Library that a model is written in."""


class Kind(StrEnum):
    """Kind of a layer; its cost expression is in `iftplan.families.layer_costs`."""

    LINEAR = "linear"
    CONV1D = "conv1d"
    CONV2D = "conv2d"
    CONV3D = "conv3d"
    CONV_TRANSPOSE1D = "conv_transpose1d"
    CONV_TRANSPOSE2D = "conv_transpose2d"
    CONV_TRANSPOSE3D = "conv_transpose3d"
    EMBEDDING = "embedding"
    ATTENTION = "attention"
    NORM = "norm"
    ACTIVATION = "activation"

    @property
    def spatial_dims(self) -> int:
        """Kernel dimensions: 0 for everything but convolutions."""
        return int(self.value[-2]) if self.value.startswith("conv") else 0

    @property
    def transposed(self) -> bool:
        """Whether this is a transposed convolution."""
        return self in _TRANSPOSED


_TRANSPOSED = frozenset({Kind.CONV_TRANSPOSE1D, Kind.CONV_TRANSPOSE2D, Kind.CONV_TRANSPOSE3D})

WEIGHTLESS = frozenset({Kind.NORM, Kind.ACTIVATION})
"""Kinds without weights that contract: zero MACs by definition."""


PLAIN = frozenset({"Linear", "Conv1D", *(f"Conv{t}{d}d" for t in ("", "Transpose") for d in (1, 2, 3))})
"""Classes whose whole computation is their weight: branches and factors can stand in their place."""


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer, its weight seen as `m = (C_in/groups)·Πkernel` inputs by `n = C_out` outputs.

    A transposed convolution applies its kernel the other way round, from each input position to many outputs: there
    m = C_in/groups and n = C_out·Πkernel, so that m, n and both factors of a pair count at the input positions.

    Attributes:
        name: what a person calls it: a module path or the notation it was given in.
        kind: the layer kind.
        in_channels: C_in (D_in of a linear layer, tokens' width of attention, vocabulary of an embedding);
            None while symbolic.
        out_channels: C_out (D_out); None while symbolic.
        kernel: (k_h, k_w) and the like; empty for linear layers.
        groups: convolution groups; equal to in_channels for a depthwise layer.
        positions: how often the weight is applied in one forward pass: output positions for linear layers
            and convolutions, *input* positions for transposed convolutions, so that dense MACs are always
            `positions · weights / experts`. All calls and the whole batch are included; of a stack of experts, all
            rows that any of them is given. 0 where nothing is contracted (an embedding looks up, norms and
            activations work elementwise).
        depthwise: whether every group holds one input channel and grows in number with the width.
        heads: attention heads; 0 elsewhere.
        experts: matrices of this shape in one stack, of which every position meets exactly one: the experts of a
            mixture; 1 elsewhere.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    kind: Kind
    in_channels: int | None = None
    out_channels: int | None = None
    kernel: tuple[int, ...] = ()
    groups: int = 1
    positions: int = 1
    depthwise: bool = False
    heads: int = 0
    experts: int = 1

    def __str__(self) -> str:
        """The layer in layer notation."""
        from iftplan.models.notation import layer_notation

        return layer_notation(self)

    @property
    def symbolic(self) -> bool:
        """Whether the layer's channels are still free."""
        return self.in_channels is None or self.out_channels is None

    @property
    def fan_in(self) -> int:
        """Inputs m of the weight seen as a matrix: the weights of one output.

        Raises:
            ValueError: the channels are symbolic.
        """
        if self.in_channels is None:
            raise ValueError(f"{self.name} has symbolic channels")
        kernel = 1 if self.kind.transposed else prod(self.kernel)
        return self.in_channels // self.groups * kernel

    @property
    def fan_out(self) -> int:
        """Outputs n of the weight seen as a matrix.

        Raises:
            ValueError: the channels are symbolic.
        """
        if self.out_channels is None:
            raise ValueError(f"{self.name} has symbolic channels")
        return self.out_channels * (prod(self.kernel) if self.kind.transposed else 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n_in, n_out, *kernel), as the ER and ERK distributions see a weight.

        Raises:
            ValueError: the channels are symbolic.
        """
        if self.in_channels is None or self.out_channels is None:
            raise ValueError(f"{self.name} has symbolic channels")
        return (self.in_channels // self.groups, self.out_channels, *self.kernel)

    @property
    def copies(self) -> int:
        """Number of matrices m × n: the four projections of attention, or the experts of a mixture."""
        return 4 if self.kind is Kind.ATTENTION else self.experts

    @property
    def weights(self) -> int:
        """Weights that contract, `copies·m·n`; none in norms and activations."""
        if self.kind in WEIGHTLESS:
            return 0
        return self.copies * self.fan_in * self.fan_out

    @property
    def products_per_position(self) -> int:
        """MACs per position between activations: scores and values, `2·T·D`; 0 but for attention."""
        return 2 * self.positions * self.fan_out if self.kind is Kind.ATTENTION else 0

    @property
    def dense_macs(self) -> int:
        """MACs of one forward pass with every weight present."""
        return self.positions * (self.weights + self.products_per_position) // self.experts


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a model's forward pass.

    Attributes:
        shape: its size in each dimension; empty for a scalar, and for a plain value.
        dtype: as torch names it; or a plain value: "True", "False", "None", "int:5", "float:0.5" or "str:text".
        name: the keyword that it is passed by; None for a positional one. A path such as "batch.image", "images.0" or
            "0.mask" is a part of a dictionary or list, which is passed by the keyword or position that comes first.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    shape: tuple[int, ...]
    dtype: str = "float32"
    name: str | None = None

    @property
    def is_value(self) -> bool:
        """Whether the input is a plain Python value and no tensor."""
        return self.dtype in ("True", "False", "None") or ":" in self.dtype

    @property
    def value(self) -> bool | int | float | str | None:
        """The plain Python value."""
        kind, _, text = self.dtype.partition(":")
        match kind:
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "str":
                return text
        return {"True": True, "False": False}.get(kind)

    def __str__(self) -> str:
        if self.is_value:
            return f"{self.name}={self.dtype}" if self.name else self.dtype
        text = "x".join(map(str, self.shape)) or "scalar"
        text += "" if self.dtype == "float32" else f":{self.dtype}"
        return f"{self.name}={text}" if self.name else text


@dataclass(frozen=True, slots=True)
class WeightLayer:
    """A layer of a model: its shape, the parameter that is its weight, and its place in the graph.

    Attributes:
        layer: the shape; `layer.positions · layer.weights / layer.experts` are its dense MACs.
        weight: qualified parameter name (the first of a tied one's names).
        class_name: class of the module that computes with the weight.
        first: reads the model's input.
        last: its output is the model's, and no weight follows.
        unmaskable: why its weight cannot be transformed; empty if it can.
        replaceable: whether branches and factors can stand in its place though its module computes with other weights
            too: the experts of a mixture, in a form that is known.
        inputs_first: whether a square weight is (inputs, outputs), as in `x @ weight`, which its shape cannot say; false
            for transformers' Conv1D, whose class says it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    layer: LayerSpec
    weight: str
    class_name: str = ""
    first: bool = False
    last: bool = False
    unmaskable: str = ""
    replaceable: bool = False
    inputs_first: bool = False


@dataclass(frozen=True, slots=True)
class Product:
    """A contraction without weights, such as attention scores.

    Attributes:
        name: `module:operator`, numbered where there are several.
        operator: what is computed.
        macs: of one forward pass, every query with every key where it is attention.
        attention: sizes of attention, and what its mask keeps; None for all else, and where they are not known.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    operator: str
    macs: int
    attention: AttentionCall | None = None


@dataclass(frozen=True, slots=True)
class Width:
    """One set of channels that change size together.

    Attributes:
        size: channels in the dense model.
        multiple_of: every new size must be divisible by this (heads, groups, halves of a split).
        fixed: why it must keep its size (classes, vocabulary, input channels, positions …); empty if free.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    size: int
    multiple_of: int = 1
    fixed: str = ""


@dataclass(frozen=True, slots=True)
class Couplings:
    """Dimensions and costs of a model as polynomials in its free widths.

    Attributes:
        widths: symbol → width.
        shapes: parameter or buffer name → its dimensions, as polynomials in the symbols.
        attributes: "module.path.attribute" → the integer attribute's value as a polynomial.
        weight_macs: parameter name → MACs of its contractions.
        product_macs: product name (see `Product.name`) → MACs.
        scales: "module.path.attribute" → the size of a head whose inverse square root that float is.
        heads: what attention keeps when it widens, the "number" or the "size" of its heads; empty where it has none
            that widen, or where some of them keep the one and some the other.
        notes: what keeps its widths and why, and what else a plan of these widths has to say.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    widths: Mapping[str, Width]
    shapes: Mapping[str, tuple[Polynomial, ...]]
    attributes: Mapping[str, Polynomial] = field(default_factory=dict)
    weight_macs: Mapping[str, Polynomial] = field(default_factory=dict)
    product_macs: Mapping[str, Polynomial] = field(default_factory=dict)
    scales: Mapping[str, Polynomial] = field(default_factory=dict)
    heads: Heads | Literal[""] = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSpec(Displayed, Framed):
    """A model without its weights.

    Attributes:
        source: how to build it again: `zoo:resnet18`, `hf:config.json`, `package.module:factory` …
        inputs: the inputs it was traced with.
        layers: weight-bearing layers in the order of their first use.
        products: contractions without weights.
        fingerprint: SHA-256 over module names, classes and parameter shapes.
        couplings: which channels move together, if that was asked for and could be found.
        refusal: why no couplings could be found, by name; empty otherwise.
        assumptions: what had to be assumed to run the model.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    source: str
    inputs: tuple[InputSpec, ...]
    layers: tuple[WeightLayer, ...]
    products: tuple[Product, ...] = ()
    fingerprint: str = ""
    couplings: Couplings | None = None
    refusal: str = ""
    assumptions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.inputs))
        return f"<ModelSpec {self.source or 'of a network'}: {count(self.macs)} MACs, {len(self.layers)} layer{'s' * (len(self.layers) != 1)}, input {inputs}>"

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.models.tables import spec_table

        return (spec_table(self),)

    def records(self) -> Sequence[Record]:
        """A row for each weight and each product of activations: the keys of the document, and dense MACs."""
        from iftplan.models.document import spec_document

        document = spec_document(self)
        weights = [
            {"name": weight.layer.name, "macs": weight.layer.dense_macs, **record}
            for record, weight in zip(document["layers"], self.layers, strict=True)
        ]
        return [*weights, *document["products"]]

    @property
    def macs(self) -> int:
        """Dense MACs of one forward pass, scope *model*."""
        return sum(w.layer.dense_macs for w in self.layers) + sum(p.macs for p in self.products)
