"""The page's planner, run by V8 and in a browser, against ours: every count of every layer, to the MAC."""

from __future__ import annotations

import html
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py_mini_racer import MiniRacer

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.units import decimal_text, parse_sparsity
from iftplan.masks.cardinality import log2_choose
from iftplan.masks.distributions import Distribution
from iftplan.models.spec import InputSpec, Kind, LayerSpec, ModelSpec, WeightLayer
from iftplan.models.zoo.entries import ZOO
from iftplan.models.zoo.specs import zoo_spec
from iftplan.plans.budget import Account, close
from iftplan.plans.document.layers import after_notation, before_notation
from iftplan.plans.plan import WHOLE, Plan, Scope
from iftplan.plans.planner import plan
from iftplan.plans.request import PlanRequest
from iftplan.plots.explorer.description import PAGE_FAMILIES, describe
from iftplan.plots.explorer.page import explorer_page, planner_script
from tests.support.hand_specs import chain, linear, mlp, resnet
from tests.support.pages.browser import BROWSER, dom

ASK = """
const shown = (key, value) =>
  typeof value === "bigint" ? value.toString() : value instanceof Map ? Object.fromEntries(value) : value;
const exact = ({ n, d }) => ratio(BigInt(n), BigInt(d));
let prepared;
function asked(request) {
  const whole = { ...request, sparsity: exact(request.sparsity), roundTo: BigInt(request.roundTo) };
  try {
    return JSON.stringify(planModel(prepared, whole), shown);
  } catch (error) {
    if (!(error instanceof Infeasible)) throw error;
    const near = request.nearest ? nearestFeasible(prepared, whole) : null;
    return JSON.stringify({ infeasible: error.message, near }, shown);
  }
}
"""


@dataclass(frozen=True)
class Setting:
    """What the page's controls say."""

    family: str
    sparsity: Fraction
    scope: Scope = Scope.LAYERS
    distribution: Distribution = Distribution.UNIFORM
    keep_first: bool = True
    keep_last: bool = True
    round_to: int = 1

    @property
    def keep_dense(self) -> tuple[str, ...]:
        return tuple(n for n, kept in (("first", self.keep_first), ("last", self.keep_last)) if kept) or (
            "none",
        )

    @property
    def request(self) -> PlanRequest:
        widens = self.family in ("wide", "lowrank")
        return PlanRequest(
            family=self.family,
            sparsity=self.sparsity,
            scope=self.scope,
            distribution=self.distribution,
            keep_dense=self.keep_dense,
            round_to=self.round_to if widens else 1,
        )

    @property
    def on_the_page(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "sparsity": {"n": self.sparsity.numerator, "d": self.sparsity.denominator},
            "scope": self.scope.value,
            "distribution": self.distribution.value,
            "keepFirst": self.keep_first,
            "keepLast": self.keep_last,
            "roundTo": self.round_to,
        }


def drawn(random: Random) -> Setting:
    percent = Fraction(random.randint(0, 99), 100)
    thousandth = Fraction(random.randint(0, 999), 1000)
    return Setting(
        random.choice(PAGE_FAMILIES),
        random.choice((percent, percent, thousandth, Fraction(1, 3), Fraction(2, 7))),
        random.choice(WHOLE),
        random.choice(list(Distribution)),
        random.random() < 0.7,
        random.random() < 0.7,
        random.choice((1, 1, 8, 16)),
    )


@pytest.fixture(scope="module")
def v8() -> Iterator[MiniRacer]:
    engine = MiniRacer()
    engine.eval(planner_script() + ASK)
    yield engine
    engine.close()


def load(v8: MiniRacer, spec: ModelSpec) -> None:
    v8.eval(f"prepared = prepareModel({json.dumps(describe(spec))}); 0")


def answer(v8: MiniRacer, setting: Setting, nearest: bool = False) -> Any:
    return json.loads(str(v8.eval(f"asked({json.dumps({**setting.on_the_page, 'nearest': nearest})})")))


def ratio(value: Mapping[str, str] | None) -> Fraction | None:
    return None if value is None else Fraction(int(value["n"]), int(value["d"]))


def of_plan(made: Plan) -> Any:
    return {
        "layers": [
            [
                x.name, x.role.value, x.reason, before_notation(x), after_notation(x, made.transform), x.dense_macs, x.macs,
                x.capacity, x.nnz, x.dense_weights, x.maskable, dict(x.structure),
            ]
            for x in made.layers
        ],
        "scopes": {
            s.value: [made.dense_macs(s), made.macs(s), made.ratio(s), made.closing_sparsity[s]] for s in WHOLE
        },
        "residual": made.residual_macs,
        "maskable": made.cardinality.maskable_weights,
        "widths": dict(made.widths),
    }  # fmt: skip


def of_page(found: Any) -> Any:
    return {
        "layers": [
            [
                x["name"], x["role"], x["reason"], x["before"], x["after"], int(x["denseMacs"]), int(x["macs"]),
                int(x["capacity"]), int(x["nnz"]), int(x["denseWeights"]), x["maskable"],
                {k: int(v) for k, v in x["structure"].items()},
            ]
            for x in found["layers"]
        ],
        "scopes": {
            name: [int(s["dense"]), int(s["planned"]), ratio(s["ratio"]), ratio(s["closingSparsity"])]
            for name, s in found["scopes"].items()
        },
        "residual": None if found["residual"] is None else int(found["residual"]),
        "maskable": int(found["maskableWeights"]),
        "widths": {name: int(size) for name, size in (found["widths"] or {}).items()},
    }  # fmt: skip


def disagreements(v8: MiniRacer, spec: ModelSpec, asked: Sequence[Setting]) -> list[str]:
    """What differs between our plans of a model and the page's, one sentence a setting."""
    load(v8, spec)
    return [f"{spec.source} {setting}: {why}" for setting in asked for why in _differences(v8, spec, setting)]


def _differences(v8: MiniRacer, spec: ModelSpec, setting: Setting) -> Iterator[str]:
    found = answer(v8, setting)
    try:
        made = plan(spec, setting.request.policy())
    except InfeasibleError as error:
        if "infeasible" not in found:
            yield f"the page has a plan, and ours says {error}"
        elif setting.family != "none" and (
            near := re.search(r"nearest feasible sparsity is (\S+)\.$", str(error))
        ):
            page = ratio(answer(v8, setting, nearest=True)["near"])
            if page is None or decimal_text(page) != near[1]:
                yield f"the page's nearest sparsity is {page}, ours {near[1]}"
        return
    if "infeasible" in found:
        yield f"we have a plan, and the page says {found['infeasible']}"
    elif of_page(found) != of_plan(made):
        yield f"{of_page(found)} is not {of_plan(made)}"
    elif made.cardinality.log2_masks != pytest.approx(found["log2Masks"], rel=1e-12):
        yield f"{found['log2Masks']} bits are not {made.cardinality.log2_masks}"
    elif made.multiplier != pytest.approx(found["multiplier"], rel=1e-15):
        yield f"multiplier {found['multiplier']} is not {made.multiplier}"


BY_HAND: Mapping[str, Callable[[], ModelSpec]] = {"chain": chain, "mlp": mlp, "resnet": lambda: resnet(18)}


@pytest.mark.parametrize("name", BY_HAND)
def test_small_models_are_planned_alike(v8: MiniRacer, name: str) -> None:
    random = Random(name)
    assert disagreements(v8, BY_HAND[name](), [drawn(random) for _ in range(60)]) == []


@pytest.mark.parametrize("name", ["resnet18", "gpt3-small", "mobilevit-s"])
def test_bundled_models_are_planned_alike(v8: MiniRacer, name: str) -> None:
    spec = zoo_spec(f"zoo:{name}")
    assert spec is not None
    random = Random(name)
    assert disagreements(v8, spec, [drawn(random) for _ in range(25)]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_every_bundled_model_is_planned_alike(v8: MiniRacer, name: str) -> None:
    spec = zoo_spec(f"zoo:{name}")
    assert spec is not None
    random = Random(f"{name} again")
    assert disagreements(v8, spec, [drawn(random) for _ in range(40)]) == []


@pytest.mark.slow
def test_networks_of_all_kinds_of_layers_are_planned_alike(v8: MiniRacer) -> None:
    """Groups, transposed convolutions, experts, recurrences, heads, tied and held weights."""
    from iftplan.nn.reading.read import read_model
    from tests.support.models.widths import MODELS

    found = []
    for name, (build, inputs) in MODELS.items():
        random = Random(name)
        found += disagreements(v8, read_model(build(), inputs), [drawn(random) for _ in range(12)])
    assert len(MODELS) > 25
    assert found == []


def test_what_has_no_plan_is_told_with_the_nearest_sparsity(v8: MiniRacer) -> None:
    spec = ModelSpec("tiny", (InputSpec((1, 2)),), (linear("a", 2, 2), linear("b", 2, 3)))
    asked = [
        Setting(family, Fraction(s, 100), scope, distribution, False, False)
        for family in ("doped", "lowrank", "factorized", "wide", "parallel")
        for s in (0, 10, 50, 99)
        for scope in WHOLE
        for distribution in Distribution
    ]
    assert disagreements(v8, spec, asked) == []
    assert "infeasible" in answer(v8, Setting("wide", Fraction(1, 2)))
    assert "cannot be widened" in answer(v8, Setting("wide", Fraction(1, 2)))["infeasible"]


@st.composite
def accounts(draw: st.DrawFn) -> tuple[list[Account], int]:
    """Layers of few weights and of many, with targets that overspend, underspend and tie."""
    of = draw(st.sampled_from((9, 400, 100_000)))
    found = []
    for _ in range(draw(st.integers(1, 5))):
        capacity = draw(st.integers(1, of))
        target = draw(st.fractions(0, capacity + 2, max_denominator=9))
        found.append(
            Account(capacity, draw(st.sampled_from((1, 2, 3, 4, 7, 9, 49, 196))), target, int(target >= 1))
        )
    whole = sum(a.capacity * a.positions for a in found)
    return found, draw(st.integers(0, whole + 5))


@settings(max_examples=300)
@given(accounts())
def test_budgets_are_closed_alike(v8: MiniRacer, case: tuple[list[Account], int]) -> None:
    given_accounts, budget = case
    told = [
        {"capacity": str(a.capacity), "positions": str(a.positions), "least": str(a.least),
         "target": {"n": str(a.target.numerator), "d": str(a.target.denominator)}}
        for a in given_accounts
    ]  # fmt: skip
    code = f"""JSON.stringify(closeBudget({json.dumps(told)}.map((a) => ({{
        capacity: BigInt(a.capacity), positions: BigInt(a.positions), least: BigInt(a.least), target: exact(a.target),
    }})), {budget}n), shown)"""
    nnz, left = json.loads(str(v8.eval(code)))
    assert (tuple(map(int, nnz)), int(left)) == close(given_accounts, budget)


@given(st.fractions(), st.integers(-60, 60))
def test_doubles_are_the_nearest(v8: MiniRacer, value: Fraction, power: int) -> None:
    value *= Fraction(10) ** power
    assert v8.eval(f"float(ratio({value.numerator}n, {value.denominator}n))") == float(value)


@given(st.integers(1, 10**12), st.data())
def test_masks_are_counted_alike(v8: MiniRacer, n: int, data: st.DataObject) -> None:
    k = data.draw(st.one_of(st.integers(0, n), st.integers(0, min(n, 1500))))
    assert v8.eval(f"log2Choose({n}n, {k}n)") == pytest.approx(log2_choose(n, k), rel=1e-12, abs=1e-12)


@given(st.integers(1, 10**40))
def test_roots_are_rounded_up_exactly(v8: MiniRacer, a: int) -> None:
    root = int(str(v8.eval(f"rootAbove({a}n).toString()")))
    assert (root - 1) ** 2 < a <= root**2


@pytest.mark.parametrize(
    "text",
    ["0.75", "3/4", "75%", "75 %", ".5", "0", "1", "1.5", "150%", "3/0", "-1", "x", "", "1/3", "0.9999"],
)
def test_a_sparsity_is_read_as_on_the_command_line(v8: MiniRacer, text: str) -> None:
    try:
        expected: Fraction | None = parse_sparsity(text)
    except InputError:
        expected = None
    found = v8.eval(f"JSON.stringify(sparsityIn({json.dumps(text)}), shown)")
    assert ratio(json.loads(str(found))) == expected


def test_a_fused_attention_layer_is_refused() -> None:
    layer = LayerSpec("a", Kind.ATTENTION, 8, 8, heads=2)
    spec = ModelSpec("x", (), (WeightLayer(layer, "a.weight"),))
    with pytest.raises(InputError, match="fused attention"):
        describe(spec)


# --- the page ------------------------------------------------------------------------------------------------


def test_the_page_holds_everything_and_asks_for_nothing() -> None:
    spec = zoo_spec("zoo:gpt3-small")
    assert spec is not None
    page = explorer_page(spec)
    assert not re.search(
        r"(src|href)\s*=|url\(|@import|fetch\(|XMLHttpRequest", page.partition("<script>")[0]
    )
    assert "default-src 'none'" in page
    assert "http://www.w3.org/2000/svg" in page and page.count("http") == 2, "the name of SVG, and http-equiv"
    assert len(page.encode()) < 120_000


HOSTILE = "</script><script>document.title = 'run'</script><img src=x onerror=alert(1)>\u2028"


def hostile_page() -> str:
    layers = tuple(linear(f"{HOSTILE}{i}", 8, 8) for i in range(3))
    spec = ModelSpec(HOSTILE, (InputSpec((1, 8)),), layers, refusal=HOSTILE, assumptions=(HOSTILE,))
    return explorer_page(spec, document={"schema": "iftplan.sweep/1", "rows": [], "text": HOSTILE})


def test_no_name_ends_the_element_it_stands_in() -> None:
    page = hostile_page()
    assert page.count("<script") == 3
    assert "<img" not in page


DRIVE = """
<script>
const grid = JSON.parse(document.getElementById("grid").textContent);
const numbers = (row) => [...row.cells].map((one) => one.textContent.replaceAll("\\u202f", ""));
const seen = grid.map((one) => {
  Object.assign(state, { roundTo: ONE }, settingsIn(one));
  showControls();
  show();
  const failed = byId("result").className === "infeasible";
  return {
    failed,
    scopes: failed ? [] : [...byId("scopes").tBodies[0].rows].map(numbers),
    layers: failed ? [] : [...byId("layers").tBodies[0].rows].map(numbers),
    command: byId("command").textContent,
    request: requestText(state),
  };
});
document.body.append(element("pre", { id: "seen" }, JSON.stringify(seen)));
</script>
"""
UNWATCHED = r"<meta http-equiv.*?>"


def driven(path: Path, page: str, grid: Sequence[str]) -> Any:
    """What the page shows after each of the settings."""
    told = f'<script type="application/json" id="grid">{json.dumps(list(grid))}</script>'
    path.write_text(re.sub(UNWATCHED, "", page).replace("</body>", f"{told}{DRIVE}</body>"), encoding="utf-8")
    text = re.search(r'<pre id="seen">(.*?)</pre>', dom(path), re.S)
    assert text, "the page's script did not run to its end"
    return json.loads(html.unescape(text[1]))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine to open the page in")
@pytest.mark.parametrize("name", ["resnet18", "gpt3-small"])
def test_a_browser_shows_what_the_planner_plans(name: str, tmp_path: Path) -> None:
    spec = zoo_spec(f"zoo:{name}")
    assert spec is not None
    random = Random(f"{name} in a browser")
    asked = [drawn(random) for _ in range(260)]
    hashes = [
        f"family={x.family}&sparsity={x.sparsity}&scope={x.scope}&distribution={x.distribution}"
        f"&keep_dense={','.join(x.keep_dense)}&round_to={x.round_to}"
        for x in asked
    ]
    shown = driven(tmp_path / "page.html", explorer_page(spec), hashes)
    for setting, seen in zip(asked, shown, strict=True):
        try:
            made = plan(spec, setting.request.policy())
        except InfeasibleError:
            assert seen["failed"]
            continue
        asks = tomllib.loads(seen["request"])["plan"]
        assert (
            PlanRequest(
                family=asks["transform"],
                sparsity=asks["sparsity"],
                scope=Scope(asks["scope"]),
                distribution=Distribution(asks["distribution"]),
                keep_dense=tuple(asks["keep_dense"]),
                round_to=asks["round_to"],
            ).policy()
            == setting.request.policy()
        )
        assert [row[1:4] for row in seen["scopes"]] == [
            [str(made.dense_macs(s)), str(made.macs(s)), f"{float(made.ratio(s)):.6f}"] for s in WHOLE
        ], setting
        assert [[row[0], *row[2:5], *row[6:8]] for row in seen["layers"]] == [
            [
                layer.name, before_notation(layer), after_notation(layer, made.transform),
                str(layer.nnz) if layer.positions else "", str(layer.dense_macs), str(layer.macs),
            ]
            for layer in made.layers
        ], setting  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine to open the page in")
def test_a_browser_runs_nothing_that_a_name_says(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(hostile_page(), encoding="utf-8")
    text = dom(path)
    assert "<img" not in text
    assert "<title>run" not in text
    assert "&lt;img src=x" in text
