"""What a law can be asked, and how each law answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from types import MappingProxyType

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.units import abbreviate
from iftplan.runs.laws.advice.answer import LawAnswer
from iftplan.runs.laws.average import BEGIN, END, average_density
from iftplan.runs.laws.budget import Optimum, optimum
from iftplan.runs.laws.fine_grained import EXPANSION
from iftplan.runs.laws.fitting.fit import LawFit
from iftplan.runs.laws.fitting.runs import result_column
from iftplan.runs.laws.joint_moe import ExpertShape
from iftplan.runs.laws.law import Law
from iftplan.runs.laws.routed import dense_equivalent

EXPERTS = (1, 2, 4, 8, 16, 32)
ROUTED_EXPERTS = (1, 8, 64, 128, 512)
SPARSITIES = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98)
GRANULARITIES = (1, 2, 4, 8, 16, 32)
PRUNED = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
TOKENS = (10e9, 30e9, 100e9, 300e9, 800e9)
BUDGETS = (0.01, 0.1, 1, 10, 100)


@dataclass(frozen=True, slots=True)
class LawQuestion:
    """Question to a law; what is None takes the law's default or is left to it.

    Attributes:
        params: model size, as the law counts parameters; None to choose the best for the compute.
        compute: FLOPs of training, two for each MAC.
        memory: numbers that the memory for weights, keys and values holds.
        context: tokens whose keys and values are in that memory.
        served: tokens of inference that the compute pays for too.
        tokens: training tokens.

    Raises:
        InputError: a number that no size can be.
    """

    params: float | None = None
    compute: float | None = None
    memory: float | None = None
    context: float | None = None
    served: float | None = None
    tokens: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no size can be."""
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if value is None:
                continue
            none = name in ("context", "served")
            if not isfinite(value) or value < 0 or (value == 0 and not none):
                raise InputError(
                    f"`{name}` is {value:g}; it must be a finite number {'from 0 on' if none else 'above 0'}."
                )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A law and its question, while it is answered."""

    law: Law
    fit: LawFit | None
    params: float | None
    compute: float
    memory: float | None
    context: float
    served: float
    tokens: float | None

    def row(self, at: Mapping[str, float], **more: float) -> Mapping[str, float]:
        """A row with the loss at these variables, and its interval where the law was fitted."""
        key, law = result_column(self.law), self.law
        ends = self.fit.loss_interval(**at) if self.fit else None
        interval = {f"{key}_low": ends[0], f"{key}_high": ends[1]} if ends else {}
        return {**more, key: law.loss(**at), **interval}

    def split(
        self, active: Callable[[float], float] = lambda n: n, most: float | None = None, **chosen: float
    ) -> Optimum:
        """The size that was asked for with the data that its compute leaves, or the best of both."""

        def loss(n: float, d: float) -> float:
            return self.law.loss(params=n, data=d, **chosen)

        if self.params is None:
            return optimum(loss, self.compute, active=active, served=self.served, most=most)
        data = (self.compute / active(self.params) - 2 * self.served) / 6
        if data <= 0:
            raise InfeasibleError(
                f"{self.compute:.3g} FLOPs do not pay for {abbreviate(self.served)} tokens of inference with "
                f"{abbreviate(self.params)} parameters, and nothing is left for training; give more than "
                f"{2 * active(self.params) * self.served:.3g}."
            )
        return Optimum(self.params, data, loss(self.params, data))

    def answer(
        self,
        ats: Iterable[Mapping[str, float]],
        rows: Iterable[Mapping[str, float]],
        *notes: str,
        rivals: bool = True,
    ) -> LawAnswer:
        """The rows as an answer, the notes of their variables after its own.

        Args:
            ats: variables of each row.
            rows: of the answer.
            notes: of the answer.
            rivals: whether the row with the least loss is the best.
        """
        rows, key = tuple(rows), result_column(self.law)
        best = min(range(len(rows)), key=lambda i: rows[i][key]) if rivals and len(rows) > 1 else None
        limits = dict.fromkeys(
            note for at in ([*ats] if best is None else [[*ats][best]]) for note in self.law.notes(**at)
        )
        return LawAnswer(self.law, {}, rows, best, (*notes, *limits), self.fit)


def _dense(a: _Asked) -> LawAnswer:
    budgets = [a.compute * times for times in (BUDGETS if a.params is None else (1,))]
    found = [replace(a, compute=compute).split() for compute in budgets]
    ats = [{"params": o.params, "data": o.data} for o in found]
    rows = [
        a.row(at, compute=compute, params=at["params"], data=at["data"])
        for compute, at in zip(budgets, ats, strict=True)
    ]
    return a.answer(ats, rows, rivals=False)


def _joint_moe(a: _Asked) -> LawAnswer:
    shape, ats, rows, left_out = ExpertShape(), [], [], []
    for experts in EXPERTS:
        try:
            most = None if a.memory is None else shape.largest(a.memory, experts, a.context)
        except InfeasibleError:
            left_out.append(experts)
            continue
        if most is not None and a.params is not None and a.params > most:
            left_out.append(experts)
            continue
        found = a.split(most=most, experts=experts)
        width = shape.width(found.params)
        ats.append({"params": found.params, "data": found.data, "experts": float(experts)})
        rows.append(
            a.row(
                ats[-1], experts=experts, active_params=found.params, total_params=shape.total(width, experts),
                **({} if a.memory is None else {"memory": shape.memory(width, experts, a.context)}), data=found.data,
            )
        )  # fmt: skip
    if not rows:
        raise InfeasibleError(
            f"no model {'' if a.params is None else f'of {abbreviate(a.params)} active parameters '}fits into a memory "
            f"of {abbreviate(a.memory or 0)} numbers with {abbreviate(a.context)} tokens of context; one without "
            f"experts of 100 M active parameters needs {abbreviate(shape.memory(shape.width(1e8), 1, a.context))}."
        )
    notes = [
        "at most 8 experts beat the dense model of as many parameters in all, if trained on E times its tokens "
        "(arXiv 2502.05172)",
        f"all parameters and memory are those of a vocabulary of {shape.vocabulary:g} and a width of "
        f"{shape.aspect:g} times the layers",
    ]
    if left_out:
        notes.append(f"does not fit into the memory: {', '.join(map(str, left_out))} experts")
    return a.answer(ats, rows, *notes)


def _moe_sparsity(a: _Asked) -> LawAnswer:
    ats, rows = [], []
    for s in SPARSITIES:
        found = a.split(active=lambda n, kept=1 - s: n * kept, sparsity=s)  # type: ignore[misc]
        ats.append({"params": found.params, "data": found.data, "sparsity": s})
        rows.append(
            a.row(
                ats[-1],
                sparsity=s,
                total_params=found.params,
                active_params=found.params * (1 - s),
                data=found.data,
            )
        )
    return a.answer(
        ats, rows,
        "(1 - S)·N parameters are counted as active; attention and embeddings, which always are, make it more",
    )  # fmt: skip


def _fine_grained(a: _Asked) -> LawAnswer:
    if "granularity" not in {v.name for v in a.law.variables}:
        return _dense(a)
    ats, rows = [], []
    for g in GRANULARITIES:
        active = _active_of_fine_grained(g)
        found = a.split(active=active, granularity=g)
        ats.append({"params": found.params, "data": found.data, "granularity": float(g)})
        rows.append(
            a.row(
                ats[-1],
                granularity=g,
                total_params=found.params,
                active_params=active(found.params),
                data=found.data,
            )
        )
    return a.answer(
        ats, rows,
        "active parameters are those of attention (4d²), of one expert's worth (8d²) and of the router (64·G·d) in each "
        "layer, at a width of 64 times the layers",
    )  # fmt: skip


def _active_of_fine_grained(granularity: float) -> Callable[[float], float]:
    """Active parameters of N in all: N = L·(4 + 8·64)·d², N_active = L·(12·d² + 64·G·d), d = 64·L."""
    aspect = ExpertShape().aspect

    def active(params: float) -> float:
        width = (params * aspect / (4 + 8 * EXPANSION)) ** (1 / 3)
        return float((12 * width**3 + EXPANSION * granularity * width**2) / aspect)

    return active


def _routed(a: _Asked) -> LawAnswer:
    params = a.params or 1e9
    ats = [{"params": params, "experts": float(e)} for e in ROUTED_EXPERTS]
    rows = [
        a.row(at, experts=at["experts"], dense_params=dense_equivalent(a.law, params, at["experts"]))
        for at in ats
    ]
    return a.answer(ats, rows)


def _average(a: _Asked) -> LawAnswer:
    found = a.split()
    at = {"params": found.params, "data": found.data}
    rows = []
    for s in PRUNED:
        density = average_density(1 - s)
        first = found.params / density
        rows.append(
            a.row(
                at, sparsity=s, average_density=density, first_params=first, final_params=first * (1 - s), data=found.data
            )
        )  # fmt: skip
    return a.answer(
        [at], rows,
        f"weights are pruned from {BEGIN:.0%} to {END:.0%} of training, by the same factor with each step, as "
        "arXiv 2501.12486 advises",
        "compute is 6 FLOPs for each token and parameter of the average: what is pruned is taken to save it",
        rivals=False,
    )  # fmt: skip


def _activation(a: _Asked) -> LawAnswer:
    tokens = (a.tokens,) if a.tokens is not None else TOKENS
    ats = [{"data": d} for d in tokens]
    rows = []
    for at in ats:
        row = dict(a.row(at, data=at["data"]))
        rows.append({**row, "sparsity": 1 - row[result_column(a.law)]})
    limit = f"with ever more tokens the ratio approaches {a.law.constants['A_0']:g}"
    return a.answer(ats, rows, limit, rivals=False)


@dataclass(frozen=True, slots=True)
class _Way:
    answer: Callable[[_Asked], LawAnswer]
    takes: tuple[str, ...]


_WAYS: Mapping[str, _Way] = MappingProxyType(
    {
        "dense": _Way(_dense, ("params", "compute", "served")),
        "average": _Way(_average, ("params", "compute", "served")),
        "joint-moe": _Way(_joint_moe, ("params", "compute", "memory", "context", "served")),
        "moe-sparsity": _Way(_moe_sparsity, ("params", "compute", "served")),
        "fine-grained-moe": _Way(_fine_grained, ("params", "compute", "served")),
        "routed": _Way(_routed, ("params",)),
        "activation": _Way(_activation, ("tokens",)),
    }
)


def ask(law: Law, question: LawQuestion, fit: LawFit | None = None) -> LawAnswer:
    """Answer of a law to a question.

    Args:
        law: any but the sparse one, whose answer is `Advice`.
        question: sizes and budgets.
        fit: the fit that the law's constants are of, where they are no published ones.

    Raises:
        InputError: the law cannot be asked that.
        InfeasibleError: nothing fits the budget.

    Example:
        >>> from iftplan.runs.laws.named import published
        >>> answer = ask(published("joint-moe"), LawQuestion(compute=1e20))
        >>> f"{answer.rows[0]['active_params']:.2e} {answer.rows[0]['data']:.2e}"
        '1.73e+09 9.65e+09'
    """
    if law.name not in _WAYS:
        raise InputError(
            f"`ask` does not answer for the law {law.name}; iftplan.runs.Advice does: Advice(law, params, compute)."
        )
    way = _WAYS[law.name]
    given = {f.name: value for f in fields(question) if (value := getattr(question, f.name)) is not None}
    for name in given:
        if name not in way.takes:
            raise InputError(
                f"the law {law.name} is not asked for `{name}`; it takes {', '.join(f'`{taken}`' for taken in way.takes)}."
            )
    if "context" in given and "memory" not in given:
        raise InputError("`context` takes a part of the memory; give `memory` with it.")
    compute = {"compute": given.get("compute", 1e20)} if "compute" in way.takes else {}
    params = {"params": given.get("params", 1e9)} if law.name == "routed" else {}
    asked = _Asked(
        law, fit, given.get("params"), compute.get("compute", 0.0), given.get("memory"), given.get("context", 0.0),
        given.get("served", 0.0), given.get("tokens"),
    )  # fmt: skip
    return replace(way.answer(asked), asked={**compute, **params, **given})
