"""Public functions given something else than what they take: an `InputError` that names the argument and what can stand there."""

import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from types import ModuleType
from typing import Any

import pytest

import iftplan
from iftplan.base.arguments import check_arguments, names_in, one_of
from iftplan.base.errors import IftplanError, InputError
from tests.support.hand_specs import chain

ift: Any = iftplan  # what is given here is what its annotations forbid
MODEL = chain()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ift.plan(MODEL, "wide", 0.75, scope="all"), "scope 'all' is none of matrices, layers, model and module:NAME. Did you mean 'module:all'?"),
        (lambda: ift.plan(MODEL, "wide", 0.75, distribution="erkk"), "Did you mean 'erk'?"),
        (lambda: ift.plan(MODEL, "wide", 0.75, close="dens"), "Did you mean 'density'?"),
        (lambda: ift.plan(MODEL, "wide", 0.75, heads="sizes"), "Did you mean 'size'?"),
        (lambda: ift.plan(MODEL, "wide", 0.75, objective="time"), "'flops', 'wallclock'"),
        (lambda: ift.plan(MODEL, "wide", 0.75, passes="back"), "'forward', 'step'"),
        (lambda: ift.plan(MODEL, "wide", 0.75, parametrization="super"), "Did you mean 'supar'?"),
        (lambda: ift.plan(MODEL, "wide", 0.75, optimizer="sgdm"), "Did you mean 'sgd'?"),
        (lambda: ift.plan(MODEL, "wide", 0.75, round_to="8"), "round_to is '8', but it must be a whole number"),
        (lambda: ift.plan(MODEL, "wide", 0.75, mask=28), "mask is 28, but it must be text or None"),
        (lambda: ift.plan(MODEL, "wide", 0.75, keep_dense=3), "keep_dense is 3, but it must be text, an iterable or None"),
        (lambda: ift.plan(MODEL, "wide", 0.75, keep_dense=[3]), "keep_dense takes names as strings, not 3"),
        (lambda: ift.plan(MODEL, "wide", 0.75, structure="2:8"), "unexpected keyword argument 'structure'; it takes model, family"),
        (lambda: ift.plan(MODEL), "missing a required argument: 'family'"),
        (lambda: ift.plan(MODEL, "wide", [3]), "sparsity is a list, but it must be text, a number, a fraction or None"),
        (lambda: ift.plan(MODEL, 3, 0.75), "family is 3, but it must be text, a Family"),
        (lambda: ift.plan(MODEL, "wide", 0.75, batch=32), "batch belong to times, which `objective='wallclock'` alone looks at"),
        (lambda: ift.plan(MODEL, "wide", 0.75, profile="machine.json", passes="step"), "profile and passes belong to times"),
        (lambda: ift.plan("zoo:digit-cnn", "wide", 0.75), "the zoo has no model 'digit-cnn'. Did you mean 'zoo:digits-cnn'"),
        (lambda: ift.plan("wide", MODEL, 0.75), "family is a ModelSpec, but it must be text, a Family"),
        (lambda: ift.plan(MODEL, "wide", 0.75, inputs="1x3"), "this model is read already. Give them to read_model"),
        (lambda: ift.read_model("zoo:digits-cnn", "1x1x8x8", inputs="1x1x8x8"), "given twice"),
        (lambda: ift.solve(3, "wide", 0.5), "layer is 3, but it must be text or LayerSpec"),
        (lambda: ift.solve("linear:3-4", "wide", 0.5, round_to=0), "cannot be rounded to a multiple of 0"),
        (lambda: ift.audit(MODEL, []), "subject is a ModelSpec, but it must be a Plan"),
        (lambda: ift.audit(ift.plan(MODEL, "wide", 0.5), [3]), "compared with count tables"),
        (lambda: ift.audit(ift.plan(MODEL, "wide", 0.5), inputs="1x3"), "inputs belong to a network"),
        (lambda: ift.save("plan.json", ift.plan(MODEL, "wide", 0.5)), "value and path seem to be swapped"),
        (lambda: ift.load(3), "path is 3, but it must be text"),
        (lambda: ift.family("own"), "missing a required argument"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named_with_what_can_stand_there(call: Callable[..., Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert says in str(caught.value)


def test_one_name_is_one_name_and_none_is_plain_sparsity_as_on_the_command_line() -> None:
    assert ift.plan(MODEL, "wide", 0.75, keep_dense="first") == ift.plan(
        MODEL, "wide", 0.75, keep_dense=["first"]
    )
    assert ift.plan(MODEL, "wide", 0.75, keep_dense="none") == ift.plan(MODEL, "wide", 0.75, keep_dense=())
    assert ift.plan(MODEL, "none", 0.75) == ift.plan(MODEL, None, 0.75)


def test_a_swapped_pair_is_called_one() -> None:
    torch = pytest.importorskip("torch")
    from iftplan import nn

    apply: Any = nn.apply
    plan = ift.plan(MODEL, "wide", 0.75)
    with pytest.raises(InputError, match="plan and model seem to be swapped"):
        apply(torch.nn.Linear(3, 3), plan)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        (
            "RigL",
            "delta_t",
            r"RigL: .* 'delta_t'; it takes .*interval, begin, end\. Did you mean 'interval'\?",
        ),
        ("SET", "drop_fraction", r"SET: .* Did you mean 'fraction'\?"),
        ("Gradual", "T_end", r"Gradual: .* Did you mean 'end'\?"),
        ("Static", "seed", r"Static: .*; it takes no arguments\."),
        ("STE", "refesh", r"STE: .* Did you mean 'refresh'\?"),
    ],
)
def test_a_keyword_that_an_algorithm_does_not_have_names_those_that_it_has(
    name: str, given: str, says: str
) -> None:
    pytest.importorskip("torch")
    from iftplan import nn

    with pytest.raises(InputError, match=says):
        getattr(nn, name)(**{given: 3})


def test_every_algorithm_of_a_run_refuses_unknown_keywords() -> None:
    pytest.importorskip("torch")
    from iftplan.nn.masking.algorithms import run_methods

    for method in run_methods().values():
        with pytest.raises(InputError, match="got an unexpected keyword argument 'nonsense'"):
            method(**{"nonsense": 3})


class Thing:
    """Nothing that any function takes."""


def _functions(module: ModuleType) -> list[Any]:
    found = ((name, getattr(module, name)) for name in module.__all__)
    return [pytest.param(f, id=f"{module.__name__}.{name}") for name, f in found if inspect.isfunction(f)]


@pytest.mark.parametrize("function", _functions(ift))
def test_no_function_fails_from_inside_whatever_it_is_given(function: Callable[..., Any]) -> None:
    _given_things(function)


def test_no_function_of_the_torch_side_fails_from_inside_whatever_it_is_given() -> None:
    pytest.importorskip("torch")
    from iftplan import nn

    tried = [param.values[0] for param in _functions(nn)]
    assert len(tried) > 20
    for function in tried:
        _given_things(function)


def _given_things(function: Callable[..., Any]) -> None:
    """One argument after the other is a thing of no use; those before it too."""
    parameters = inspect.signature(function).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    values: tuple[object, ...] = (Thing(), 3, None, "nonsense", [], {})
    for value in values:
        with suppress(IftplanError):  # some take a number, or a mapping of nothing
            function(*[value] * len(required))
    with pytest.raises(IftplanError):
        function(*[Thing()] * len(required))
    with pytest.raises(InputError):
        function()


def test_choices_and_names() -> None:
    assert one_of("scope", "layers", ("layers", "model")) == "layers"
    assert names_in("keep_dense", {"a"}) == ("a",)
    with pytest.raises(
        InputError, match=r"'layer' is not one of its choices: 'layers', 'model'\. Did you mean 'layers'\?"
    ):
        one_of("scope", "layer", ("layers", "model"))


def test_what_cannot_be_seen_at_once_is_left_to_the_function() -> None:
    @check_arguments
    def f(a: "Absent | int", b: list[int], *c: str) -> None:  # type: ignore[name-defined] # noqa: F821
        return None

    given: Any = f
    given("anything", ["no number"], "x")
    with pytest.raises(InputError, match="f: b is 3, but it must be list"):
        given(1, 3)
    with pytest.raises(InputError, match="f: c is 2, but it must be text"):
        given(1, [], "x", 2)


def test_a_function_that_finds_no_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    @check_arguments
    def audit(subject: int) -> int:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    with pytest.raises(
        InputError,
        match=r"audit needs PyTorch, which cannot be imported \(No module named 'torch'\)\. Install it with: pip",
    ):
        audit(1)

    @check_arguments
    def other(subject: int) -> int:
        raise ModuleNotFoundError("No module named 'apple'", name="apple")

    with pytest.raises(ModuleNotFoundError, match="apple"):
        other(1)


class Side(StrEnum):
    LEFT = "left"
    RIGHT = "right"


@check_arguments
def sided(side: Side | None = None) -> object:
    return side


def test_members_of_an_enumeration_may_be_written_as_strings() -> None:
    assert sided("left") is sided(Side.LEFT) is Side.LEFT  # type: ignore[arg-type]
    assert sided("Right") is Side.RIGHT  # type: ignore[arg-type]
    assert sided() is None
    with pytest.raises(InputError, match="Did you mean 'right'"):
        sided("rigth")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="side is 3, but it must be Side or None"):
        sided(3)  # type: ignore[arg-type]
