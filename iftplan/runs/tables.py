"""Training runs as tables: what would run, and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iftplan.base.units import abbreviate, count
from iftplan.plans.plan import Plan, Scope
from iftplan.report.table import Table
from iftplan.runs.costs.memory import TrainingMemory
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.methods import METHODS
from iftplan.runs.settings import RunConfig


def run_table(run: RunConfig, plan: Plan, directory: str) -> Table:
    """Settings of a run, and its cost in MACs of one sample.

    Args:
        run: its settings.
        plan: whose layers are masked.
        directory: of the run.
    """
    cost = TrainingCost.of(plan, run.method.input_gradient)
    length = f"{run.training.steps} steps" if run.training.steps else f"{run.training.epochs} epochs"
    dense = run.method.name == "dense"
    opened = run.method.name == "densified"
    whole = opened or METHODS[run.method.name].selective
    forward = cost.dense if dense else cost.opened if whole else cost.forward()
    step = 3 * forward if dense or opened else _step(run, cost)
    asked = plan.asked if plan.budget or plan.mixture else f"sparsity {plan.sparsity}"
    start = (("begins with", run.start.checkpoint),) if run.start.checkpoint else ()
    memory = TrainingMemory.of(
        plan,
        run.optimizer.name,
        momentum=run.optimizer.momentum,
    )
    teacher = (("teacher", run.distillation.teacher),) if run.distillation.teacher else ()
    rows = (
        ("model", plan.model),
        (
            "plan",
            f"{plan.transform} at {asked}, closed in {plan.scope_name(plan.scope) if plan.scope else 'no scope'}",
        ),
        ("method", run.method.name + (": the plan's dense model, the control" if dense else "")),
        *start,
        *teacher,
        *_growing(run),
        ("data", run.data.path or run.data.kind),
        ("optimizer", f"{run.optimizer.name}, lr {run.optimizer.lr:g} {run.schedule.name}"),
        ("length", f"{length}, batches of {run.training.batch_size}"),
        ("seed", str(run.seed)),
        *(
            ()
            if run.growth.how != "none"  # which changes them
            else (
                ("forward MACs a sample", count(forward)),
                ("training MACs a sample", count(step)),
                ("dense model's", count(cost.dense_step)),
                *_held(memory, dense=dense, masks=not (dense or opened)),
            )
        ),
        ("run directory", directory),
    )
    return Table(("", "run"), rows, notes=_notes(run, cost))


def _growing(run: RunConfig) -> tuple[tuple[str, str], ...]:
    """Growth of the network, where it grows."""
    growth = run.growth
    if growth.how == "none":
        return ()
    how = f"{growth.how}, {growth.times} times from {growth.begin:g} to {growth.end:g} times the dense widths"
    return (("growth", how), ("training budget", f"{growth.budget:g} of the dense model's training MACs"))


def _held(memory: TrainingMemory, *, dense: bool, masks: bool) -> tuple[tuple[str, str], ...]:
    """Bytes that the run holds for the plan's weights."""
    weights = memory.dense_weights if dense else memory.weights
    tensors = 2 + memory.states
    shown = [
        (
            "weights and optimizer",
            f"{count(tensors * memory.element * weights)} bytes",
        )
    ]
    if masks and memory.maskable:
        shown.append(
            ("masks", f"{count(memory.mask_bytes)} bytes; {count(memory.index_bits)} bits as indices")
        )
    return tuple(shown)


def _step(run: RunConfig, cost: TrainingCost) -> int:
    """MACs of a sample's step under the plan's masks."""
    method = METHODS[run.method.name]
    if method.selective:
        return cost.step(cost.capacity, reached=cost.nnz)
    if method.partly:
        return cost.step(reached=cost.around(run.method.margin))
    return cost.step(dense_gradient=method.averages or (method.straight and run.method.straight))


def _notes(run: RunConfig, cost: TrainingCost) -> tuple[str, ...]:
    method, notes = METHODS[run.method.name], []
    if run.adapters.rank:
        notes.append(
            f"adapters of rank {run.adapters.rank} cost more, and the frozen weights beside them have no gradients"
        )
    if run.distillation.teacher:
        notes.append("every sample costs a forward pass of the teacher more")
    if method.looks:
        dense = count(cost.step(dense_gradient=True))
        notes.append(f"a step that looks at the dense gradient: {dense} MACs a sample")
    if method.gradual and not run.method.initial:
        first = cost.step(cost.capacity, curvature=method.curvature)
        notes.append(f"a step before anything is masked: {count(first)} MACs a sample")
    return tuple(notes)


def _bytes(found: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What the run held; nothing for results written before it was said."""
    if "parameter_bytes" not in found:
        return ()
    weights = found["parameter_bytes"] + found["gradient_bytes"]
    return (
        ("weight, gradient bytes", count(weights)),
        ("optimizer, mask bytes", f"{count(found['optimizer_bytes'])}, {count(found['mask_bytes'])}"),
        ("activation bytes", count(found["activation_bytes"])),
    )


def result_table(found: Mapping[str, Any]) -> Table:
    """Metric, losses and cost of a finished run, in MACs."""
    rows = (
        (found["metric_name"], f"{found['metric']:.4f}"),
        ("loss in training, in test", f"{found['loss']:.4f}, {found['test_loss']:.4f}"),
        ("training MACs", count(found["train_macs"])),
        ("dense model's", count(found["dense_train_macs"])),
        ("ratio", f"{found['train_ratio']:.6f}"),
        ("weights kept", f"{count(found['nnz'])} of {count(found['maskable_weights'])}"),
        *_bytes(found),
    )
    steps = f"{found['steps']} steps, {abbreviate(found['samples'])} samples, scope {Scope.MODEL.value}"
    best = (
        f"best validation loss {found['validation_loss']:.4f}, after {found['best_step']} steps"
        if "best_step" in found
        else ""
    )
    return Table(("", "result"), rows, notes=(steps, *((best,) if best else ())))


def ingredients_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Runs that a soup is made of and what they cost in MACs, from their results by directory; no metric is compared."""
    rows = [
        (
            name,
            str(found["steps"]),
            f"{count(found['nnz'])} of {count(found['maskable_weights'])}",
            count(found["train_macs"]),
        )
        for name, found in results.items()
    ]
    total = (
        f"all {len(rows)}",
        str(sum(found["steps"] for found in results.values())),
        "the same",
        count(sum(found["train_macs"] for found in results.values())),
    )
    return Table(
        ("run", "steps", "weights kept", "training MACs"),
        (*rows, total),
        notes=("the runs share their masks, so their average is as sparse",),
    )


def soup_table(found: Mapping[str, Any]) -> Table:
    """Metric of a soup beside those of its runs, and training MACs of all of them."""
    section, name = found["soup"], found["metric_name"]
    runs = section["runs"]
    rows = [
        (run["run"], "yes" if run["used"] else "no", f"{run['metric']:.4f}", count(run["train_macs"]))
        for run in runs
    ]
    rows.append(("mean of the runs", "", f"{section['mean_metric']:.4f}", ""))
    if section["norm_samples"]:
        rows.append(("batch statistics", "", "", count(section["norm_macs"])))
    used = sum(run["used"] for run in runs)
    rows.append(
        (f"{section['kind']} soup of {used}", "", f"{found['metric']:.4f}", count(found["train_macs"]))
    )
    notes = (
        f"training MACs over the dense model's on the same samples: {found['train_ratio']:.6f}",
        *(
            (f"batch statistics from {section['norm_samples']} samples, a forward pass each",)
            if section["norm_samples"]
            else ()
        ),
    )
    return Table(("run", "in the soup", name, "training MACs"), tuple(rows), notes=notes)
