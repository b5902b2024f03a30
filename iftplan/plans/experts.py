"""Plans of mixtures of experts: which blocks they replace, the widths that meet the budget, and what the rows of a plan say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from iftplan.base.errors import InfeasibleError
from iftplan.base.units import count, decimal_text
from iftplan.families.transforms.experts import TITLE, Mixture, width
from iftplan.models.feed_forward import FeedForward, feed_forwards
from iftplan.models.spec import Kind, LayerSpec, ModelSpec, WeightLayer
from iftplan.plans.budget import Account, close
from iftplan.plans.closing import Books
from iftplan.plans.plan import KeptFor, PlannedLayer, Role
from iftplan.plans.policy import Policy
from iftplan.plans.rows import PlanRow, kept_for, product_row

ROUTER: Final = "router"
SHARED: Final = "shared"
"""Names that a block's new parts have in its module."""

_WIDEST = 2**40


@dataclass(frozen=True, slots=True)
class Experts:
    """Planned rows of a mixture of experts, and what a reader has to know of them.

    Attributes:
        layers: one row per weight and per product of activations, new layers beside the block that they are in.
        notes: how the width follows, what is counted, and what stays unspent.
    """

    layers: tuple[PlannedLayer, ...]
    notes: tuple[str, ...]


def plan_experts(spec: ModelSpec, policy: Policy, mixture: Mixture) -> Experts:
    """Rows of a plan in which experts of equal cost stand in the place of every feed-forward block.

    Args:
        spec: the dense model.
        policy: scope, budget, modules and layers to keep.
        mixture: how many experts, and of which kind.

    Raises:
        InfeasibleError: there is no such block, or its budget does not even pay for experts of the smallest width.
    """
    blocks = [block for block in feed_forwards(spec) if not any(_kept(w, policy) for w in block.layers)]
    if not blocks:
        raise InfeasibleError(
            f"{spec.source or 'the model'} has no feed-forward block that experts could replace: a module whose only "
            "weights are two or three linear layers, which widen and narrow the same channels, none of them kept dense."
        )
    unit = policy.round_to
    smallest = rows_of_experts(spec, policy, mixture, blocks, [unit] * len(blocks))
    ledger = Books.of(smallest, policy.scope, policy)
    steps = [unit * _per_width(mixture, block) for block in blocks]
    left = ledger.budget - ledger.fixed + sum(steps)
    if left < sum(steps):
        raise InfeasibleError(
            f"{mixture} cannot meet the budget of scope {policy.scope_name}: with experts of width {unit} the scope costs "
            f"{count(ledger.fixed)} MACs, and the budget is {count(ledger.budget)}. Take fewer experts or a larger budget; "
            f"the smallest is `budget='{ledger.fixed}'`."
        )
    accounts = [
        Account(_WIDEST, step, max(own_width(mixture, block) / unit, Fraction(1)), 1)
        for step, block in zip(steps, blocks, strict=True)
    ]
    chosen, residual = close(accounts, left)
    widths = [steps * unit for steps in chosen]
    rows = rows_of_experts(spec, policy, mixture, blocks, widths)
    return Experts(
        tuple(row.planned(0, policy.mask) for row in rows), _notes(mixture, blocks, widths, residual, policy)
    )


def own_width(mixture: Mixture, block: FeedForward) -> Fraction:
    """Width of an expert at which the block costs as much as the dense one, before it is rounded.

    Args:
        mixture: the experts.
        block: the dense block.
    """
    met = Fraction(mixture.rows(block.tokens), block.tokens)
    found: Fraction = width(
        Fraction(block.hidden_width),
        len(block.layers),
        mixture.experts,
        met,
        mixture.shared,
        len(_parts(block, mixture)),
    )
    return found


def _parts(block: FeedForward, mixture: Mixture) -> tuple[WeightLayer, ...]:
    """Layers of a block that its experts have: all, or the first that widens and the last."""
    return (block.up[0], block.down) if mixture.ungated else block.layers


def _per_width(mixture: Mixture, block: FeedForward) -> int:
    """MACs of one more channel in every expert of a block."""
    rows = mixture.rows(block.tokens) + mixture.shared * block.tokens
    return len(_parts(block, mixture)) * block.model_width * rows


def _kept(weight: WeightLayer, policy: Policy) -> bool:
    return kept_for(weight, policy) is not None


def rows_of_experts(
    spec: ModelSpec,
    policy: Policy,
    mixture: Mixture,
    blocks: Sequence[FeedForward],
    widths: Sequence[int],
) -> tuple[PlanRow, ...]:
    """Rows of every layer, new ones among them, at given widths of the experts.

    Args:
        spec: the dense model.
        policy: what stays as it is.
        mixture: the experts.
        blocks: what they replace.
        widths: of an expert in each of the blocks.
    """
    replaced = {
        w.weight: (block, wide) for block, wide in zip(blocks, widths, strict=True) for w in block.layers
    }
    rows: list[PlanRow] = []
    for weight in spec.layers:
        if weight.weight not in replaced:
            rows.append(_left(weight, policy))
            continue
        block, wide = replaced[weight.weight]
        if weight is block.layers[0]:
            rows.append(_router(block, mixture, policy))
        parts = _parts(block, mixture)
        rows.append(
            _expert(weight, block, wide, mixture, policy) if weight in parts else _removed(weight, policy)
        )
        if weight is block.down and mixture.shared:
            rows += [_shared(w, block, wide, mixture, policy) for w in parts]
    return (*rows, *(product_row(spec, product, policy, {}) for product in spec.products))


def _left(weight: WeightLayer, policy: Policy) -> PlanRow:
    """A layer that is in no block."""
    why = kept_for(weight, policy) or KeptFor.FEED_FORWARD
    role, reason = (Role.UNMASKABLE, weight.unmaskable) if weight.unmaskable else (Role.KEPT_DENSE, why.value)
    layer = weight.layer
    return PlanRow(
        layer.name,
        layer.kind.value,
        weight.weight,
        role,
        reason,
        layer,
        layer,
        layer.dense_macs,
        capacity=layer.weights,
        nnz=layer.weights,
        matrices=((layer.fan_in, layer.fan_out),) * layer.experts,
        kept_for=why if role is Role.KEPT_DENSE else None,
        inside=policy.covers(layer.name),
    )


def _sized(weight: WeightLayer, block: FeedForward, wide: int) -> LayerSpec:
    """The layer at another width between the layers of its block."""
    if weight is block.down:
        return replace(weight.layer, in_channels=wide)
    return replace(weight.layer, out_channels=wide)


def _expert(weight: WeightLayer, block: FeedForward, wide: int, mixture: Mixture, policy: Policy) -> PlanRow:
    layer = replace(
        _sized(weight, block, wide), positions=mixture.rows(block.tokens), experts=mixture.experts
    )
    return PlanRow(
        weight.layer.name,
        weight.layer.kind.value,
        weight.weight,
        Role.TRANSFORMED,
        f"{TITLE}: {mixture.experts} of width {wide}, of which a token meets {mixture.top_k}",
        weight.layer,
        layer,
        weight.layer.dense_macs,
        structure={"experts": mixture.experts, "chosen": mixture.top_k},
        dense_weights=layer.weights,
        nnz=0,
        inside=policy.covers(weight.layer.name),
    )


def _removed(weight: WeightLayer, policy: Policy) -> PlanRow:
    layer = weight.layer
    return PlanRow(
        layer.name,
        layer.kind.value,
        weight.weight,
        Role.REMOVED,
        "of the block's gate, which experts do not have",
        layer,
        None,
        layer.dense_macs,
        nnz=0,
        inside=policy.covers(layer.name),
    )


def _added(layer: LayerSpec, reason: str, policy: Policy) -> PlanRow:
    return PlanRow(
        layer.name,
        layer.kind.value,
        f"{layer.name}.weight",
        Role.ADDED,
        reason,
        None,
        layer,
        0,
        dense_weights=layer.weights,
        nnz=0,
        inside=policy.covers(layer.name),
    )


def _router(block: FeedForward, mixture: Mixture, policy: Policy) -> PlanRow:
    layer = LayerSpec(
        f"{block.module}.{ROUTER}",
        Kind.LINEAR,
        block.model_width,
        mixture.experts,
        positions=block.tokens,
    )
    return _added(layer, "scores the experts for every token", policy)


def _shared(weight: WeightLayer, block: FeedForward, wide: int, mixture: Mixture, policy: Policy) -> PlanRow:
    own = weight.layer.name.removeprefix(f"{block.module}.")
    layer = replace(
        _sized(weight, block, mixture.shared * wide),
        name=f"{block.module}.{SHARED}.{own}",
        positions=block.tokens,
    )
    many = "a shared expert" if mixture.shared == 1 else f"{mixture.shared} shared experts"
    return _added(layer, f"of {many}, which every token meets", policy)


def _notes(
    mixture: Mixture,
    blocks: Sequence[FeedForward],
    widths: Sequence[int],
    residual: int,
    policy: Policy,
) -> tuple[str, ...]:
    notes: list[str] = []
    shapes: dict[tuple[int, int, int, int], set[int]] = {}
    for block, wide in zip(blocks, widths, strict=True):
        key = (len(block.layers), block.hidden_width, mixture.rows(block.tokens), block.tokens)
        shapes.setdefault(key, set()).add(wide)
    for (matrices, hidden, rows, tokens), found in shapes.items():
        met = decimal_text(Fraction(rows, tokens))
        block = next(
            b for b in blocks if (len(b.layers), b.hidden_width, b.tokens) == (matrices, hidden, tokens)
        )
        own, of_each = own_width(mixture, block), len(_parts(block, mixture))
        each = "g" if of_each == matrices else "G"
        is_own = found == {own}
        became = "" if is_own else f", planned {_range(found)}"
        notes.append(
            f"width of an expert: w = (g·n - E)/({each}·(k + h)) = ({matrices}·{hidden} - {mixture.experts})/({of_each}·({met} + {mixture.shared})) = {decimal_text(own)}{became}"
        )
    notes.append(f"rows of experts are counted as {_convention(mixture)}")
    if residual:
        notes.append(
            f"{count(residual)} MACs of scope {policy.scope_name} stay unspent, because experts have whole widths"
        )
    return tuple(notes)


def _convention(mixture: Mixture) -> str:
    if mixture.router == "relu":
        return (
            f"{mixture.convention}, with k = {mixture.top_k} assumed: a ReLU router has as many experts as score above "
            "zero, which data decide"
        )
    if mixture.capacity is None:
        return f"{mixture.convention}: {mixture.top_k} for each token, and none is dropped"
    return (
        f"{mixture.convention}: each expert takes C = ⌈k·T/E·{decimal_text(mixture.capacity)}⌉ rows of T tokens, full "
        "or not, and tokens above that pass the block by"
    )


def _range(found: set[int]) -> str:
    return str(min(found)) if len(found) == 1 else f"{min(found)} to {max(found)}"


@dataclass(frozen=True, slots=True)
class MixtureSize:
    """Size of a planned mixture of experts.

    Attributes:
        blocks: feed-forward blocks that were replaced.
        total: weights of the model that contract.
        active: of those, the weights that one token meets, with k experts in each block.
        log2_choices: bits that name the experts that one token meets in all blocks together.
    """

    blocks: int
    total: int
    active: int
    log2_choices: float


def size_of(layers: Sequence[PlannedLayer], mixture: Mixture) -> MixtureSize:
    """Size of a planned mixture of experts.

    Args:
        layers: of the plan.
        mixture: its experts.
    """
    blocks = sum(layer.role is Role.ADDED and layer.name.endswith(f".{ROUTER}") for layer in layers)
    weights = {layer.name: layer.capacity + layer.dense_weights for layer in layers if layer.positions}
    met: Mapping[str, int] = {
        layer.name: weights[layer.name] // mixture.experts * (mixture.experts - mixture.top_k)
        for layer in layers
        if layer.role is Role.TRANSFORMED
    }
    total = sum(weights.values())
    return MixtureSize(blocks, total, total - sum(met.values()), blocks * mixture.log2_choices)


def problem_of(layer: PlannedLayer, mixture: Mixture) -> str:
    """Sentence on a row that is none of this mixture's; empty if it may be.

    Args:
        layer: of a plan.
        mixture: its experts.
    """
    if layer.role is Role.REMOVED:
        if not mixture.ungated:
            return f".role is removed, but {mixture} removes no layers"
        left = layer.dense_weights or layer.capacity or layer.positions
        return " has weights or positions, but the layer is removed" if left else ""
    if layer.after is None or layer.role not in (Role.TRANSFORMED, Role.ADDED):
        return ""
    if layer.dense_weights != layer.after.weights or layer.capacity or layer.nnz:
        return f".dense_weights is {layer.dense_weights}, but the layer has {layer.after.weights} weights and no mask"
    if layer.role is Role.ADDED:
        return "" if not layer.dense_macs else ".dense_macs is not 0, but the dense model has no such layer"
    if layer.before is None:
        return " has no dense layer before it"
    if layer.experts != mixture.experts or dict(layer.structure) != {
        "experts": mixture.experts,
        "chosen": mixture.top_k,
    }:
        return f".structure is not that of {mixture}"
    if layer.positions != mixture.rows(layer.before.positions):
        return f".positions is {layer.positions}, but {mixture} has {mixture.rows(layer.before.positions)} of {layer.before.positions} tokens"
    return ""
