"""What the planner is asked for: family, sparsity, scope and the choices beside them, each as a value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from typing import Final

from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.families.family import Family
from iftplan.families.transforms.experts import Mixture
from iftplan.masks import AttentionPattern, MaskStructure, Unstructured
from iftplan.masks.distributions import Distribution
from iftplan.plans.budget import Budget
from iftplan.plans.plan import CloseBy, Pointwise, Rounding, Scope, lies_within, scope_text

DENSE: Final = "dense"
"""In the place of a family: the layers stay dense."""

PLAIN: Final = "none"
"""In the place of a family: the layers are masked at the width that they have."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Families of a model's layers: the first glob that a layer's name matches decides.

    Attributes:
        rules: paths of layers or modules, with `*` and `?`, and the names of their families.
        rest: family of the layers that no path matches; "dense" where they stay so.
    """

    rules: tuple[tuple[str, str], ...]
    rest: str

    def __str__(self) -> str:
        return ", ".join((*(f"{glob}={family}" for glob, family in self.rules), self.rest))

    def of(self, layer: str) -> str:
        """Name of a layer's family."""
        return next((family for glob, family in self.rules if lies_within(layer, glob)), self.rest)

    @property
    def families(self) -> tuple[str, ...]:
        """Names of all families, "dense" and "none" among them, each once."""
        return tuple(dict.fromkeys((*(family for _, family in self.rules), self.rest)))


def rules_in(text: str) -> tuple[tuple[str, str], ...]:
    """Globs and names of families in a text such as `attn.*=parallel, wide`; a name alone is for `*`, and comes last.

    Raises:
        InputError: two names for the rest, an empty part, or nothing at all.

    Example:
        >>> rules_in("wide, encoder.*=parallel")
        (('encoder.*', 'parallel'), ('*', 'wide'))
    """
    parts = [part.strip() for part in text.split(",")]
    pairs = [tuple(side.strip() for side in part.rpartition("=")[::2]) for part in parts]
    for part, (glob, family) in zip(parts, pairs, strict=True):
        if not family or ("=" in part and not glob):
            raise InputError(
                f"`family={text!r}`: {part!r} is not a family, and not a path with its family. Write `family='PATH=FAMILY'`, "
                "such as 'encoder.*=parallel'."
            )
    rest = [family for glob, family in pairs if not glob]
    if len(rest) > 1:
        raise InputError(
            f"`family={text!r}` names {len(rest)} families, and a layer has one. Give the layers of each, as in "
            f"'encoder.*={rest[0]}, {rest[1]}', choose between them with {'|'.join(rest)!r} and an objective, or make a "
            "plan for each with `iftplan sweep`."
        )
    return (*((glob, family) for glob, family in pairs if glob), *(("*", family) for family in rest))


def parse_assignment(text: str) -> Assignment:
    """Assignment that a text holds; a single name is the family of all layers.

    Raises:
        InputError: it cannot be read.
    """
    return assignment_of(rules_in(text))


def assignment_of(pairs: Sequence[tuple[str, str]]) -> Assignment:
    """Assignment of pairs of a glob and a name; what comes after `*` is out of every layer's reach, and refused.

    Raises:
        InputError: a path that no layer can reach.
    """
    globs = [glob for glob, _ in pairs]
    if "*" not in globs:
        return Assignment(tuple(pairs), DENSE)
    last = globs.index("*")
    if globs[last + 1 :]:
        raise InputError(
            f"`family`: {globs[last + 1]!r} comes after '*', which takes all layers. Put '*' at the end."
        )
    return Assignment(tuple(pairs[:last]), pairs[last][1])


def check_reached(assignment: Assignment, layers: Sequence[str], model: str) -> None:
    """Refuse globs that decide no layer's family.

    Args:
        assignment: of families to layers.
        layers: names of the model's layers.
        model: what messages call it.

    Raises:
        InputError: a path that no layer matches, with the nearest names, or one whose layers earlier ones take.
    """
    left = list(layers)
    for glob, _ in assignment.rules:
        taken = [name for name in left if lies_within(name, glob)]
        if not taken:
            raise InputError(_unreached(glob, layers, model))
        left = [name for name in left if not lies_within(name, glob)]


def _unreached(glob: str, layers: Sequence[str], model: str) -> str:
    if any(lies_within(name, glob) for name in layers):
        return f"`family`: all layers that {glob!r} matches are in the families of earlier paths. Put it before them."
    meant = did_you_mean(glob, _paths(layers), most=3, cutoff=0)
    return f"`family`: no layer of {model} matches {glob!r}.{meant}"


def _paths(layers: Sequence[str]) -> Iterator[str]:
    """Layers, and the modules that they lie in."""
    for name in layers:
        parts = name.split(".")
        yield from (".".join(parts[:end]) for end in range(len(parts), 0, -1))


@dataclass(frozen=True, slots=True)
class Policy:
    """Request for a plan, every choice a value: family, sparsity, scope, and how the budget is spread and closed.

    Attributes:
        family: what layers are transformed into; None for plain sparsity at the same width.
        sparsity: the fraction of zeros, in [0, 1).
        scope: which MACs are held equal to the budget, by default the dense model's.
        distribution: how density is spread over the transformed layers.
        keep_dense: "first", "last" or names of layers that stay dense.
        close_by: what gives way when layers that stay dense grow: density, width, or under N:M masks the budget,
            which whole patterns then leave a part of.
        round_to: widths become multiples of this.
        rounding: "cover" takes the smallest widths that cover the budget at the density asked for; "floor" rounds the
            smallest width of the model down and multiplies the others by the same factor where they are multiples of it,
            as the code of arXiv 2303.11525 does. Masks close the budget either way.
        pointwise: whether 1×1 convolutions are "transformed" as all others are, or only "masked" where others get
            branches or a rank, as in the code of arXiv 2303.11525, whose 1×1 convolutions are all on shortcuts.
        power: exponent of the ER and ERK probabilities.
        within: modules that alone are transformed and widened, a path with `*` and `?`; empty for the whole model.
        mask: what masks may look like. N:M fixes the density, so there the width closes, as the smallest that covers
            the budget; what is too much is taken from some groups, which keep N-1.
        budget: MACs of the scope; None for the dense model's, and for plain sparsity that closes no scope. Plain sparsity
            with a budget has the sparsity that closes it, whatever `sparsity` says.
        mixture: experts in the place of feed-forward blocks, without a family and without masks; None for none.
        attention: pattern that attention keeps, by whose pairs it is counted before and after; None for the full count.
        attention_before: pattern of the dense model's attention where shapes do not tell what its mask keeps.
        assignment: which layers are in which family where there are several; `family` is then the rest's.
        beside: families that the assignment names beside that one.

    Raises:
        InputError: a sparsity outside [0, 1), or settings that do not go together.
    """

    family: Family | None
    sparsity: Fraction
    scope: Scope = Scope.LAYERS
    distribution: Distribution = Distribution.UNIFORM
    keep_dense: frozenset[str] = frozenset({"first", "last"})
    close_by: CloseBy = "density"
    round_to: int = 1
    rounding: Rounding = "cover"
    pointwise: Pointwise = "transformed"
    power: int = 1
    within: str = ""
    mask: MaskStructure = field(default_factory=Unstructured)
    budget: Budget | None = None
    mixture: Mixture | None = None
    attention: AttentionPattern | None = None
    attention_before: AttentionPattern | None = None
    assignment: Assignment | None = None
    beside: tuple[Family, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise InputError(f"sparsity {self.sparsity} is outside [0, 1).")
        if self.scope is Scope.MODULE and not self.within:
            raise InputError("scope 'module' needs the name of a module. Write `scope='module:NAME'`.")
        if self.attention_before and not self.attention:
            raise InputError(
                f"`attention_before={str(self.attention_before)!r}` needs a pattern that attention is to keep. Give `attention` too."
            )
        if self.round_to < 1:
            raise InputError(f"widths cannot be rounded to a multiple of {self.round_to}; the smallest is 1.")
        for family in self.families:
            self._check_family(family)
        if self.close_by == "pattern" and self.mask.density is None:
            raise InputError(
                f"`close='pattern'` keeps every N:M pattern whole, but {self.mask} masks have no such pattern. Use "
                "`close='density'` or `close='width'`, or an N:M structure such as `mask='2:8'`."
            )
        if self.close_by != "density" and not self.widens:
            raise InputError(
                f"`close={self.close_by!r}` needs a family that widens layers: wide, nm or lowrank."
            )

        if self.budget is not None and not self.families and self.mask.density is not None:
            raise InputError(
                f"{self.mask} masks fix the density, so plain sparsity cannot meet a budget with them. Use "
                "unstructured masks, or `family='wide'`, whose widths meet it."
            )

    def _check_family(self, family: Family) -> None:
        if self.mask.density is not None and not self._closes_beside_masks(family):
            raise InputError(
                f"{self.mask} masks fix the density, so only wider layers can meet the budget, and {family.name} "
                "keeps the width; use wide or nm."
                + (" Doped meets it by its rank." if self.mask.rigid else "")
            )
        if family.solves_width and not family.definition.widens:
            raise InputError(
                f"{family.name} widens a layer's outputs but not its inputs, and in a model the outputs of one "
                "layer are the inputs of the next. Use a family whose cost grows as k**2; this one works for single "
                "layers, in solve."
            )

    @property
    def families(self) -> tuple[Family, ...]:
        """All families that layers are transformed into; none for plain sparsity."""
        return (*((self.family,) if self.family else ()), *self.beside)

    @property
    def transform(self) -> str:
        """Name of the family, or the paths and the names of several, as documents hold it."""
        return str(self.assignment) if self.assignment else self.family.name if self.family else PLAIN

    def family_name(self, layer: str) -> str:
        """Name of a layer's family: "none" where it is only masked, "dense" where it is not even that."""
        return self.assignment.of(layer) if self.assignment else self.transform

    def family_of(self, layer: str) -> Family | None:
        """Family of a layer; None where it keeps its structure."""
        if self.assignment is None:
            return self.family
        name = self.family_name(layer)
        return next((family for family in self.families if family.name == name), None)

    def leaves_dense(self, layer: str) -> bool:
        """Whether a layer is in no family, not even that of plain sparsity."""
        return self.family_name(layer) == DENSE

    @property
    def widens(self) -> bool:
        """Whether layers grow wider, so that a model has to be read with its widths."""
        return any(family.definition.widens for family in self.families)

    def moves(self, layer: str) -> bool:
        """Whether the widths of a layer grow by its own family, rather than with its neighbours."""
        family = self.family_of(layer)
        return self.covers(layer) and family is not None and family.definition.widens

    @property
    def reads_widths(self) -> bool:
        """Whether a model is read with its widths: to widen it, or to find its feed-forward blocks by them."""
        return self.widens or self.mixture is not None

    def _closes_beside_masks(self, family: Family) -> bool:
        """Whether something else than masks can meet a budget: widths, or a rank beside masks without choice."""
        return family.solves_width or (self.mask.rigid and family.name == "doped")

    def covers(self, name: str) -> bool:
        """Whether a layer lies in the modules that are planned."""
        return not self.within or lies_within(name, self.within)

    @property
    def closes(self) -> bool:
        """Whether a scope is closed; plain sparsity closes one only at a budget."""
        return bool(self.families) or self.budget is not None or self.mixture is not None

    def budget_of(self, dense: int) -> int:
        """MACs that a scope may cost whose dense cost is this."""
        return (self.budget or Budget()).of(dense)

    @property
    def scope_name(self) -> str:
        """Name of the scope, with the module that it is of."""
        return scope_text(self.scope, self.within)

    @property
    def density(self) -> Fraction:
        """Density 1 - sparsity, a fraction of 1."""
        return 1 - self.sparsity

    @property
    def whole_patterns(self) -> bool:
        """Whether every group of an N:M mask keeps its N, so that the pattern fixes the density."""
        return self.mask.density is not None and (
            not self.families or self.close_by == "pattern" or self.mask.rigid
        )

    @property
    def width_unit(self) -> int:
        """Number that new widths must be multiples of."""
        return lcm(self.round_to, *self.mask.multiples)
