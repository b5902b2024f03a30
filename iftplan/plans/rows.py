"""The rows of a plan before the budget is closed: every layer's role, structure and what it can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod

from iftplan.base.errors import InfeasibleError, InputError, TooSmallError
from iftplan.base.units import decimal_text
from iftplan.families.family import Family
from iftplan.families.integers import at_structure, integer_structure, structure_at_width
from iftplan.families.solution import Structure
from iftplan.masks import (
    AttentionPattern,
    MaskStructure,
    Matrices,
    Unstructured,
    parse_attention,
    stack_close,
    stack_counts,
    stack_log2_masks,
)
from iftplan.masks.attention.product import AttentionPairs
from iftplan.models.notation import canonical
from iftplan.models.spec import PLAIN, Kind, LayerSpec, ModelSpec, Product, WeightLayer
from iftplan.plans.plan import WIDTHS, KeptFor, PlannedLayer, Role, Scope
from iftplan.plans.policy import Policy

PRODUCT_REASON = "a product of activations: no weight to mask"

_GROWS = "grows with the width, not its square, so it keeps its number of weights"


@dataclass(frozen=True, slots=True)
class PlanRow:
    """Layer of a plan before its number of weights is chosen.

    Attributes:
        dense: the layer in the dense model; None for products.
        layer: the layer at the plan's widths; None for products.
        capacity: weights of the part that is, or could be, masked.
        dense_weights: weights beside it that no mask touches.
        nnz: weights kept where that is not the budget's to choose; None where it is.
        matrices: shapes of the masked matrices.
        inside: whether it lies in the modules that are planned.
        attention: of a product that is counted by pairs, both of its counts; None where it is counted in full.
        family: that it is transformed into; None for plain sparsity and for all that is not transformed.
        transform: the family's name, where the plan has several; empty elsewhere.
        reuse: how often each of the dense weights is used at one position, on average.
        inputs_first: whether a weight that is square at the plan's widths is (inputs, outputs).
    """

    name: str
    kind: str
    weight: str
    role: Role
    reason: str
    dense: LayerSpec | None
    layer: LayerSpec | None
    dense_macs: int
    structure: Structure = field(default_factory=dict)
    capacity: int = 0
    dense_weights: int = 0
    product_macs: int = 0
    nnz: int | None = None
    matrices: Matrices = ()
    kept_for: KeptFor | None = None
    inside: bool = True
    attention: AttentionPairs | None = None
    family: Family | None = None
    transform: str = ""
    reuse: Fraction = Fraction(1)
    inputs_first: bool = False

    def counts_in(self, scope: Scope) -> bool:
        """Whether the row's MACs count in a scope."""
        return self.role.within(scope) and (self.inside or scope is not Scope.MODULE)

    @property
    def positions(self) -> int:
        """Number of positions at which each weight is applied."""
        return self.layer.positions if self.layer else 0

    @property
    def experts(self) -> int:
        """Number of experts: matrices of which each position uses one."""
        return self.layer.experts if self.layer else 1

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_in, n_out, *kernel) of the weight, as ER and ERK see it."""
        assert self.layer is not None
        return self.layer.shape

    @property
    def dense_uses(self) -> int:
        """Uses of the weights that no mask touches, at one position: their number times their reuse."""
        return int(self.dense_weights * self.reuse)

    @property
    def fixed_macs(self) -> int:
        """MACs that no choice of density changes."""
        kept = self.nnz if self.nnz is not None else 0
        return self.macs_of(self.dense_uses + kept) + self.product_macs

    @property
    def maskable_macs(self) -> int:
        """MACs of the masked weights at density 1."""
        return self.macs_of(self.capacity) if self.nnz is None else 0

    def macs_of(self, weights: int) -> int:
        """MACs of so many of the layer's weights, spread evenly over the experts."""
        return self.positions * weights // self.experts

    def counts(self, mask: MaskStructure) -> range:
        """Numbers of weights that the layer can keep.

        Raises:
            InfeasibleError: the structure does not fit its shape.
        """
        return stack_counts(mask, self.matrices, self.experts)

    def close(self, mask: MaskStructure, budget: int) -> int:
        """Largest number of weights, at most `budget`, that the layer can keep.

        Raises:
            InfeasibleError: it keeps more than that whatever is chosen.
        """
        return stack_close(mask, self.matrices, self.experts, budget)

    def planned(self, nnz: int, mask: MaskStructure) -> PlannedLayer:
        """Planned layer that the row has become."""
        shape = mask if self.role is Role.TRANSFORMED else Unstructured()
        kept = nnz if self.nnz is None else self.nnz
        masked = self.capacity > 0 and (self.nnz is None or self.nnz < self.capacity)
        return PlannedLayer(
            name=self.name,
            kind=self.kind,
            role=self.role,
            reason=self.reason,
            before=canonical(self.dense) if self.dense else None,
            after=canonical(self.layer) if self.layer else None,
            dense_macs=self.dense_macs,
            macs=self.macs_of(self.dense_uses + kept) + self.product_macs,
            weight=self.weight,
            structure=self.structure,
            maskable=masked,
            positions=self.positions,
            capacity=self.capacity,
            nnz=kept,
            dense_weights=self.dense_weights,
            log2_masks=stack_log2_masks(shape, self.matrices, self.experts, kept) if masked else 0.0,
            experts=self.experts,
            kept_for=self.kept_for,
            attention=self.attention,
            transform=self.transform if self.role is Role.TRANSFORMED else "",
            reuse=self.reuse,
            inputs_first=self.inputs_first,
        )


def rows_of(spec: ModelSpec, policy: Policy, sizes: Mapping[str, int]) -> tuple[PlanRow, ...]:
    """Rows of every weight layer and every product of activations at the given widths.

    Args:
        spec: the dense model.
        policy: what is asked for.
        sizes: width symbol → new size; empty for the dense widths.

    Raises:
        InfeasibleError: names the layer that no structure fits.
    """
    layers = [_layer_row(spec, w, policy, sizes) for w in spec.layers]
    small = [row for row in layers if row.kept_for is KeptFor.SIZE]
    if small and not any(row.role is Role.TRANSFORMED for row in layers):
        raise InfeasibleError(
            f"sparsity {decimal_text(policy.sparsity)} transforms no layer: {small[0].name} and all others are "
            "too small for a rank of 1. Choose a lower sparsity."
        )
    return (*layers, *(product_row(spec, p, policy, sizes) for p in spec.products))


def product_row(spec: ModelSpec, product: Product, policy: Policy, sizes: Mapping[str, int]) -> PlanRow:
    """Row of a product of activations at the given widths.

    Args:
        spec: the dense model.
        product: of the model.
        policy: whose modules it may lie in.
        sizes: width symbol → new size; empty for the dense widths.
    """
    macs = product.macs
    if sizes and spec.couplings is not None:
        macs = spec.couplings.product_macs[product.name].at(sizes)
    inside = policy.covers(product.name)
    pairs = _pairs(product, macs, policy)
    return PlanRow(
        product.name,
        product.operator,
        "",
        Role.ACTIVATION,
        PRODUCT_REASON,
        None,
        None,
        pairs.dense_macs if pairs else product.macs,
        product_macs=pairs.macs if pairs else macs,
        inside=inside,
        attention=pairs,
    )


def _pairs(product: Product, macs: int, policy: Policy) -> AttentionPairs | None:
    """Both counts of attention that is counted by pairs; None for other products, and where no pattern is asked for.

    Raises:
        InputError: nobody says what the dense model's mask keeps, or the pattern does not fit.
    """
    if policy.attention is None or product.attention is None:
        return None
    mask, inside = product.attention.mask, policy.covers(product.name)
    if mask is None and policy.attention_before is None and inside:
        raise InputError(
            f"{product.name} is called with a mask whose values shapes do not tell, so what `attention='{policy.attention}'` "
            "saves is not known. Say what the mask keeps, such as `attention_before='causal'`, or 'full' where it hides "
            "padding only."
        )
    before = (policy.attention_before or AttentionPattern()) if mask is None else parse_attention(mask)
    after = before & policy.attention if inside else before
    return AttentionPairs(product.attention, str(before), str(after), product.macs, macs)


def role_of(layer: WeightLayer, policy: Policy) -> tuple[Role, str]:
    """Role of a layer under a policy, and the reason for it."""
    if layer.unmaskable:
        return Role.UNMASKABLE, layer.unmaskable
    family = policy.family_of(layer.layer.name)
    restructures = family is not None and not family.solves_width
    if restructures and layer.class_name not in PLAIN and not layer.replaceable:
        return (
            Role.UNMASKABLE,
            f"{layer.class_name} uses this weight directly, so the layer cannot be replaced",
        )
    if restructures and (why := _unreplaceable(layer, policy)):
        return Role.UNMASKABLE, why
    if (why_kept := kept_for(layer, policy)) is not None:
        return Role.KEPT_DENSE, why_kept.value
    if layer.layer.depthwise and family is not None:
        return (
            Role.DEPTHWISE,
            _GROWS if family.definition.widens else "this family does not change depthwise layers",
        )
    if family is None or (restructures and is_only_masked(layer.layer, policy)):
        return Role.TRANSFORMED, "masked at the same width"
    return Role.TRANSFORMED, f"{family.definition.title} at the sparsity asked for"


def kept_for(layer: WeightLayer, policy: Policy) -> KeptFor | None:
    """Reason for which the policy keeps a layer dense; None where there is none.

    Args:
        layer: of the model.
        policy: that names layers and modules.
    """
    if layer.first and "first" in policy.keep_dense:
        return KeptFor.INPUT
    if layer.last and "last" in policy.keep_dense:
        return KeptFor.OUTPUT
    if layer.layer.name in policy.keep_dense:
        return KeptFor.NAME
    if policy.leaves_dense(layer.layer.name):
        return KeptFor.FAMILY
    return None if policy.covers(layer.layer.name) else KeptFor.MODULE


def _unreplaceable(layer: WeightLayer, policy: Policy) -> str:
    """Why branches or factors cannot stand in a layer's place, though its class would allow it."""
    if "." not in layer.weight:
        return "it is the whole model, and only a layer inside a model can be replaced"
    family = policy.family_of(layer.layer.name)
    if family is not None and family.definition.grid is not None:
        if layer.layer.experts > 1:
            return "a stack of experts; this family replaces single layers"
        if layer.layer.groups > 1 and not layer.layer.depthwise:
            return "its groups are blocks already"
    return ""


def _layer_row(spec: ModelSpec, weight: WeightLayer, policy: Policy, sizes: Mapping[str, int]) -> PlanRow:
    role, reason = role_of(weight, policy)
    dense, family = weight.layer, policy.family_of(weight.layer.name)
    wide = _widened(spec, weight, sizes)
    follows = replace(wide, name="") != replace(dense, name="") and not policy.moves(dense.name)
    row = PlanRow(
        dense.name,
        dense.kind.value,
        weight.weight,
        role,
        reason,
        dense,
        wide,
        dense.dense_macs,
        _width_structure(wide) if sizes else {},
        capacity=wide.weights,
        nnz=wide.weights,
        matrices=((wide.fan_in, wide.fan_out),) * wide.experts,
        kept_for=kept_for(weight, policy) if role is Role.KEPT_DENSE else None,
        inside=policy.covers(dense.name),
        family=family if role is Role.TRANSFORMED else None,
        transform=policy.family_name(dense.name) if policy.assignment else "",
        inputs_first=_lies_inputs_first(spec, weight, wide),
    )
    if follows and role is Role.TRANSFORMED and policy.assignment:
        row = replace(row, reason=_at_widths_of_others(family))
    match role:
        case Role.TRANSFORMED if family is None or family.solves_width:
            return replace(row, nnz=_patterned(row, policy))
        case Role.TRANSFORMED if is_only_masked(dense, policy):
            return replace(row, nnz=None)
        case Role.TRANSFORMED if family is not None and follows:
            return _restructured_at_width(row, dense, family, policy)
        case Role.TRANSFORMED if family is not None:
            return _restructured(row, dense, family, policy)
        case Role.DEPTHWISE if wide.weights > dense.weights:
            kept = dense.dense_macs // wide.positions
            return replace(row, nnz=kept, reason=_GROWS)
        case _:
            return row


def _at_widths_of_others(family: Family | None) -> str:
    what = "masked" if family is None else f"{family.definition.title} at the sparsity asked for"
    return f"{what}, at the widths of its neighbours"


def is_only_masked(layer: LayerSpec, policy: Policy) -> bool:
    """Whether a layer that could get branches or a rank is a 1×1 convolution that the policy only masks."""
    return policy.pointwise == "masked" and layer.kind.spatial_dims > 0 and prod(layer.kernel) == 1


def _patterned(row: PlanRow, policy: Policy) -> int | None:
    """The count of whole N:M patterns, where no density is there to close the budget; None where the budget may choose."""
    try:
        most = row.counts(policy.mask)[-1]
    except InfeasibleError as error:
        raise InfeasibleError(f"{row.name}: {error} Or keep this layer dense with `keep_dense`.") from error
    return most if policy.whole_patterns else None


def _width_structure(wide: LayerSpec) -> Structure:
    return dict(zip(WIDTHS, (wide.in_channels, wide.out_channels), strict=True))


def _restructured(row: PlanRow, dense: LayerSpec, family: Family, policy: Policy) -> PlanRow:
    """A transformed layer of a family with a structure of its own: branches or ranks."""
    try:
        real = integer_structure(dense, family, policy.density, Unstructured())
    except TooSmallError as error:
        if family.form.masked(dense.fan_in, dense.fan_out, 0, 2, 1) == dense.fan_in * dense.fan_out:
            return replace(
                row, role=Role.KEPT_DENSE, reason=KeptFor.SIZE.value, kept_for=KeptFor.SIZE
            )  # without structure it is itself
        raise _unfit(row, error) from error
    except InfeasibleError as error:
        raise _unfit(row, error) from error
    unknown = real.structure[family.definition.structure]
    assert isinstance(unknown, int)
    made = with_unknown(row, family, unknown)
    return replace(made, nnz=_patterned(made, policy)) if made.capacity else made


def _restructured_at_width(row: PlanRow, dense: LayerSpec, family: Family, policy: Policy) -> PlanRow:
    """The same at widths that neighbours have set, which leave less to spend, or nothing."""
    assert row.layer is not None
    try:
        real = structure_at_width(dense, row.layer, family, policy.density)
    except TooSmallError as error:
        if family.form.masked(row.layer.fan_in, row.layer.fan_out, 0, 2, 1):
            reason = f"{row.reason}, which leave nothing to spend on a {family.definition.structure}"
            return with_unknown(replace(row, reason=reason), family, 0)
        raise _unfit(row, error) from error
    except InfeasibleError as error:
        raise _unfit(row, error) from error
    unknown = real.structure[family.definition.structure]
    assert isinstance(unknown, int)
    made = with_unknown(row, family, unknown)
    return replace(made, nnz=_patterned(made, policy)) if made.capacity else made


def _unfit(row: PlanRow, error: InfeasibleError) -> InfeasibleError:
    return InfeasibleError(
        f"{row.name}: {error} Keep it dense with `keep_dense={['first', 'last', row.name]}`."
    )


def with_unknown(row: PlanRow, family: Family, unknown: int) -> PlanRow:
    """Row of the same layer with another number of branches or another rank.

    Args:
        row: of a transformed layer.
        family: whose unknown it is.
        unknown: the number of branches, or the rank.
    """
    assert row.layer is not None
    key = family.definition.structure
    real = at_structure(row.layer, family, unknown, {key: unknown})
    return replace(
        row,
        nnz=None,
        matrices=real.matrices,
        capacity=real.capacity,
        dense_weights=real.dense_weights,
        reuse=real.reuse,
        structure={**row.structure, key: unknown},
    )


def _widened(spec: ModelSpec, weight: WeightLayer, sizes: Mapping[str, int]) -> LayerSpec:
    """The layer at the plan's widths; the layer itself where the family keeps the width."""
    layer, couplings = weight.layer, spec.couplings
    if not sizes or couplings is None or weight.weight not in couplings.shapes:
        return layer
    dense_sizes = {name: width.size for name, width in couplings.widths.items()}
    before = tuple(dimension.at(dense_sizes) for dimension in couplings.shapes[weight.weight])
    after = tuple(dimension.at(sizes) for dimension in couplings.shapes[weight.weight])
    if layer.positions and weight.weight not in couplings.weight_macs:
        raise InfeasibleError(
            f"{layer.name} cannot be widened: its weight is computed from other parameters, so iftplan does not "
            "know how its MACs grow with the width. Use parallel, factorized or doped, which keep the width."
        )
    macs = couplings.weight_macs[weight.weight].at(sizes) if layer.positions else 0
    if prod(before) != layer.weights:  # no plain matrix: one number is all that is known of it
        return LayerSpec(layer.name, Kind.LINEAR, 1, 1, positions=macs)
    stacked = stack_dimensions(layer, before)
    inputs, outputs = channel_dimensions(weight, before[stacked:])
    in_channels = inputs.size(after[stacked:])
    return replace(
        layer,
        in_channels=in_channels,
        out_channels=outputs.size(after[stacked:]),
        groups=in_channels if layer.depthwise else layer.groups,
        positions=macs // prod(after[stacked:]),
        experts=prod(after[:stacked]),  # of a bilinear layer, its outputs
    )


def stack_dimensions(layer: LayerSpec, shape: Sequence[object]) -> int:
    """Number of leading dimensions of a weight that count its matrices: those before the last two of a linear layer's.

    Args:
        layer: of the model.
        shape: of its weight.
    """
    return max(len(shape) - 2, 0) if layer.kind is Kind.LINEAR else 0


def _lies_inputs_first(spec: ModelSpec, weight: WeightLayer, wide: LayerSpec) -> bool:
    """Whether a matrix is (inputs, outputs) though neither its shape at the plan's widths nor its class says so."""
    square = wide.in_channels == wide.out_channels
    if wide.kind is not Kind.LINEAR or wide.experts > 1 or not square or weight.class_name == "Conv1D":
        return False
    couplings = spec.couplings
    if couplings is None or weight.weight not in couplings.shapes or not weight.layer.positions:
        return weight.inputs_first
    sizes = {name: width.size for name, width in couplings.widths.items()}
    shape = tuple(dimension.at(sizes) for dimension in couplings.shapes[weight.weight])
    if len(shape) < 2 or prod(shape) != weight.layer.weights:
        return weight.inputs_first
    return channel_dimensions(weight, shape[-2:])[0].index == 0


@dataclass(frozen=True, slots=True)
class ChannelDimension:
    """Dimension of a weight that holds channels.

    Attributes:
        index: which dimension; one that the weight does not have counts as 1.
        times: channels of the layer for each of the dimension's entries: the groups of a convolution, of a depthwise one its
            outputs over its inputs or the reverse, or 1.
    """

    index: int
    times: Fraction | int = 1

    def size(self, shape: tuple[int, ...]) -> int:
        """Number of the layer's channels where its weight has this shape."""
        return int((shape[self.index] if self.index < len(shape) else 1) * self.times)


def channel_dimensions(
    weight: WeightLayer, shape: tuple[int, ...]
) -> tuple[ChannelDimension, ChannelDimension]:
    """Dimensions of the input and of the output channels, in torch's layouts.

    Convolutions and linear layers hold (out, in/groups, *kernel); transposed convolutions (in, out/groups,
    *kernel); embeddings and transformers' Conv1D (in, out).

    Args:
        weight: the layer.
        shape: of one of its matrices in the dense model.
    """
    layer = weight.layer
    if layer.depthwise:
        assert layer.in_channels is not None and layer.out_channels is not None
        of_each = Fraction(layer.out_channels, layer.in_channels)
        if layer.kind.transposed:
            return ChannelDimension(0), ChannelDimension(0, of_each)
        return ChannelDimension(0, 1 / of_each), ChannelDimension(0)
    square = layer.in_channels == layer.out_channels
    named = weight.class_name == "Conv1D" or weight.inputs_first
    inputs_first = named if square else shape[0] == layer.in_channels
    if layer.kind.transposed:
        return ChannelDimension(0), ChannelDimension(1, layer.groups)
    if layer.kind is Kind.EMBEDDING or (layer.kind is Kind.LINEAR and inputs_first):
        return ChannelDimension(0), ChannelDimension(1)
    return ChannelDimension(1, layer.groups), ChannelDimension(0)
