"""Mixtures of experts: a stack of matrices of which every row meets one, from the plan to the trained network.

Costs by hand: S rows (tokens times experts for each token) through E matrices m×n take S·m·n MACs whatever the router
does; with q weights kept in every expert, S·q.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
import transformers as hf
from torch import Tensor, nn

import iftplan as ift
from iftplan import nn as inn
from iftplan.base.errors import InputError, MeasureError
from iftplan.masks import NM, Block, Channel, ConstantFanIn, Unstructured, stack_counts, stack_log2_masks
from iftplan.models.document import parse_spec, spec_document
from iftplan.models.notation import parse_layer
from iftplan.models.spec import InputSpec, ModelSpec
from iftplan.nn.layers.stacks import StackedLinear
from iftplan.nn.masking.step_masks import layer_counts, weights_by_layer
from iftplan.nn.masks.masked_weights import MaskedWeight, masked_weights
from iftplan.nn.reading.widths.trace import trace_widths
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.plan import Plan, Scope
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.schedules import Updates

EXPERTS, CHOSEN, TOKENS = 4, 2, 16
ROWS = TOKENS * CHOSEN


class Mixture(nn.Module):
    """Hand-written: a router, two grouped products; weights are (experts, inputs, outputs) or the other way round."""

    def __init__(self, width: int = 16, inner: int = 32, *, inputs_first: bool = False, **said: bool) -> None:
        super().__init__()
        self.inputs_first = inputs_first
        for name, value in said.items():
            setattr(self, name, value)
        self.router = nn.Linear(width, EXPERTS)
        up, down = (width, inner), (inner, width)
        self.up = nn.Parameter(torch.randn(EXPERTS, *(up if inputs_first else up[::-1])) / 4)
        self.down = nn.Parameter(torch.randn(EXPERTS, *(down if inputs_first else down[::-1])) / 4)

    def forward(self, x: Tensor) -> Tensor:
        share, chosen = self.router(x).softmax(-1).topk(CHOSEN)
        owners, order = chosen.flatten().sort()
        ends = torch.searchsorted(owners, torch.arange(EXPERTS, device=x.device), right=True, out_int32=True)
        up, down = (self.up, self.down) if self.inputs_first else (self.up.mT, self.down.mT)
        hidden = F.grouped_mm(x[order // CHOSEN], up, offs=ends).relu()
        out = F.grouped_mm(hidden, down, offs=ends) * share.flatten()[order, None]
        return torch.zeros_like(x).index_add(0, order // CHOSEN, out)


class Host(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.first, self.mixture, self.last = nn.Linear(8, 16), Mixture(**options), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(hidden + self.mixture(hidden))


HOST = InputSpec((TOKENS, 8))


def mixtral(layers: int = 1) -> nn.Module:
    torch.manual_seed(0)
    config = hf.MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=EXPERTS,
        num_experts_per_tok=CHOSEN,
        max_position_embeddings=64,
        use_cache=False,
    )
    return hf.MixtralForCausalLM(config)


@cache
def read() -> tuple[nn.Module, ModelSpec]:
    model = mixtral()
    return model, ift.read_model(model, f"1x{TOKENS}:int64")


@cache
def applied(transform: str) -> tuple[Plan, nn.Module]:
    model, spec = read()
    plan = ift.plan(spec, transform, 0.75)
    return plan, inn.apply(plan, model)


def stacks(model: nn.Module) -> list[MaskedWeight]:
    return [weight for weight in masked_weights(model) if weight.experts > 1]


def kept(weight: MaskedWeight) -> list[int]:
    return [int(expert.count_nonzero()) for expert in weight.mask]


# --- what is planned -------------------------------------------------------------------------------------


def test_a_stack_is_a_layer_of_rows_that_meet_one_expert_each() -> None:
    _, spec = read()
    up, down = (w.layer for w in spec.layers if w.layer.experts > 1)
    assert (up.in_channels, up.out_channels, up.positions, up.experts) == (32, 2 * 48, ROWS, EXPERTS)
    assert (down.in_channels, down.out_channels, down.positions) == (48, 32, ROWS)
    assert (up.weights, down.weights) == (EXPERTS * 32 * 96, EXPERTS * 48 * 32)
    assert (up.dense_macs, down.dense_macs) == (ROWS * 32 * 96, ROWS * 48 * 32)
    assert not any(w.unmaskable for w in spec.layers if w.layer.experts > 1)
    assert parse_spec(spec_document(spec)) == spec


def test_a_configuration_is_read_alike(tmp_path: Path) -> None:
    model, _ = read()
    config = {**model.config.to_diff_dict(), "architectures": ["MixtralForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    layers = ift.read_model(f"hf:{tmp_path}", f"1x{TOKENS}:int64").layers
    assert [w.layer for w in layers] == [w.layer for w in read()[1].layers]


def test_wide_moves_the_stream_and_the_experts_inside_and_not_their_number() -> None:
    _, spec = read()
    plan = ift.plan(spec, "wide", 0.75)
    assert plan.residual_macs == 0
    rows = {layer.name.rpartition(".")[2]: layer for layer in plan.layers}
    assert str(rows["gate_up_proj"].after) == f"linear:64-192@{ROWS},experts={EXPERTS}"
    assert str(rows["down_proj"].after) == f"linear:96-64@{ROWS},experts={EXPERTS}"
    assert str(rows["gate"].after) == f"linear:64-{EXPERTS}@{TOKENS}"
    for name in ("gate_up_proj", "down_proj"):
        assert rows[name].nnz % EXPERTS == 0
        assert rows[name].macs == ROWS * rows[name].nnz // EXPERTS
    assert parse_plan(plan_document(plan)) == plan


def test_a_plan_whose_experts_are_uneven_is_refused() -> None:
    plan = ift.plan(read()[1], "wide", 0.75)
    document = plan_document(plan)
    row = next(row for row in document["layers"] if "experts" in row)
    row["experts"] = 7
    from iftplan.base.documents import with_digest

    with pytest.raises(InputError, match="experts is 7"):
        parse_plan(with_digest({key: value for key, value in document.items() if key != "digest"}))


def test_a_router_with_a_bias_keeps_its_experts() -> None:
    # The bias ties itself to the weight's rows, and nothing but the choice ties both to the experts.
    couplings = trace_widths(Host().to("meta"), (HOST,))
    free = {name for name, width in couplings.widths.items() if not width.fixed}
    shapes = {n: [d.symbols & free for d in shape] for n, shape in couplings.shapes.items()}
    assert shapes["mixture.router.bias"] == [set()]
    assert [bool(d) for d in shapes["mixture.up"]] == [False, True, True]
    assert shapes["mixture.up"][2] == shapes["mixture.down"][1] == shapes["first.bias"][0]
    assert shapes["mixture.up"][1] == shapes["mixture.down"][2] != shapes["first.bias"][0]


@pytest.mark.parametrize(
    ("structure", "counts"),
    [
        (Unstructured(), range(0, 2 * 32 + 1, 2)),
        (ConstantFanIn(), range(0, 2 * 32 + 1, 2 * 4)),
        (Channel(), range(0, 2 * 32 + 1, 2 * 8)),
        (Block(4, 2), range(0, 2 * 32 + 1, 2 * 8)),
        (NM(2, 4), range(2 * 8, 2 * 16 + 1, 2)),
    ],
)
def test_counts_of_a_stack_are_those_of_one_expert_times_their_number(structure: Any, counts: range) -> None:
    matrices = ((8, 4), (8, 4))
    assert stack_counts(structure, matrices, experts=2) == counts
    one = structure.log2_masks(matrices[:1], counts[1] // 2)
    assert stack_log2_masks(structure, matrices, 2, counts[1]) == pytest.approx(2 * one)


def test_one_layer_is_solved_as_a_stack() -> None:
    layer = parse_layer("linear:32-96@32,experts=4")
    solved = ift.solve(layer, "wide", "3/4")
    assert (solved.structure["in_channels"], solved.capacity) == (64, 4 * 64 * 192)
    assert (solved.nnz, solved.macs, solved.dense_macs) == (4 * 32 * 96, 32 * 32 * 96, 32 * 32 * 96)
    assert ift.solve(layer, "parallel", "3/4").structure == {"branches": 4}
    with pytest.raises(InputError, match="experts belongs to linear"):
        parse_layer("conv3x3:8-8@4x4,experts=2")


# --- what is applied and audited -------------------------------------------------------------------------


@pytest.mark.parametrize("transform", ["wide", "parallel", "factorized", "doped", "lowrank"])
def test_every_family_closes_is_applied_and_measured_alike_by_three_engines(transform: str) -> None:
    plan, model = applied(transform)
    assert plan.residual_macs == 0 or transform == "lowrank"
    assert all(len(set(kept(weight))) == 1 for weight in stacks(model))
    report = inn.measure_applied(plan, model, engines=("meta", "fvcore", "flop_counter"))
    assert report.passed, report.problems
    assert set(report.counters.values()) == {plan.macs(Scope.MODEL)}
    experts = [layer for layer in plan.layers if layer.experts > 1]
    assert len(experts) == 2 and all(layer.role.value == "transformed" for layer in experts)


def test_branches_stand_in_the_place_of_every_experts_matrix() -> None:
    _, model = applied("parallel")
    up = model.get_submodule("model.layers.0.mlp.experts.gate_up_proj")
    weights = [branch.weight for branch in up.branches]
    assert [tuple(w.shape) for w in weights] == [(EXPERTS, 96, 32)] * 4
    assert {n for weight in stacks(model) for n in kept(weight)} == {32 * 96 // 4, 48 * 32 // 4}


def test_one_branch_computes_what_the_host_does() -> None:
    model = mixtral().eval()
    routed = copy.deepcopy(model)
    from iftplan.nn.layers.experts import RoutedExperts, StackedParallel

    host = routed.model.layers[0].mlp.experts
    routed.model.layers[0].mlp.experts = RoutedExperts(host)
    tokens = torch.arange(TOKENS).view(1, -1) * 3 % 64
    torch.testing.assert_close(routed(tokens).logits, model(tokens).logits)
    experts = routed.model.layers[0].mlp.experts
    for name in ("gate_up_proj", "down_proj"):
        values = experts._parameters[name].detach().clone()
        member = StackedParallel(experts.layer(name), 1)
        experts.replace_(name, member)
        member.branches[0].weight.data.copy_(values)
    torch.testing.assert_close(routed(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize("sizes", [(8, 12), (7, 5)])  # those of the second are no multiples of 16 bytes
def test_grouped_rows_meet_their_own_matrix(sizes: tuple[int, int]) -> None:
    inputs, outputs = sizes
    torch.manual_seed(0)
    rows, owners = torch.randn(9, inputs), torch.tensor([0, 0, 0, 2, 2, 2, 2, 3, 3])
    layer = StackedLinear(4, inputs, outputs)
    layer.bias.data.normal_()
    ends = torch.tensor([3, 3, 7, 9], dtype=torch.int32)
    each = [layer.weight[e] @ row + layer.bias[e] for e, row in zip(owners, rows, strict=True)]
    torch.testing.assert_close(layer(rows, owners, ends), torch.stack(each))


@pytest.mark.parametrize("inputs_first", [False, True])
def test_masks_of_a_structure_run_along_the_inputs_of_every_expert(inputs_first: bool) -> None:
    model = Host(inputs_first=inputs_first)
    plan = ift.plan(ift.read_model(model, str(HOST)), "wide", 0.75, mask="2:8")
    sparse = inn.apply(plan, model)
    assert {w.parameter_name for w in stacks(sparse)} == {"up", "down"}
    for weight in stacks(sparse):
        mask = weight.mask.mT if inputs_first else weight.mask  # (experts, outputs, inputs)
        groups = mask.unflatten(2, (-1, 8)).sum(3)
        assert bool(((groups == 2) | (groups == 1)).all())
        assert len(set(kept(weight))) == 1


def test_square_experts_that_do_not_say_how_they_lie_take_any_mask_but_no_pattern() -> None:
    model = Host(width=16, inner=16)
    spec = ift.read_model(model, str(HOST))
    inn.apply(ift.plan(spec, "wide", 0.75), model)
    plan = ift.plan(spec, "wide", 0.75, mask="2:8")
    with pytest.raises(InputError, match="which side is the inputs, along which 2:8 patterns run"):
        inn.apply(plan, model)
    said = Host(width=16, inner=16, is_transposed=False)
    inn.apply(plan, said)


def test_experts_with_zeros_of_their_own_counts_have_no_known_cost() -> None:
    plan, sparse = applied("wide")
    uneven = copy.deepcopy(sparse)
    weight = stacks(uneven)[0]
    weight.mask[0].view(-1)[int(weight.mask[0].view(-1).nonzero()[0])] = False
    inn.enforce_(uneven)
    with pytest.raises(MeasureError, match="where the router sends each row"):
        inn.measure_applied(plan, uneven)
    optimizer = torch.optim.SGD(uneven.parameters(), 0.1)
    with pytest.raises(InputError, match="keep different numbers of weights"):
        inn.Masking(uneven, optimizer, inn.RigL(Updates(end=10)))


def test_new_experts_start_at_the_deviation_of_one_of_them() -> None:
    _, model = applied("wide")
    experts = model.get_submodule("model.layers.0.mlp.experts")
    up = experts.gate_up_proj.detach()[experts.gate_up_proj_mask]
    assert float(up.std()) == pytest.approx(
        (2 / 192) ** 0.5, rel=0.03
    )  # Kaiming by fan-out, as a linear layer's


# --- what is trained -------------------------------------------------------------------------------------


def dense_forward(model: nn.Module, *, branches: bool) -> int:
    """Every weight present, by hand from the parameters' shapes; 4 heads of 8, or twice as wide."""
    parameters = dict(model.named_parameters())
    matrices = {n: p for n, p in parameters.items() if p.dim() > 1 and "embed" not in n}
    stacked = sum(p.numel() for p in matrices.values() if p.dim() == 3)
    plain = sum(p.numel() for p in matrices.values() if p.dim() == 2)
    stream = 32 if branches else 64
    return ROWS * stacked // EXPERTS + TOKENS * plain + 2 * TOKENS * TOKENS * stream


@pytest.mark.parametrize("transform", ["wide", "parallel"])
def test_fifty_steps_under_rigl_hold_every_experts_count_and_the_ledger(transform: str) -> None:
    plan, sparse = applied(transform)
    model = copy.deepcopy(sparse)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    masks = inn.Masking(model, optimizer, inn.RigL(Updates(end=45, interval=10)))
    cost, groups = TrainingCost.of(plan), weights_by_layer(plan, model)
    before = {weight.name: (kept(weight), weight.mask.clone()) for weight in stacks(model)}
    torch.manual_seed(1)
    tokens = torch.randint(0, 64, (4, TOKENS))
    spent, updates, losses = 0, 0, []
    for _ in range(50):
        loss = model(input_ids=tokens, labels=tokens).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        masks.step()
        optimizer.step()
        spent += 4 * cost.step(
            layer_counts(groups, masks.taken.nnz), dense_gradient=masks.taken.dense_gradient
        )
        updates += masks.taken.dense_gradient
        assert all(kept(weight) == before[weight.name][0] for weight in stacks(model))
    sparse_pass = plan.macs(Scope.MODEL)
    dense_pass = dense_forward(model, branches=transform == "parallel")
    assert updates == 4
    assert spent == 4 * (50 * 3 * sparse_pass + updates * (dense_pass - sparse_pass))
    assert losses[-1] < losses[0]
    assert all(not torch.equal(weight.mask, before[weight.name][1]) for weight in stacks(model))
    report = inn.measure_applied(plan, model)
    assert report.passed, report.problems


ALGORITHMS: dict[str, Callable[[], Any]] = {
    "RigL": lambda: inn.RigL(Updates(end=8, interval=2)),
    "SET": lambda: inn.SET(Updates(end=8, interval=2)),
    "Gradual": lambda: inn.Gradual(Updates(end=8, interval=2, at_end=True)),
    "SRSTE": inn.SRSTE,
    "Saliency": inn.Saliency,
}


@pytest.mark.parametrize("structure", ["unstructured", "2:8", "fan-in", "channel", "block4x4"])
@pytest.mark.parametrize("method", ALGORITHMS)
def test_every_algorithm_keeps_every_experts_count(method: str, structure: str) -> None:
    torch.manual_seed(0)
    model = Host()
    plan = ift.plan(ift.read_model(model, str(HOST)), "wide", 0.75, mask=structure)
    algorithm = ALGORITHMS[method]()
    sparse = inn.apply(plan, model, dense_start=algorithm.starts_dense)
    optimizer = torch.optim.SGD(sparse.parameters(), 1e-3)
    masks = inn.Masking(sparse, optimizer, algorithm, structure=structure)
    for _ in range(10):
        optimizer.zero_grad()
        sparse(torch.randn(TOKENS, 8)).square().mean().backward()
        masks.step()
        optimizer.step()
        assert all(len(set(kept(weight))) == 1 for weight in stacks(sparse))
    masks.finish()
    assert inn.measure_applied(plan, sparse).passed


def test_methods_that_would_leave_experts_uneven_are_refused() -> None:
    _, sparse = applied("wide")
    optimizer = torch.optim.SGD(sparse.parameters(), 0.1)
    with pytest.raises(InputError, match="choose by layer"):
        inn.Masking(sparse, optimizer, inn.Saliency(scope="global"))
    model = Host()
    plan = ift.plan(ift.read_model(model, str(HOST)), "wide", 0.75, mask="fan-in")
    structured = inn.apply(plan, model)
    optimizer = torch.optim.SGD(structured.parameters(), 0.1)
    with pytest.raises(InputError, match="ablation=0"):
        inn.Masking(structured, optimizer, inn.SRigL(Updates(end=10)), structure="fan-in")
    inn.Masking(structured, optimizer, inn.SRigL(Updates(end=10), ablation=0), structure="fan-in")


def test_training_macs_of_a_stack_are_those_of_its_rows() -> None:
    plan, _ = applied("wide")
    cost = TrainingCost.of(plan)
    up = next(layer for layer in plan.layers if layer.name.endswith("gate_up_proj"))
    assert cost.positions[up.name] == Fraction(ROWS, EXPERTS)
    assert cost.forward() == plan.macs(Scope.MODEL)
