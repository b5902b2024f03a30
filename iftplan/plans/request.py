"""What a plan is asked for, in the words that people ask in, and the plan that is made of it.

Python, `iftplan plan`, `train` and `sweep` ask with a `PlanRequest`; the planner itself takes the `Policy` that it makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import product

from iftplan.base.errors import InputError
from iftplan.base.units import parse_sparsity
from iftplan.families.builtin import SPARSE_IFT, family_named
from iftplan.families.family import Family
from iftplan.families.solver import mask_for
from iftplan.families.transforms.experts import Mixture, is_mixture, parse_mixture
from iftplan.masks import parse_attention, parse_mask
from iftplan.masks.distributions import Distribution
from iftplan.models.spec import Heads, ModelSpec
from iftplan.plans.budget import Budget, parse_budget
from iftplan.plans.plan import Asked, CloseBy, MaskUpdates, Optimizer, Pass, Plan, Pointwise, Rounding, Scope
from iftplan.plans.planner import plan
from iftplan.plans.policy import DENSE, PLAIN, Assignment, Policy, assignment_of, rules_in
from iftplan.plans.scaling import parametrize
from iftplan.plans.search.families import MOST, Aim, best_plan
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


Rules = tuple[tuple[str, str | Family | None], ...]
"""Paths of layers, with `*` and `?`, and what they become: a family, None for plain sparsity, "dense"."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Request for a plan, in the words that people ask in.

    Attributes:
        family: a name, a family of your own; "none" or None for plain sparsity at the same width. Several as pairs of a
            path of layers and a family, or as a text such as "attn.*=parallel, wide"; the first path that a layer
            matches decides, and a layer that no path matches stays dense. "wide|parallel" are alternatives, and "all" is
            wide, parallel, factorized, doped and low-rank.
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
        aim: what alternatives are chosen by, "search-space" or "parameters"; with a pricing it is time.
    """

    family: str | Family | Rules | None = "wide"
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
    aim: Aim | None = None

    def as_reference(self) -> PlanRequest:
        """The same request, planned as the code of arXiv 2303.11525 plans: widths rounded down, 1×1 convolutions only masked."""
        return replace(self, rounding="floor", pointwise="masked")

    @property
    def reads_widths(self) -> bool:
        """Whether a model is read with its widths, for any of the families that may be chosen."""
        return any(asked.policy().reads_widths for asked in self.alternatives())

    def alternatives(self) -> tuple[PlanRequest, ...]:
        """Requests for one family a layer, among which the aim decides; the request itself where it leaves no choice.

        Raises:
            InputError: alternatives and nothing to choose them by, the reverse, or too many.
        """
        rules = _rules(self.family)
        choices = [_choices(family) for _, family in rules]
        combinations = 1
        for among in choices:
            combinations *= len(among)
        aim = self.aim or ("wallclock" if self.pricing else None)
        if combinations == 1 and self.aim:
            raise InputError(
                f"`objective={self.aim!r}` chooses between families, and only one is given. Give several, such as "
                "`family='wide|parallel'`."
            )
        if combinations > 1 and aim is None:
            raise InputError(
                f"`family` leaves a choice between {_listed(choices)}. Say what to choose by, with "
                "`objective='search-space'`, `objective='parameters'` or `objective='wallclock'`, or make a plan for each "
                "with `iftplan sweep`."
            )
        if combinations > MOST:
            raise InputError(
                f"`family` leaves {combinations} combinations of families, and iftplan plans at most {MOST}. Give fewer."
            )
        return tuple(
            replace(self, family=tuple(zip((glob for glob, _ in rules), chosen, strict=True)), aim=None)
            for chosen in product(*choices)
        )

    def policy(self) -> Policy:
        """The request as the planner needs it, every choice a value.

        Raises:
            InputError: something that cannot be read, does not go together, or leaves a choice of families.
            InfeasibleError: masks of that structure have another sparsity.
        """
        mixture = self._mixture(experts) if (experts := _experts(self.family)) else None
        assignment, families = _assigned(None if mixture else self.family)
        transforms = bool(families)
        mask = parse_mask(self.mask) if self.mask else None
        budget = None if self.budget is None else parse_budget(self.budget)
        if transforms and budget == Budget():
            budget = None  # the dense model's, as without one
        if mixture is not None and budget == Budget():
            budget = None
        if mixture is None and not transforms and budget and self.sparsity is not None:
            raise InputError(
                f"`sparsity={str(self.sparsity)!r}` and `budget={self.budget!r}` both say how many weights plain sparsity keeps. "
                "Give one of them."
            )
        usual = Fraction(0) if not transforms and budget and mask is None else Fraction(3, 4)
        usual = 1 - mask.density if mask is not None and mask.density is not None else usual
        sparsity = usual if self.sparsity is None else parse_sparsity(self.sparsity)
        sparsity = sparsity if mixture is None else Fraction(0)
        rest = next((family for family in families if family.name == assignment.rest), None)
        patterned = next((family for family in families if family.name == "nm"), rest)
        return Policy(
            family=rest,
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
            mask=mask_for(patterned, sparsity, mask),
            budget=budget,
            mixture=mixture,
            attention=parse_attention(self.attention) if self.attention else None,
            attention_before=parse_attention(self.attention_before) if self.attention_before else None,
            assignment=assignment if assignment.rules else None,
            beside=tuple(family for family in families if family is not rest),
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


def _assigned(asked: str | Family | Rules | None) -> tuple[Assignment, tuple[Family, ...]]:
    """Who is in which family, and the families, each once."""
    rules = _rules(asked)
    several = len(rules) > 1 or rules[0][0] != "*"
    found: dict[str, Family] = {}
    pairs = []
    for glob, one in rules:
        name, family = _named(one, several)
        if family is not None and found.setdefault(name, family) != family:
            raise InputError(
                f"family: two different families are called {name!r}. Give one of them another name."
            )
        pairs.append((glob, name))
    return assignment_of(pairs), tuple(found.values())


def _rules(asked: str | Family | Rules | None) -> Rules:
    """Pairs of a path and what its layers become, whichever way they were given.

    Raises:
        InputError: there are none, or a text of them cannot be read.
    """
    if isinstance(asked, tuple):
        if not asked:
            raise InputError(
                "`family={}` names no family for any layer. Give one, such as `family={'*': 'wide'}`."
            )
        return asked
    return rules_in(asked) if isinstance(asked, str) and not is_mixture(asked) else (("*", asked),)


def _experts(asked: str | Family | Rules | None) -> str:
    """A mixture of experts that is asked for in all layers; empty for anything else."""
    rules = _rules(asked)
    one = rules[0][1] if len(rules) == 1 and rules[0][0] == "*" else None
    return one if isinstance(one, str) and is_mixture(one) else ""


def _choices(family: str | Family | None) -> tuple[str | Family | None, ...]:
    """The alternatives in a name."""
    if not isinstance(family, str) or is_mixture(family):
        return (family,)
    if family.lower() == "all":
        return SPARSE_IFT
    return tuple(dict.fromkeys(name.strip() for name in family.split("|")))


def _listed(choices: Sequence[Sequence[str | Family | None]]) -> str:
    among = next(names for names in choices if len(names) > 1)
    return " and ".join(str(name) for name in among)


def _named(one: str | Family | None, several: bool) -> tuple[str, Family | None]:
    """Name of a family as assignments have it, and the family, where it is one."""
    if isinstance(one, Family):
        return one.name, one
    if one is None or one.lower() == PLAIN:
        return PLAIN, None
    if several and one.lower() == DENSE:
        return DENSE, None
    family = family_named(one, PLAIN, *((DENSE,) if several else ()))
    return family.name, family


def make_plan(spec: ModelSpec, request: PlanRequest) -> Plan:
    """The plan of a model that answers a request.

    Raises:
        InfeasibleError: says which layer is in the way and the nearest feasible sparsity.
        InputError: something that cannot be read, does not go together, or is not in the model or the profile.
    """
    asked = request.alternatives()
    if len(asked) == 1:
        return _made(spec, asked[0])
    plans = {one.policy().transform: partial(_made, spec, one) for one in asked}
    return best_plan(plans, request.aim or "wallclock")


def _made(spec: ModelSpec, request: PlanRequest) -> Plan:
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
