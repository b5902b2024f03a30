"""What a plan is asked for, in the words that people ask in, and the plan that is made of it.

Python, `iftplan plan`, `train` and `sweep` ask with a `PlanRequest`; the planner itself takes the `Policy` that it makes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from iftplan.base.errors import InputError
from iftplan.base.units import parse_sparsity
from iftplan.families.builtin import family_named
from iftplan.families.family import Family
from iftplan.families.solver import mask_for
from iftplan.families.transforms.experts import Mixture, is_mixture, parse_mixture
from iftplan.masks import parse_attention, parse_mask
from iftplan.masks.distributions import Distribution
from iftplan.models.spec import Heads, ModelSpec
from iftplan.plans.budget import Budget, parse_budget
from iftplan.plans.plan import Asked, CloseBy, MaskUpdates, Optimizer, Pass, Plan, Pointwise, Rounding, Scope
from iftplan.plans.planner import plan
from iftplan.plans.policy import Policy
from iftplan.plans.scaling import parametrize
from iftplan.plans.speed.planner import plan_for_time
from iftplan.plans.speed.profiles import Profile


@dataclass(frozen=True, slots=True)
class Pricing:
    """Prices of layers in time.

    Attributes:
        profile: of the machine.
        passes: "forward", or "step" for forward and backward.
        batch: how many of the model's input are computed together.
    """

    profile: Profile
    passes: Pass = "forward"
    batch: int = 1


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Request for a plan, in the words that people ask in.

    Attributes:
        family: a name, a family of your own; "none" or None for plain sparsity at the same width.
        sparsity: the fraction of zeros, such as 0.75, "3/4" or "75%"; None for the one that a mask of fixed density has, or 0.75.
        scope: whose MACs are held equal to the budget.
        budget: "0.5x" of the dense model's MACs, or MACs such as "400M"; None for the dense model's.
        distribution: how density is spread.
        keep_dense: "first", "last" or names of layers; "none" among them says nothing.
        close_by: what gives way to close the budget.
        round_to: widths become multiples of this.
        rounding: "cover", or "floor" for widths that are rounded down; see `Policy`.
        pointwise: whether 1×1 convolutions are "transformed", or only "masked".
        power: exponent of the ER and ERK densities.
        mask: what masks may look like, in the notation of `iftplan.masks.parse_mask`; empty for the family's own.
        heads: what attention was asked to keep when the model was read.
        parametrization: what weights start and train at.
        optimizer: whose learning rates a parametrization holds.
        mask_updates: what becomes of masks in training.
        within: modules that alone are transformed and widened, a path with `*` and `?`; empty for the whole model.
        attention: pattern that attention keeps, in the notation of `iftplan.masks.parse_attention`; empty for the full count.
        attention_before: pattern of the dense model's attention where its mask is not known; empty where it is.
        pricing: of layers in time; None where MACs alone decide.
    """

    family: str | Family | None = "wide"
    sparsity: str | float | Fraction | None = None
    scope: Scope = Scope.LAYERS
    distribution: Distribution = Distribution.UNIFORM
    keep_dense: tuple[str, ...] = ("first", "last")
    close_by: CloseBy = "density"
    round_to: int = 1
    rounding: Rounding = "cover"
    pointwise: Pointwise = "transformed"
    power: int = 1
    mask: str = ""
    heads: Heads = "number"
    parametrization: Asked = "standard"
    optimizer: Optimizer = "adam"
    mask_updates: MaskUpdates = "static"
    within: str = ""
    budget: str | int | None = None
    attention: str = ""
    attention_before: str = ""
    pricing: Pricing | None = None

    def as_reference(self) -> PlanRequest:
        """The same request, planned as the code of arXiv 2303.11525 plans: widths rounded down, 1×1 convolutions only masked."""
        return replace(self, rounding="floor", pointwise="masked")

    def policy(self) -> Policy:
        """The request as the planner needs it, every choice a value.

        Raises:
            InputError: something that cannot be read, or does not go together.
            InfeasibleError: masks of that structure have another sparsity.
        """
        family, mixture = self.family, None
        if isinstance(family, str) and is_mixture(family):
            mixture, family = self._mixture(family), None
        elif isinstance(family, str):
            family = None if family.lower() == "none" else family_named(family, "none")
        mask = parse_mask(self.mask) if self.mask else None
        budget = None if self.budget is None else parse_budget(self.budget)
        if family is not None and budget == Budget():
            budget = None  # the dense model's, as without one
        if mixture is not None and budget == Budget():
            budget = None
        if mixture is None and family is None and budget and self.sparsity is not None:
            raise InputError(
                f"`sparsity={str(self.sparsity)!r}` and `budget={self.budget!r}` both say how many weights plain sparsity keeps. "
                "Give one of them."
            )
        usual = Fraction(0) if family is None and budget and mask is None else Fraction(3, 4)
        usual = 1 - mask.density if mask is not None and mask.density is not None else usual
        sparsity = usual if self.sparsity is None else parse_sparsity(self.sparsity)
        sparsity = sparsity if mixture is None else Fraction(0)
        return Policy(
            family=family,
            sparsity=sparsity,
            scope=self.scope,
            distribution=self.distribution,
            keep_dense=frozenset(self.keep_dense) - {"none"},
            close_by=self.close_by,
            round_to=self.round_to,
            rounding=self.rounding,
            pointwise=self.pointwise,
            power=self.power,
            within=self.within,
            mask=mask_for(family, sparsity, mask),
            budget=budget,
            mixture=mixture,
            attention=parse_attention(self.attention) if self.attention else None,
            attention_before=parse_attention(self.attention_before) if self.attention_before else None,
        )

    def _mixture(self, text: str) -> Mixture:
        """The experts that were asked for, beside which there are no masks."""
        if self.sparsity is not None or self.mask:
            raise InputError(
                f"{text} keeps every weight, and `sparsity` and `mask` are about masks. Leave them out."
            )
        if self.attention:
            raise InputError(
                f"{text} and `attention='{self.attention}'` cannot be planned together yet. Leave one of them out."
            )
        if self.pricing is not None:
            raise InputError(f"experts are not priced in time yet. Plan {text} for MACs.")
        return parse_mixture(text)


def make_plan(spec: ModelSpec, request: PlanRequest) -> Plan:
    """The plan of a model that answers a request.

    Raises:
        InfeasibleError: says which layer is in the way and the nearest feasible sparsity.
        InputError: something that cannot be read, does not go together, or is not in the model or the profile.
    """
    policy, pricing = request.policy(), request.pricing
    if pricing is None:
        made = plan(spec, policy, heads=request.heads)
    else:
        made = plan_for_time(
            spec,
            policy,
            pricing.profile,
            passes=pricing.passes,
            batch=pricing.batch,
            heads=request.heads,
        )
    return parametrize(made, request.parametrization, request.optimizer, request.mask_updates)
