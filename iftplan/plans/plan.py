"""A plan: what every layer of a model becomes, its exact ledger, and the scope in which it closes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from iftplan.base.errors import InputError
from iftplan.base.suggestions import nearest
from iftplan.base.units import count, decimal, decimal_text
from iftplan.families.solution import Structure
from iftplan.families.transforms.experts import Mixture
from iftplan.masks.attention.product import AttentionPairs
from iftplan.masks.cardinality import Cardinality
from iftplan.models.spec import Heads, InputSpec, LayerSpec
from iftplan.plans.budget import Budget
from iftplan.report.display import Displayed, Framed, Record

if TYPE_CHECKING:
    from iftplan.report.table import Table


Optimizer = Literal["adam", "sgd"]
MaskUpdates = Literal["static", "dynamic", "gradual"]
Scheme = Literal["standard", "mup", "supar"]
Asked = Literal["standard", "auto", "supar", "mup"]
CloseBy = Literal["density", "width", "pattern"]
Rounding = Literal["cover", "floor"]
Pointwise = Literal["transformed", "masked"]
Execution = Literal["dense", "sparse"]
Pass = Literal["forward", "step"]
Objective = Literal["flops", "wallclock", "search-space", "parameters"]

WIDTHS: Final = ("in_channels", "out_channels")
"""Keys of a row's structure that are the layer's widths; any other is what its family solves for."""

ITSELF: Final[Mapping[str, int]] = MappingProxyType({"branches": 1, "rank": 0})
"""What families solve for → where it gives back the layer itself."""


class Scope(StrEnum):
    """Scope of the MACs that are held equal: transformed matrices, all weight layers, the whole pass, or one module."""

    MATRICES = "matrices"
    LAYERS = "layers"
    MODEL = "model"
    MODULE = "module"


WHOLE: Final = (Scope.MATRICES, Scope.LAYERS, Scope.MODEL)
"""Scopes that every plan has."""


def scope_named(name: Scope | str) -> Scope:
    """Scope of that name, in any case.

    Raises:
        InputError: no such scope; says which there are.
    """
    if isinstance(name, Scope):
        return name
    return _scope(name, "")


def _scope(kind: str, module: str) -> Scope:
    """Scope of that name; whoever gives another word is taken to mean a module."""
    names = [scope.value for scope in Scope]
    if (found := next((name for name in names if name == kind.lower()), None)) is not None:
        return Scope(found)
    near = nearest(kind, names, cutoff=0.7)
    meant = near[0] if near else Scope.MODULE.value
    if meant == Scope.MODULE:
        meant = f"{meant}:{module or (kind if not near else 'NAME')}"
    given = f"{kind}:{module}" if module else kind
    raise InputError(
        f"scope {given!r} is none of matrices, layers, model and module:NAME. Did you mean {meant!r}?"
    )


def parse_scope(text: str, within: str = "") -> tuple[Scope, str]:
    """Scope and the modules that a plan is restricted to, from `layers` or `module:NAME`.

    Args:
        text: a scope, with the name of the modules behind a colon where it is `module`.
        within: the same name, where it was given by itself.

    Raises:
        InputError: no such scope, or two names that differ.

    Example:
        >>> parse_scope("module:backbone")
        (<Scope.MODULE: 'module'>, 'backbone')
    """
    kind, _, name = text.partition(":")
    scope = _scope(kind, name)
    if scope is not Scope.MODULE and not name:
        return scope, within
    if scope is not Scope.MODULE or not (name or within):
        raise InputError(f"scope {text!r} is none of matrices, layers, model and module:NAME.")
    if name and within not in ("", name):
        raise InputError(f"scope {text!r} and `within={within!r}` name two modules. Give one of them.")
    return Scope.MODULE, name or within


def scope_text(scope: Scope, within: str) -> str:
    """Text that `parse_scope` reads: `layers`, or `module:NAME`."""
    return f"{scope.value}:{within}" if scope is Scope.MODULE else scope.value


def lies_within(name: str, modules: str) -> bool:
    """Whether a layer, or a product of activations, lies in a module of that name.

    Args:
        name: the layer's; `module:operator` for a product.
        modules: path of a module, in which `*` and `?` stand for any letters.

    Example:
        >>> lies_within("backbone.stem.0", "backbone"), lies_within("backbones.0", "backbone")
        (True, False)
    """
    module = name.partition(":")[0]
    return fnmatchcase(module, modules) or fnmatchcase(module, f"{modules}.*")


class Role(StrEnum):
    """Role of a layer in a plan."""

    TRANSFORMED = "transformed"
    KEPT_DENSE = "kept_dense"
    DEPTHWISE = "depthwise"
    UNMASKABLE = "unmaskable"
    ACTIVATION = "activation"
    ADDED = "added"
    REMOVED = "removed"

    def within(self, scope: Scope) -> bool:
        """Whether a layer of this role counts in a scope; in a module's, one that lies there."""
        match scope:
            case Scope.MATRICES:
                return self in (Role.TRANSFORMED, Role.ADDED, Role.REMOVED)
            case Scope.LAYERS:
                return self is not Role.ACTIVATION
            case Scope.MODEL | Scope.MODULE:
                return True


class KeptFor(StrEnum):
    """Purpose that a layer is kept dense for; each value is what its reason says, or how that begins."""

    INPUT = "reads the model's input"
    OUTPUT = "gives the model's output"
    NAME = "named in keep-dense"
    MODULE = "outside of the module that is planned"
    FAMILY = "in no family, so it stays dense"
    SIZE = "too small: no rank of 1 fits its budget, so its own weights take all of it"
    FEED_FORWARD = "in no feed-forward block, which experts replace"
    TIME = "kept dense: "


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """Row of a plan: one layer, before and after.

    Attributes:
        name: module path, or `module:operator` for a product of activations.
        kind: layer kind, or the operator of a product.
        weight: qualified parameter name; empty for products.
        before: the dense layer, without a name; None for a product, and for a layer that the dense model does not have.
        after: the layer at the plan's widths, of which `structure` says what stands in its place; None for a product, and for
            a layer that the planned model does not have.
        structure: the integers of its structure.
        maskable: whether a mask covers it.
        positions: how often each weight is applied in one forward pass, after the transformation.
        capacity: weights of the part that is, or could be, masked.
        nnz: weights of that part that are kept; all of them where there is no mask.
        dense_weights: weights beside it that no mask touches: U and V of the doped member.
        dense_macs: MACs before.
        macs: MACs after: `positions · (nnz + reuse · dense_weights) / experts`, or what a product of activations costs.
        log2_masks: bits needed to name its mask.
        role: what part it plays.
        reason: why it has that role, in words.
        kept_for: why it stays dense, where that was chosen; None for every other role.
        experts: matrices in a stack, of which every position meets one and each keeps equally many weights; 1 elsewhere.
        attention: of a product that is counted by pairs, both of its counts; None where it is counted in full.
        transform: the family that it is transformed into, where the plan has several; empty elsewhere.
        reuse: how often each of the dense weights is used at one position, on average; 1 but in Kronecker products.
        inputs_first: whether a square weight is (inputs, outputs) after the transformation, which its shape cannot say.
    """

    name: str
    kind: str
    role: Role
    reason: str
    before: LayerSpec | None
    after: LayerSpec | None
    dense_macs: int
    macs: int
    weight: str = ""
    structure: Structure = field(default_factory=dict)
    maskable: bool = False
    positions: int = 0
    capacity: int = 0
    nnz: int = 0
    dense_weights: int = 0
    log2_masks: float = 0.0
    experts: int = 1
    kept_for: KeptFor | None = None
    attention: AttentionPairs | None = None
    transform: str = ""
    reuse: Fraction = Fraction(1)
    inputs_first: bool = False

    def __repr__(self) -> str:
        shape = f"{self.before or self.kind}{'' if self.before == self.after else f' → {self.after}'}"
        density = f", density {decimal(self.density, 4)}" if self.maskable else ""
        return f"<PlannedLayer {self.name}: {shape}, {self.role}, {count(self.dense_macs)} → {count(self.macs)} MACs{density}>"

    def macs_of(self, weights: int) -> int:
        """MACs of so many of the layer's weights, spread evenly over the experts."""
        return self.positions * weights // self.experts

    @property
    def full_macs(self) -> int:
        """MACs after with every query and every key, as engines count attention."""
        return self.attention.full_macs if self.attention else self.macs

    @property
    def dense_full_macs(self) -> int:
        """MACs before with every query and every key, as engines count attention."""
        return self.attention.dense_full_macs if self.attention else self.dense_macs

    @property
    def changes(self) -> bool:
        """Whether the plan makes another layer of it, or masks some of its weights."""
        solved = {key: value for key, value in self.structure.items() if key not in WIDTHS}
        return (
            self.before != self.after
            or (self.maskable and self.nnz < self.capacity)
            or any(value != ITSELF.get(key) for key, value in solved.items())
        )

    @property
    def member_size(self) -> int | None:
        """Number of branches, or rank, of what stands in the layer's place; None if the layer stays."""
        if self.role is Role.TRANSFORMED:
            for key, unchanged in ITSELF.items():
                size = self.structure.get(key)
                if isinstance(size, int) and size != unchanged:
                    return size
        return None

    @property
    def dense_uses(self) -> int:
        """Uses of the weights that no mask touches, at one position: their number times their reuse."""
        return int(self.dense_weights * self.reuse)

    @property
    def density(self) -> Fraction:
        """Kept weights over maskable ones, nnz/capacity; 1 where nothing is masked."""
        return Fraction(self.nnz, self.capacity) if self.capacity else Fraction(1)


class TensorRole(StrEnum):
    """Role of a tensor, by which its scales follow the width."""

    EMBEDDING = "embedding"
    HIDDEN = "hidden"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class TensorScale:
    """Factors of a tensor's initial scale and learning rate, relative to the dense model.

    Attributes:
        role: what it does in the model.
        width_multiplier: m_d, its fan-in at the plan's structure over the dense one.
        density_multiplier: m_ρ, the share of its weights that is kept.
        fan_in_ratio: active over dense fan-in; all that is summed up at one output counts together.
        init_std_scale: of the standard deviation.
        learning_rate_multiplier: of the learning rate.
        output_multiplier: of what the tensor gives out (logits), in the forward pass.
        reason: where the numbers come from, in words.
    """

    role: TensorRole
    width_multiplier: Fraction = Fraction(1)
    density_multiplier: Fraction = Fraction(1)
    fan_in_ratio: Fraction = Fraction(1)
    init_std_scale: float = 1.0
    learning_rate_multiplier: Fraction = Fraction(1)
    output_multiplier: Fraction = Fraction(1)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Parametrization:
    """Scales of every planned weight, relative to the dense model.

    Attributes:
        asked: the scheme asked for; "auto" leaves the choice to the evidence.
        scheme: what the scales are.
        optimizer: the family of optimizers that the learning rates are for.
        mask_updates: whether masks stay ("static"), move ("dynamic") or grow ("gradual") in training.
        scales: parameter name in the applied model → its scales.
        notes: why this scheme, and what belongs to it that is in no tensor.
    """

    asked: Asked
    scheme: Scheme
    optimizer: Optimizer
    mask_updates: MaskUpdates
    scales: Mapping[str, TensorScale] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Estimated time of one layer, in seconds of the whole batch.

    Attributes:
        name: of the layer.
        execution: what it is computed with: dense operators, or sparse kernels.
        dense: of the layer in the dense model.
        flops: of the layer in the plan that only MACs decide.
        seconds: of the layer in this plan.
        extrapolated: whether any of these lies outside of what was measured.
    """

    name: str
    execution: Execution
    dense: float
    flops: float
    seconds: float
    extrapolated: bool = False


@dataclass(frozen=True, slots=True)
class WallClock:
    """Estimated times by which a plan was decided beside its MACs, in seconds.

    Attributes:
        profile: digest of the machine's profile.
        machine: the processor that was profiled.
        instructions: what its sparse kernels were made of.
        threads: of the processor.
        passes: "forward", or "step" for forward and backward together.
        batch: how many of the plan's input are computed together.
        layers: what was priced.
        unpriced: layer → why it was not.
        notes: sentences that a reader has to know.
    """

    profile: str
    machine: str
    instructions: str
    threads: int
    passes: Pass
    batch: int
    layers: tuple[LayerTime, ...]
    unpriced: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def dense(self) -> float:
        """Seconds of the priced layers in the dense model."""
        return sum(layer.dense for layer in self.layers)

    @property
    def flops(self) -> float:
        """Seconds of the priced layers in the plan that only MACs decide."""
        return sum(layer.flops for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Seconds of the priced layers in this plan."""
        return sum(layer.seconds for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Plan(Displayed, Framed):
    """Plan of a whole model in one family at equal MACs.

    Attributes:
        model: how to build the dense model again.
        inputs: the inputs it is counted with.
        fingerprint: of the dense model.
        transform: the family, or "none"; several as `PATH=FAMILY, …, FAMILY`, the last for all other layers.
        sparsity: the sparsity asked for; widths and branches follow from it.
        scope: the scope that was closed; None if nothing was.
        distribution: how density is spread.
        close_by: "density" (widths from the sparsity, density closes), "width" (the reverse) or "pattern" (as width,
            with every N:M pattern whole).
        keep_dense: what was asked to stay dense.
        round_to: widths are multiples of this.
        mask: what masks may look like, in the notation of `iftplan.masks.parse_mask`.
        heads: whether attention keeps the "number" or the "size" of its heads.
        layers: one row per weight and per product of activations.
        widths: width symbol → new size, for families that widen.
        multiplier: the width multiplier k those sizes were rounded up from, as a float; 1 otherwise.
        closing_sparsity: scope → the sparsity of the maskable weights that closes it with the same structure;
            None where no density does.
        notes: sentences a reader must know: a residual, an assumption, a switch that was chosen for them.
        within: modules that alone are transformed, a path with `*` and `?`; empty for the whole model.
        budget: what the closed scope may cost; None for the dense model's MACs.
        parametrization: what its weights start and train at; None for the standard one, as in the dense model.
        wallclock: what its layers are estimated to take, where that was asked for.
        mixture: the experts that stand in the place of feed-forward blocks; None in every other family.
        attention: pattern that attention keeps; then all MACs count attention by pairs, before and after. Empty where
            they count every query with every key.
        attention_before: pattern of the dense model's attention that was given where its mask is not known.
    """

    model: str
    inputs: tuple[InputSpec, ...]
    fingerprint: str
    transform: str
    sparsity: Fraction
    scope: Scope | None
    distribution: str
    close_by: CloseBy
    keep_dense: tuple[str, ...]
    round_to: int
    mask: str
    heads: Heads
    layers: tuple[PlannedLayer, ...]
    widths: Mapping[str, int] = field(default_factory=dict)
    multiplier: float = 1.0
    closing_sparsity: Mapping[Scope, Fraction | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    within: str = ""
    budget: Budget | None = None
    parametrization: Parametrization | None = None
    wallclock: WallClock | None = None
    mixture: Mixture | None = None
    attention: str = ""
    attention_before: str = ""

    def __repr__(self) -> str:
        closed = (
            f"{self.scope_name(self.scope)} closed at {count(self.macs(self.scope))} MACs"
            if self.scope
            else "nothing closed"
        )
        return f"<Plan {self.model or 'of a network'}: {self.transform}, sparsity {decimal(self.sparsity, 4)}, {closed}, {len(self.layers)} layer{'s' * (len(self.layers) != 1)}>"

    @property
    def family_name(self) -> str:
        """Name of the family in tables of several plans, with the numbers of a mixture of experts."""
        return self.transform if self.mixture is None else str(self.mixture)

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the families that layers are transformed into, each once; one where the plan has one."""
        several = dict.fromkeys(layer.transform for layer in self.layers if layer.transform)
        return tuple(several) or (self.transform,)

    @property
    def asked(self) -> str:
        """Words for what was asked for: a sparsity, experts, a budget, or both."""
        if self.mixture is not None:
            experts = str(self.mixture).partition(":")[2]
            return experts if self.budget is None else f"{experts} and budget {self.budget}"
        if self.budget is None:
            return f"sparsity {decimal_text(self.sparsity)}"
        if self.transform == "none":
            return f"budget {self.budget}"
        return f"sparsity {decimal_text(self.sparsity)} and budget {self.budget}"

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.plans.tables import plan_table, scale_tables, scope_table, time_tables

        return (plan_table(self), *scale_tables(self), *time_tables(self), scope_table(self))

    def records(self) -> Sequence[Record]:
        """A row for each weight and each product of activations, as in the plan's document."""
        from iftplan.plans.tables import plan_records

        return plan_records(self)

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """The scopes that the plan has; a module's only where it is restricted to one."""
        return (*WHOLE, Scope.MODULE) if self.within else WHOLE

    def scope_name(self, scope: Scope) -> str:
        """Name of a scope, with the module that it is of."""
        return scope_text(scope, self.within)

    def rows_in(self, scope: Scope | str) -> tuple[PlannedLayer, ...]:
        """Layers and products that count in a scope.

        Args:
            scope: matrices, layers, model or module; `module:NAME` for any module, with `*` and `?`.

        Raises:
            InputError: no scope of that name, None, or a module without a name where the plan is of the whole model.
        """
        if not isinstance(scope, str):
            closed = (
                "the plan closes no scope, so its scope is None"
                if self.scope is None
                else "there is no such scope"
            )
            raise InputError(
                f"scope {scope!r}: {closed}. Give 'matrices', 'layers', 'model' or 'module:NAME'."
            )
        named, module = parse_scope(scope) if ":" in scope else (scope_named(scope), self.within)
        if named is Scope.MODULE and not module:
            raise InputError(
                "the plan is of the whole model, so scope 'module' names nothing. Make it with `within`."
            )
        inside = tuple(layer for layer in self.layers if layer.role.within(named))
        if named is Scope.MODULE:
            return tuple(layer for layer in inside if lies_within(layer.name, module))
        return inside

    def dense_macs(self, scope: Scope | str) -> int:
        """MACs of the dense model in a scope.

        Raises:
            InputError: no scope of that name.
        """
        return sum(layer.dense_macs for layer in self.rows_in(scope))

    def macs(self, scope: Scope | str) -> int:
        """MACs of the planned model in a scope.

        Raises:
            InputError: no scope of that name.
        """
        return sum(layer.macs for layer in self.rows_in(scope))

    def full_macs(self, scope: Scope | str) -> int:
        """MACs of the planned model in a scope with every query and every key, as engines count attention.

        Raises:
            InputError: no scope of that name.
        """
        return sum(layer.full_macs for layer in self.rows_in(scope))

    def dense_full_macs(self, scope: Scope | str) -> int:
        """MACs of the dense model in a scope with every query and every key, as engines count attention.

        Raises:
            InputError: no scope of that name.
        """
        return sum(layer.dense_full_macs for layer in self.rows_in(scope))

    def ratio(self, scope: Scope | str) -> Fraction:
        """Planned over dense MACs in a scope; 1 where the scope is empty.

        Raises:
            InputError: no scope of that name.
        """
        dense = self.dense_macs(scope)
        return Fraction(self.macs(scope), dense) if dense else Fraction(1)

    def budget_macs(self, scope: Scope | str) -> int:
        """MACs that the plan's budget allows a scope: the dense model's, unless another was asked for.

        Raises:
            InputError: no scope of that name.
        """
        return (self.budget or Budget()).of(self.dense_macs(scope))

    @property
    def residual_macs(self) -> int | None:
        """Budget minus planned MACs in the closed scope; None if nothing was closed."""
        return None if self.scope is None else self.budget_macs(self.scope) - self.macs(self.scope)

    @property
    def cardinality(self) -> Cardinality:
        """The search space of all masks together, one budget per layer."""
        masked = [layer for layer in self.layers if layer.maskable]
        return Cardinality(sum(x.capacity for x in masked), sum(x.log2_masks for x in masked))
