"""One layer, one family, one sparsity: the structure, the counts and what is left over, in whole numbers."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.units import count, decimal_text
from iftplan.families.closed_forms import FORMS
from iftplan.families.family import Family
from iftplan.families.integers import integer_structure
from iftplan.families.solution import Outcome, Solution, Structure
from iftplan.families.symbolic.special import Special, special_form
from iftplan.masks import NM, MaskStructure, Matrices, Unstructured, stack_close, stack_log2_masks
from iftplan.masks.cardinality import Cardinality
from iftplan.models.spec import WEIGHTLESS, LayerSpec


def solve(
    layer: LayerSpec,
    family: Family,
    sparsity: Fraction,
    *,
    mask: MaskStructure | None = None,
    round_to: int = 1,
    throw: bool = True,
) -> Solution:
    """Realise `layer` in `family` at the MACs of the dense layer.

    The structure is the integer whose capacity covers the budget; nnz then closes it to the MAC
    (arXiv 2303.11525, section 3, in whole numbers).

    Args:
        layer: the dense layer; with symbolic channels only the closed form comes back.
        family: from `iftplan.families.builtin` or of your own (`iftplan.families.derivation.family`).
        sparsity: the fraction of zeros, in [0, 1).
        mask: what masks may look like; any by default, N:8 for N:M Wide.
        round_to: widths become multiples of this.
        throw: raise when infeasible, rather than returning the reason.

    Raises:
        InfeasibleError: no structure satisfies the equation; names the nearest sparsity that does.
        InputError: `round_to` is less than 1, or the mask is not one of the family's.

    Example:
        >>> from iftplan.families.builtin import FAMILIES
        >>> from iftplan.models.notation import parse_layer
        >>> s = solve(parse_layer("linear:64-64"), FAMILIES["wide"], Fraction(1, 2))
        >>> s.structure["out_channels"], s.nnz, s.residual_macs
        (91, 4096, 0)
    """
    if round_to < 1:
        raise InputError(f"widths cannot be rounded to a multiple of {round_to}; the smallest is 1.")
    try:
        return _solve(layer, family, sparsity, mask, round_to)
    except InfeasibleError as error:
        reason = f"{error} {_nearest(layer, family, sparsity, mask, round_to)}".strip()
        if throw:
            raise InfeasibleError(reason) from error
        return Solution(
            layer,
            family.name,
            sparsity,
            *forms(layer, family),
            Outcome.INFEASIBLE,
            {family.definition.structure: None},
            reason=reason,
        )


def _solve(
    layer: LayerSpec, family: Family, sparsity: Fraction, mask: MaskStructure | None, round_to: int
) -> Solution:
    mask = mask_for(family, sparsity, mask)
    if not layer.positions or layer.kind in WEIGHTLESS:
        return _unchanged(layer, family, sparsity, Outcome.FREE)
    if layer.depthwise and not family.solves_width:
        return _unchanged(layer, family, sparsity, Outcome.LEFT_ALONE)
    if layer.groups > 1 and family.definition.grid is not None:
        return _unchanged(layer, family, sparsity, Outcome.GROUPED)
    if layer.symbolic:
        return _symbolic(layer, family, sparsity)
    real = integer_structure(layer, family, 1 - sparsity, mask, round_to)
    budget = layer.weights + layer.products_per_position - real.layer.products_per_position - real.dense_uses
    if budget < 0 or (budget == 0 and real.capacity):
        raise InfeasibleError(
            f"{family.name}: at sparsity {decimal_text(sparsity)} what is not masked of {layer.name}"
            f"{' (the attention products)' if layer.products_per_position else ''} alone would cost at least as much as the dense layer."
        )
    nnz = stack_close(mask, real.matrices, layer.experts, budget)
    if not nnz and real.capacity:
        raise InfeasibleError(
            f"{family.name}: at sparsity {decimal_text(sparsity)} {mask} masks leave no weight of {layer.name}, whose budget is {count(budget)} weights."
        )
    macs = layer.positions * (real.dense_uses + nnz + real.layer.products_per_position) // layer.experts
    return Solution(
        layer,
        family.name,
        sparsity,
        *forms(layer, family),
        Outcome.EXACT if macs == layer.dense_macs else Outcome.RESIDUAL,
        real.structure,
        nnz,
        real.capacity,
        real.dense_weights,
        macs,
        layer.dense_macs,
        cardinality=Cardinality(real.capacity, stack_log2_masks(mask, real.matrices, layer.experts, nnz)),
        reuse=real.reuse,
        reason=_shortage(mask, real.matrices, nnz),
    )


def _shortage(mask: MaskStructure, matrices: Matrices, nnz: int) -> str:
    short = mask.shortage([(matrices, nnz)])
    return f"{short} to close the budget" if short else ""


def mask_for(family: Family | None, sparsity: Fraction, mask: MaskStructure | None) -> MaskStructure:
    """The mask structure to use: the given one if the density allows it, N:8 for N:M Wide, else any.

    Args:
        family: None for plain sparsity.
        sparsity: the fraction of zeros, in [0, 1).
        mask: what was asked for, if anything.

    Raises:
        InfeasibleError: the density is not N/M.
        InputError: N:M Wide with a structure that is not N:M.
    """
    density = 1 - sparsity
    patterned = family is not None and family.name == "nm"
    if patterned and mask is None:
        of = 8
        if (density * of).denominator != 1:
            near = Fraction(max(1, round(density * of)), of)
            raise InfeasibleError(
                f"nm: a density of {decimal_text(density)} does not correspond to an N:8 pattern; the nearest is "
                f"{near * of}:8, sparsity {decimal_text(1 - near)}, or choose another pattern with `mask='N:M'`."
            )
        mask = NM(int(density * of), of)
    if patterned and not isinstance(mask, NM):
        raise InputError(f"nm: N:M Wide takes an N:M mask such as 2:8, not {mask}; use wide with {mask}.")
    if mask is not None and mask.density is not None and mask.density != density:
        raise InfeasibleError(
            f"{mask} masks have sparsity {decimal_text(1 - mask.density)}, not {decimal_text(sparsity)}; the nearest is `sparsity={decimal_text(1 - mask.density)!r}`."
        )
    return mask or Unstructured()


def forms(layer: LayerSpec, family: Family) -> tuple[str, str, str]:
    """Closed form as text and LaTeX, and the search space's formula, for any channels."""
    root = family.form.root(layer)
    return root.text, root.latex, family.form.maskable


def _unchanged(layer: LayerSpec, family: Family, sparsity: Fraction, outcome: Outcome) -> Solution:
    """The dense layer itself; nothing is masked, so there is nothing to search."""
    weights, macs = (None, None) if layer.symbolic else (layer.weights, layer.dense_macs)
    return Solution(
        layer,
        family.name,
        sparsity,
        *forms(layer, family),
        outcome,
        {},
        weights,
        weights,
        0,
        macs,
        macs,
        cardinality=Cardinality(0, 0.0),
    )


def _symbolic(layer: LayerSpec, family: Family, sparsity: Fraction) -> Solution:
    special = _special(layer, family, 1 - sparsity)
    structure: Structure = {family.definition.structure: special.value}
    if family.definition.widens:
        structure = {"in_channels": None, "out_channels": None, "multiplier": None, **structure}
    return Solution(
        layer,
        family.name,
        sparsity,
        special.text,
        special.latex,
        special.search_space,
        Outcome.SYMBOLIC,
        structure,
    )


def _special(layer: LayerSpec, family: Family, density: Fraction) -> Special:
    """By the generated code, which takes symbols too; by SymPy for families of one's own, and for those that say so."""
    if family.form is FORMS.get(family.name) and not family.definition.simplified:
        with suppress(
            OverflowError
        ):  # a density of ten digits and more, whose roots SymPy has its own way with
            return special_form(layer, family, density)
    from iftplan.families.steps import specialise

    return specialise(layer, family, density)


def _nearest(
    layer: LayerSpec, family: Family, sparsity: Fraction, mask: MaskStructure | None, round_to: int
) -> str:
    """A sentence with the nearest sparsity, in steps of a thousandth, that is feasible."""
    if family.name == "nm" or (mask is not None and mask.density is not None):
        return ""
    thousandths = (Fraction(i, 1000) for i in range(1000))
    for candidate in sorted(thousandths, key=lambda other: abs(other - sparsity)):
        try:
            _solve(layer, family, candidate, mask, round_to)
        except InfeasibleError:
            continue
        return f"The nearest feasible sparsity is {decimal_text(candidate)}."
    return "No sparsity makes it feasible."
